"""Quality record of a registered phase: measures of its alignment, thresholds and verdict."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields

import numpy as np

from mpfnl.data.manifest import Quality
from mpfnl.metrics.overlap import dice
from mpfnl.phases import Phase
from mpfnl.prepare.alignment import (
    Alignment,
    Mask,
    interior,
    jacobian_determinant,
    mismatch,
    normalized_mutual_information,
)
from mpfnl.prepare.cropping import body_mask

ORGANS_MM = 24.0
"""Depth below the skin from which structures are compared: a registration fits body walls to each other."""

REACH_MM = 8.0
"""Depth inside the phase's field of view from which structures are compared: smoothing blurs its border."""

DIGITS = 6

_ORDER = (Quality.PASS, Quality.WARN, Quality.FAIL)


@dataclass(frozen=True)
class Limits:
    """Thresholds of one number at which a registration is flagged (warn) or rejected (fail).

    Args:
        warn: Threshold of `warn`.
        fail: Threshold of `fail`; None if this number alone never rejects.
        above: Whether large values are bad.

    Raises:
        ValueError: The thresholds are in the wrong order.
    """

    warn: float
    fail: float | None
    above: bool

    def __post_init__(self) -> None:
        if self.fail is not None and self._beyond(self.warn, self.fail):
            raise ValueError(f"warn {self.warn:g} and fail {self.fail:g} are the wrong way round")

    def judge(self, value: float) -> Quality:
        """The verdict on a value; NaN, a value that could not be measured, fails."""
        if math.isnan(value):
            return Quality.FAIL
        if self.fail is not None and self._beyond(value, self.fail):
            return Quality.FAIL
        return Quality.WARN if self._beyond(value, self.warn) else Quality.PASS

    def _beyond(self, value: float, limit: float) -> bool:
        return value > limit if self.above else value < limit


@dataclass(frozen=True)
class Thresholds:
    """Thresholds at which a registration is flagged (warn) or rejected (fail).

    They were calibrated on phantoms; see `docs/quality.md`.

    Args:
        coverage: Share of the body that the phase covers. A small share alone rejects nothing: the phase is
            used where it covers the body.
        body_overlap: Dice coefficient of the two bodies inside the phase's field of view.
        similarity: Normalised mutual information.
        mismatch: Share of the structures inside the body that differ.
        folding: Share of the body where the displacement folds.
        displacement_p95_mm: 95th percentile of the displacement of the body. Larger displacements exceed
            respiratory motion: they suggest a wrong position or a wrong study.
    """

    coverage: Limits = Limits(0.8, None, above=False)
    body_overlap: Limits = Limits(0.95, 0.9, above=False)
    similarity: Limits = Limits(1.23, 1.20, above=False)
    mismatch: Limits = Limits(0.18, 0.21, above=True)
    folding: Limits = Limits(0.001, 0.01, above=True)
    displacement_p95_mm: Limits = Limits(45.0, None, above=True)


@dataclass(frozen=True)
class PhaseQuality:
    """Quality of one registered phase; a number that could not be measured is NaN.

    Args:
        verdict: Worst verdict of any number.
        reasons: Reasons for a verdict other than `pass`, one line a number.
        similarity_before: Normalised mutual information in the body, 1 to 2, at the scanner's coordinates.
        similarity_after: Normalised mutual information after registration.
        mismatch_before: Share of the structures inside the body that differ, 0 to 1.
        mismatch_after: Share of differing structures after registration.
        coverage: Share of the body that the phase covers.
        coverage_upper: Share covered of the body in the upper third of the portal venous scan.
        coverage_middle: Share covered in the middle third.
        coverage_lower: Share covered in the lower third.
        body_overlap_before: Dice coefficient of the two bodies inside the phase's field of view.
        body_overlap_after: Dice coefficient after registration.
        folding: Share of the body where the displacement folds.
        log_jacobian_sd: Standard deviation of the logarithm of the volume change in the body.
        jacobian_p01: 1st percentile of the volume change in the body.
        jacobian_p99: 99th percentile of the volume change in the body.
        displacement_mean_mm: Mean displacement of the body in mm.
        displacement_p95_mm: 95th percentile of the displacement in mm.
        displacement_max_mm: Largest displacement in mm.
    """

    verdict: Quality
    reasons: tuple[str, ...]
    similarity_before: float
    similarity_after: float
    mismatch_before: float
    mismatch_after: float
    coverage: float
    coverage_upper: float
    coverage_middle: float
    coverage_lower: float
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
        """The record as plain JSON; a number that could not be measured is null."""
        numbers = {name: None if math.isnan(value) else value for name, value in self.numbers().items()}
        return {"verdict": self.verdict.value, "reasons": list(self.reasons), **numbers}

    def numbers(self) -> dict[str, float]:
        """The numbers by name, in the order of the fields."""
        return {field.name: getattr(self, field.name) for field in fields(self)[2:]}


def measure(alignment: Alignment, thresholds: Thresholds | None = None) -> PhaseQuality:
    """Measures how well one phase lies on the portal venous scan.

    Args:
        alignment: Both scans on one grid of 4 mm, the size at which the thresholds were calibrated.
        thresholds: Thresholds at which the phase is flagged (warn) or rejected (fail); the defaults if None.
    """
    numbers = {name: float(f"{value:.{DIGITS}g}") for name, value in _numbers(alignment).items()}
    verdict, reasons = judge(numbers, thresholds or Thresholds())
    return PhaseQuality(verdict, reasons, **numbers)


def study_verdict(phases: Mapping[Phase, PhaseQuality], left_out: Collection[Phase] = ()) -> Quality:
    """The verdict on a study: the worst of the phases that are used, and `warn` at best if one is left out.

    A portal venous scan alone passes.

    Args:
        phases: Quality of each registered phase.
        left_out: Phases that the study does without; those whose verdict is `fail` are left out anyway.
    """
    used = [each.verdict for phase, each in phases.items() if phase not in left_out]
    verdicts = [verdict for verdict in used if verdict is not Quality.FAIL]
    if left_out or Quality.FAIL in used:
        verdicts.append(Quality.WARN)
    return max(verdicts, key=_ORDER.index, default=Quality.PASS)


def _numbers(alignment: Alignment) -> dict[str, float]:
    fixed, spacing = alignment.fixed, alignment.spacing
    body = body_mask(fixed, spacing)
    organs = interior(body, ORGANS_MM, spacing, beyond=True)
    numbers = {}
    for time, phase, covered in (
        ("before", alignment.before, alignment.covered_before),
        ("after", alignment.after, alignment.covered_after),
    ):
        common = body & covered
        region = organs & interior(covered, REACH_MM, spacing, beyond=False)
        numbers[f"similarity_{time}"] = normalized_mutual_information(fixed[common], phase[common])
        numbers[f"mismatch_{time}"] = mismatch(fixed, phase, region)
        numbers[f"body_overlap_{time}"] = dice(common, body_mask(phase, spacing) & covered)
    common = body & alignment.covered_after
    numbers["coverage"] = _share(common, body)
    lower, middle, upper = np.array_split(np.arange(body.shape[2]), 3)
    for name, slices in (("upper", upper), ("middle", middle), ("lower", lower)):
        numbers[f"coverage_{name}"] = _share(common[:, :, slices], body[:, :, slices])
    return numbers | _deformation(alignment, common)


def _share(part: Mask, whole: Mask) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else math.nan


def _deformation(alignment: Alignment, region: Mask) -> dict[str, float]:
    if not region.any():
        names = ("folding", "log_jacobian_sd", "jacobian_p01", "jacobian_p99")
        lengths = ("displacement_mean_mm", "displacement_p95_mm", "displacement_max_mm")
        return dict.fromkeys((*names, *lengths), math.nan)
    change = jacobian_determinant(alignment.displacement, alignment.spacing)[region]
    length = np.sqrt((alignment.displacement[:, region].astype(np.float64) ** 2).sum(axis=0))
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


def judge(numbers: Mapping[str, float], thresholds: Thresholds) -> tuple[Quality, tuple[str, ...]]:
    """The verdict on the numbers of a phase, by the names of `PhaseQuality`, and its reasons."""
    criteria = (
        ("coverage", "coverage of the body", thresholds.coverage, ".1%", ""),
        ("body_overlap_after", "body overlap", thresholds.body_overlap, ".3f", ""),
        ("similarity_after", "similarity", thresholds.similarity, ".3f", ""),
        ("mismatch_after", "structures that differ", thresholds.mismatch, ".1%", ""),
        ("folding", "folding", thresholds.folding, ".2%", ""),
        ("displacement_p95_mm", "body moved", thresholds.displacement_p95_mm, ".1f", " mm"),
    )
    verdicts, reasons = [Quality.PASS], []
    for name, label, limits, form, unit in criteria:
        verdict = limits.judge(numbers[name])
        verdicts.append(verdict)
        if verdict is not Quality.PASS:
            reasons.append(f"{label} {_excess(numbers[name], limits, verdict, form)}{unit}")
    return max(verdicts, key=_ORDER.index), tuple(reasons)


def _excess(value: float, limits: Limits, verdict: Quality, form: str) -> str:
    if math.isnan(value):
        return f"could not be measured ({verdict})"
    limit = limits.fail if verdict is Quality.FAIL and limits.fail is not None else limits.warn
    return f"{value:{form}}, {verdict} {'above' if limits.above else 'below'} {limit:{form}}"
