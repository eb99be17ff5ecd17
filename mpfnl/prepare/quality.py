"""The quality record: how well a phase lies on the portal venous one, in numbers and a verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from mpfnl.data.manifest import Quality
from mpfnl.metrics.overlap import dice
from mpfnl.phases import Phase
from mpfnl.prepare.agreement import inside, jacobian, mismatch, normalized_mutual_information
from mpfnl.prepare.body import body_mask
from mpfnl.prepare.measured import Mask, Measured
from mpfnl.prepare.thresholds import Limits, Thresholds

ORGANS_MM = 24.0
"""How deep under the skin structures are compared: the wall of one body fits that of another too well."""

REACH_MM = 8.0
"""How far inside the phase's field of view they are compared: the smoothing reaches over its border."""

DIGITS = 6

_ORDER = (Quality.PASS, Quality.WARN, Quality.FAIL)


@dataclass(frozen=True)
class PhaseQuality:
    """What was found about one moving phase; NaN is what could not be measured.

    Args:
        verdict: The worst that any number says.
        reasons: Why it is not `pass`, one line a number.
        similarity_before: Normalised mutual information in the body, 1 to 2, by the scanner's coordinates.
        similarity_after: The same after the registration.
        mismatch_before: Share of the structures inside the body that differ, 0 to 1.
        mismatch_after: The same after the registration.
        coverage: Share of the body that the phase shows.
        body_overlap_before: Dice of the two bodies where the phase reaches.
        body_overlap_after: The same after the registration.
        folding: Share of the body where the displacement folds.
        log_jacobian_sd: Standard deviation of the logarithm of the volume change in the body.
        jacobian_p01: Volume change that 1 % of the body stays below.
        jacobian_p99: Volume change that 1 % of the body exceeds.
        displacement_mean_mm: How far the body was moved, mean.
        displacement_p95_mm: 95th percentile.
        displacement_max_mm: The most.
    """

    verdict: Quality
    reasons: tuple[str, ...]
    similarity_before: float
    similarity_after: float
    mismatch_before: float
    mismatch_after: float
    coverage: float
    body_overlap_before: float
    body_overlap_after: float
    folding: float
    log_jacobian_sd: float
    jacobian_p01: float
    jacobian_p99: float
    displacement_mean_mm: float
    displacement_p95_mm: float
    displacement_max_mm: float

    def to_json(self) -> dict[str, str | list[str] | float | None]:
        """Plain JSON; what could not be measured is null."""
        numbers = {name: None if math.isnan(value) else value for name, value in self.numbers().items()}
        return {"verdict": self.verdict.value, "reasons": list(self.reasons), **numbers}

    def numbers(self) -> dict[str, float]:
        """The numbers by name, in their order."""
        return {field.name: getattr(self, field.name) for field in fields(self)[2:]}


def measure(measured: Measured, thresholds: Thresholds | None = None) -> PhaseQuality:
    """Measures how well one phase lies on the portal venous one.

    Args:
        measured: Both on one grid of 4 mm, the size at which the thresholds were chosen.
        thresholds: From what on a number is doubtful or bad.
    """
    numbers = {name: float(f"{value:.{DIGITS}g}") for name, value in _numbers(measured).items()}
    verdict, reasons = judge(numbers, thresholds or Thresholds())
    return PhaseQuality(verdict, reasons, **numbers)


def study_verdict(phases: Mapping[Phase, PhaseQuality]) -> Quality:
    """The worst verdict of a study's phases.

    Raises:
        ValueError: There is none.
    """
    return max((quality.verdict for quality in phases.values()), key=_ORDER.index)


def _numbers(measured: Measured) -> dict[str, float]:
    body = body_mask(measured.fixed, measured.spacing)
    organs = inside(body, ORGANS_MM, measured.spacing, beyond=True)
    numbers = {}
    for when, phase, covered in (
        ("before", measured.before, measured.covered_before),
        ("after", measured.after, measured.covered_after),
    ):
        common = body & covered
        compared = organs & inside(covered, REACH_MM, measured.spacing, beyond=False)
        similarity = normalized_mutual_information(measured.fixed[common], phase[common])
        numbers[f"similarity_{when}"] = similarity
        numbers[f"mismatch_{when}"] = mismatch(measured.fixed, phase, compared)
        numbers[f"body_overlap_{when}"] = dice(common, body_mask(phase, measured.spacing) & covered)
    common = body & measured.covered_after
    numbers["coverage"] = float(common.sum() / body.sum()) if body.any() else math.nan
    return numbers | _deformation(measured, common)


def _deformation(measured: Measured, where: Mask) -> dict[str, float]:
    if not where.any():
        names = ("folding", "log_jacobian_sd", "jacobian_p01", "jacobian_p99")
        lengths = ("displacement_mean_mm", "displacement_p95_mm", "displacement_max_mm")
        return dict.fromkeys((*names, *lengths), math.nan)
    change = jacobian(measured.displacement, measured.spacing)[where]
    length = np.sqrt((measured.displacement[:, where].astype(np.float64) ** 2).sum(axis=0))
    unfolded = change[change > 0]
    low, high = np.percentile(change, (1, 99))
    return {
        "folding": float((change <= 0).mean()),
        "log_jacobian_sd": float(np.log(unfolded).std()) if unfolded.size else math.nan,
        "jacobian_p01": float(low),
        "jacobian_p99": float(high),
        "displacement_mean_mm": float(length.mean()),
        "displacement_p95_mm": float(np.percentile(length, 95)),
        "displacement_max_mm": float(length.max()),
    }


def judge(numbers: Mapping[str, float], limits: Thresholds) -> tuple[Quality, tuple[str, ...]]:
    """The verdict on the numbers of a phase, by the names of `PhaseQuality`, and its reasons."""
    judged = (
        ("coverage", "coverage of the body", limits.coverage, ".1%", ""),
        ("body_overlap_after", "body overlap", limits.body_overlap, ".3f", ""),
        ("similarity_after", "similarity", limits.similarity, ".3f", ""),
        ("mismatch_after", "structures that differ", limits.mismatch, ".1%", ""),
        ("folding", "folding", limits.folding, ".2%", ""),
        ("displacement_p95_mm", "body moved", limits.displacement_p95_mm, ".1f", " mm"),
    )
    verdicts, reasons = [Quality.PASS], []
    for name, label, limit, form, unit in judged:
        verdict = limit.judge(numbers[name])
        verdicts.append(verdict)
        if verdict is not Quality.PASS:
            reasons.append(f"{label} {_crossed(numbers[name], limit, verdict, form)}{unit}")
    return max(verdicts, key=_ORDER.index), tuple(reasons)


def _crossed(value: float, limits: Limits, verdict: Quality, form: str) -> str:
    if math.isnan(value):
        return f"unknown: nothing to measure it on ({verdict})"
    crossed = limits.fail if verdict is Quality.FAIL and limits.fail is not None else limits.warn
    return f"{value:{form}}, {verdict} {'above' if limits.above else 'below'} {crossed:{form}}"
