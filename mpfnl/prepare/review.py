"""Review of a prepared cohort: the contact sheet of a study, and an HTML index of all, failures first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mpfnl.data.manifest import Quality
from mpfnl.files import write_text
from mpfnl.phases import Phase
from mpfnl.plots.overlays import GREEN, ORANGE, RED, Overlay, contact_sheet
from mpfnl.plots.page import small_png
from mpfnl.prepare.alignment import Alignment
from mpfnl.prepare.quality import PhaseQuality, Thresholds, study_verdict
from mpfnl.prepare.record import INDEX, SHEET, STUDIES

PAGE_ORDER = (Quality.FAIL, Quality.WARN, Quality.PASS)
"""Order of the verdicts on the page."""

_COLOURS = {Quality.PASS: GREEN, Quality.WARN: ORANGE, Quality.FAIL: RED}

Numbers = Mapping[str, float | None]


def draw_sheet(
    study_id: str, alignments: Mapping[Phase, Alignment], qualities: Mapping[Phase, PhaseQuality]
) -> bytes:
    """Draws the contact sheet of a study as a PNG, the same bytes in each run.

    Args:
        study_id: Name of the study.
        alignments: Its registered phases, at least one, all on one grid.
        qualities: Quality of each phase.
    """
    verdict = study_verdict(qualities)
    overlays = [
        Overlay(
            f"{phase.label}: {qualities[phase].verdict}{'' if _used(qualities[phase]) else ', left out'}",
            (_summary(qualities[phase]), *qualities[phase].reasons),
            alignment.before,
            alignment.after,
            alignment.covered_before,
            alignment.covered_after,
            _COLOURS[qualities[phase].verdict],
        )
        for phase, alignment in alignments.items()
    ]
    first = next(iter(alignments.values()))
    figure = contact_sheet(f"{study_id}: {verdict}", first.fixed, overlays, first.spacing, _COLOURS[verdict])
    return small_png(figure)


def _used(quality: PhaseQuality) -> bool:
    return quality.verdict is not Quality.FAIL


def _summary(quality: PhaseQuality) -> str:
    return (
        f"similarity {quality.similarity_before:.2f} → {quality.similarity_after:.2f}"
        f"   structures that differ {quality.mismatch_before:.0%} → {quality.mismatch_after:.0%}"
        f"   body overlap {quality.body_overlap_before:.3f} → {quality.body_overlap_after:.3f}"
        f"   coverage {quality.coverage:.0%}   moved {quality.displacement_p95_mm:.1f} mm (95 %)"
    )


@dataclass(frozen=True)
class Entry:
    """Entry of a prepared study on the page.

    Args:
        study_id: Name of the study.
        verdict: Worst verdict of the phases that are used.
        reasons: Reasons for a verdict other than `pass`, each naming its phase.
        phases: Numbers of each registered phase, by the names of `PhaseQuality`; None was not measurable.
        left_out: Phases that are not used, with the reasons.
    """

    study_id: str
    verdict: Quality
    reasons: tuple[str, ...]
    phases: Mapping[Phase, Numbers]
    left_out: Mapping[Phase, str]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Entry:
        """The entry of a study's `record.json`."""
        return cls(
            str(record["study_id"]),
            Quality(record["quality"]),
            tuple(record["reasons"]),
            {Phase(name): numbers for name, numbers in record["phases"].items()},
            {Phase(name): reason for name, reason in record["left_out"].items()},
        )

    @property
    def sheet(self) -> str | None:
        """The contact sheet, relative to the page; None for a portal venous scan alone."""
        return f"{STUDIES}/{self.study_id}/{SHEET}" if self.phases else None


@dataclass(frozen=True)
class _Column:
    """Column of the page: heading, names of the number after and before registration, format."""

    heading: str
    after: str
    before: str | None
    form: str

    def cell(self, numbers: Numbers) -> str:
        after = self._formatted(numbers[self.after])
        return after if self.before is None else f"{self._formatted(numbers[self.before])} → {after}"

    def _formatted(self, value: float | None) -> str:
        return "–" if value is None else format(value, self.form)


_COLUMNS = (
    _Column("similarity", "similarity_after", "similarity_before", ".2f"),
    _Column("structures that differ", "mismatch_after", "mismatch_before", ".0%"),
    _Column("body overlap", "body_overlap_after", "body_overlap_before", ".3f"),
    _Column("coverage", "coverage", None, ".0%"),
    _Column("upper third", "coverage_upper", None, ".0%"),
    _Column("middle third", "coverage_middle", None, ".0%"),
    _Column("lower third", "coverage_lower", None, ".0%"),
    _Column("folding", "folding", None, ".2%"),
    _Column("volume change, SD", "log_jacobian_sd", None, ".2f"),
    _Column("moved, mean mm", "displacement_mean_mm", None, ".1f"),
    _Column("moved, 95 % mm", "displacement_p95_mm", None, ".1f"),
    _Column("moved, most mm", "displacement_max_mm", None, ".1f"),
)


def write_index(
    folder: Path, entries: Sequence[Entry], failures: Mapping[str, str], settings: Mapping[str, object]
) -> None:
    """Writes `index.html`.

    The page loads only the contact sheets beside it and holds no date: the same cohort gives the same bytes.

    Args:
        folder: Folder of the prepared cohort.
        entries: Prepared studies.
        failures: Reason of each failed study.
        settings: Settings of the preparation and versions of the libraries, as plain JSON.
    """
    environment = Environment(
        loader=PackageLoader("mpfnl.prepare"), autoescape=True, undefined=StrictUndefined
    )
    groups = {
        verdict.value: [_row(entry) for entry in entries if entry.verdict is verdict]
        for verdict in PAGE_ORDER
    }
    text = environment.get_template("index.html.j2").render(
        groups=groups,
        failures=failures,
        total=len(entries) + len(failures),
        headings=["used", *(column.heading for column in _COLUMNS)],
        limits=_limits(Thresholds()),
        settings=json.dumps(settings, indent=2),
    )
    write_text(folder / INDEX, text)


def _row(entry: Entry) -> dict[str, object]:
    return {
        "study_id": entry.study_id,
        "sheet": entry.sheet,
        "reasons": entry.reasons,
        "rows": {
            phase.label: [
                "no" if phase in entry.left_out else "yes",
                *(column.cell(entry.phases[phase]) if phase in entry.phases else "–" for column in _COLUMNS),
            ]
            for phase in Phase
            if phase in entry.phases or phase in entry.left_out
        },
    }


def _limits(thresholds: Thresholds) -> list[tuple[str, str, str, str]]:
    rows = []
    for field in fields(thresholds):
        limits = getattr(thresholds, field.name)
        fail = "never" if limits.fail is None else f"{limits.fail:g}"
        rows.append((field.name, "above" if limits.above else "below", f"{limits.warn:g}", fail))
    return rows
