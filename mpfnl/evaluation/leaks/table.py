"""The rows of `phase_leak.csv`, their summary by method and organ, and the warnings as sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpfnl.evaluation.folder import write_table
from mpfnl.metrics.phase_leak import WARNINGS, LeakRule, OrganDrift
from mpfnl.phases import Phase

NOT_CHECKED = "not checked: "
"""Beginning of the note of a row without any measurement."""


@dataclass(frozen=True)
class LeakRow:
    """One organ of one scan.

    Args:
        study_id: The study.
        method: Method of the scan: `degraded`, a model's or a folder's name; empty where the study is not
            checked.
        organ: Organ by TotalSegmentator's name; empty where the scan is not checked.
        drift: Measurement; None where the organ could not be measured.
        note: Reason of a missing measurement.
    """

    study_id: str
    method: str
    organ: str
    drift: OrganDrift | None = None
    note: str = ""


@dataclass(frozen=True)
class LeakSummary:
    """One organ of one method over the studies.

    Args:
        method: The method.
        organ: The organ.
        n: Number of studies in which the organ was measured.
        n_unmeasured: Number of studies in which it was not measured.
        drift_hu: Mean of enhanced minus reference, in HU; NaN if n is 0.
        drift_sd_hu: Standard deviation of the drift over the studies (n - 1); NaN if n is less than 2.
        fractions: Mean leak fraction toward each other phase, over the studies in which the phases differ
            enough; NaN if there is none.
        verdicts: Number of studies by verdict.
        n_flagged: Number of studies with a warning.
    """

    method: str
    organ: str
    n: int
    n_unmeasured: int
    drift_hu: float
    drift_sd_hu: float
    fractions: Mapping[Phase, float]
    verdicts: Mapping[str, int]
    n_flagged: int


def summarize_leaks(rows: Sequence[LeakRow], rule: LeakRule | None = None) -> list[LeakSummary]:
    """Summarises the rows by method and organ, in their order."""
    rule = rule or LeakRule()
    groups: dict[tuple[str, str], list[LeakRow]] = {}
    for row in rows:
        if row.organ:
            groups.setdefault((row.method, row.organ), []).append(row)
    return [_summarize(method, organ, group, rule) for (method, organ), group in groups.items()]


def _summarize(method: str, organ: str, rows: Sequence[LeakRow], rule: LeakRule) -> LeakSummary:
    drifts = [row.drift for row in rows if row.drift]
    values = [drift.drift_hu for drift in drifts]
    verdicts = [drift.verdict(rule) for drift in drifts]
    phases = list(dict.fromkeys(phase for drift in drifts for phase in drift.others_hu))
    fractions = {phase: [drift.fraction(phase, rule) for drift in drifts] for phase in phases}
    return LeakSummary(
        method,
        organ,
        n=len(drifts),
        n_unmeasured=len(rows) - len(drifts),
        drift_hu=_mean(values),
        drift_sd_hu=float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        fractions={phase: _mean(values) for phase, values in fractions.items()},
        verdicts={str(verdict): verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)},
        n_flagged=sum(verdict in WARNINGS for verdict in verdicts),
    )


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def leak_warnings(rows: Sequence[LeakRow], target: Phase, rule: LeakRule | None = None) -> list[str]:
    """A line for each drift that the rule attributes to a method."""
    rule = rule or LeakRule()
    lines = []
    for row in rows:
        if row.drift and row.drift.verdict(rule) in WARNINGS:
            lines.append(
                f"study {row.study_id}: {row.method}: {_sentence(row.organ, row.drift, target, rule)}"
            )
    return lines


def unchecked(rows: Sequence[LeakRow]) -> str:
    """One line with the studies and scans that were not checked, and the reasons; empty if all were."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if not row.organ:
            name = f"{row.study_id} ({row.method})" if row.method else row.study_id
            reasons.setdefault(row.note.removeprefix(NOT_CHECKED), []).append(name)
    lines = [f"{_listed(names)}: {reason}" for reason, names in reasons.items()]
    return f"Not checked: {'; '.join(lines)}." if lines else ""


def _listed(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{rest}"


def _sentence(organ: str, drift: OrganDrift, target: Phase, rule: LeakRule) -> str:
    change = f"{abs(drift.drift_hu):.0f} HU {'brighter' if drift.drift_hu > 0 else 'darker'}"
    ways = [
        f"{100 * drift.fraction(p, rule):.0f} % of the way to the {p.label} phase" for p in drift.toward(rule)
    ]
    direction = " and ".join(ways) or "toward no other phase"
    before = drift.degraded_drift_hu
    degraded = "" if math.isnan(before) else f" (the degraded scan: {before:+.0f} HU)"
    region = organ.replace("_", " ")
    return f"{region} {change} than the {target.label} reference, {direction}{degraded}"


def write_leak_table(
    path: Path, rows: Sequence[LeakRow], others: Sequence[Phase], rule: LeakRule | None = None
) -> None:
    """Writes the rows, whole or not at all; an unknown value is an empty cell.

    Args:
        path: The CSV.
        rows: The rows.
        others: Phases that the target is compared with, in stacking order.
        rule: Thresholds of the verdicts.
    """
    rule = rule or LeakRule()
    write_table(
        path,
        _columns(others),
        (
            {"study_id": row.study_id, "method": row.method, "organ": row.organ, "note": row.note}
            | (_cells(row.drift, rule) if row.drift else {})
            for row in rows
        ),
    )


def _columns(others: Sequence[Phase]) -> list[str]:
    levels = ["reference_hu", *(f"{phase}_hu" for phase in others), "degraded_hu", "enhanced_hu"]
    fractions = [f"{phase}_fraction" for phase in others]
    drifts = ["core_ml", *levels, "surroundings_hu", "drift_hu", "deep_drift_hu", *fractions]
    return ["study_id", "method", "organ", *drifts, "verdict", "toward", "note"]


def _cells(drift: OrganDrift, rule: LeakRule) -> dict[str, str]:
    numbers = {
        "core_ml": drift.core_ml,
        "reference_hu": drift.reference_hu,
        "degraded_hu": drift.degraded_hu,
        "enhanced_hu": drift.enhanced_hu,
        "surroundings_hu": drift.surroundings_hu,
        "drift_hu": drift.drift_hu,
        "deep_drift_hu": drift.deep_drift_hu,
    }
    numbers |= {f"{phase}_hu": hu for phase, hu in drift.others_hu.items()}
    numbers |= {f"{phase}_fraction": drift.fraction(phase, rule) for phase in drift.others_hu}
    verdict = drift.verdict(rule)
    toward = " ".join(drift.toward(rule)) if verdict in WARNINGS else ""
    cells = {name: "" if math.isnan(value) else f"{value:.4g}" for name, value in numbers.items()}
    return cells | {"verdict": str(verdict), "toward": toward}
