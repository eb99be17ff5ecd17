"""The index of a prepared cohort: one HTML page, what failed first, each study with its contact sheet."""

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
from mpfnl.prepare.names import INDEX, SHEET, STUDIES
from mpfnl.prepare.thresholds import Thresholds

SHOWN = (Quality.FAIL, Quality.WARN, Quality.PASS)
"""The order of the page: what to look at first comes first."""

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class Entry:
    """A prepared study on the page.

    Args:
        study_id: Its name.
        verdict: The worst of its phases.
        reasons: Why it is not `pass`, each naming its phase.
        phases: The numbers of each moving phase, by the names of `PhaseQuality`; None was not measurable.
        sheet: Its contact sheet, relative to the page.
    """

    study_id: str
    verdict: Quality
    reasons: tuple[str, ...]
    phases: Mapping[Phase, Numbers]
    sheet: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Entry:
        """From a study's `record.json`."""
        study_id = str(record["study_id"])
        return cls(
            study_id,
            Quality(record["quality"]),
            tuple(record["reasons"]),
            {Phase(name): numbers for name, numbers in record["phases"].items()},
            f"{STUDIES}/{study_id}/{SHEET}",
        )


@dataclass(frozen=True)
class _Column:
    """A number of the page: its heading, its names after and before the registration, its format."""

    heading: str
    after: str
    before: str | None
    form: str

    def cell(self, numbers: Numbers) -> str:
        after = self._printed(numbers[self.after])
        return after if self.before is None else f"{self._printed(numbers[self.before])} → {after}"

    def _printed(self, value: float | None) -> str:
        return "–" if value is None else format(value, self.form)


_COLUMNS = (
    _Column("similarity", "similarity_after", "similarity_before", ".2f"),
    _Column("structures that differ", "mismatch_after", "mismatch_before", ".0%"),
    _Column("body overlap", "body_overlap_after", "body_overlap_before", ".3f"),
    _Column("coverage", "coverage", None, ".0%"),
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

    The page asks for nothing but the contact sheets beside it, and holds no date: the same cohort gives the
    same bytes.

    Args:
        folder: The prepared cohort's.
        entries: The studies that were prepared.
        failures: Why the others were not, by study.
        settings: What was done, and the versions that did it: plain JSON.
    """
    environment = Environment(
        loader=PackageLoader("mpfnl.prepare"), autoescape=True, undefined=StrictUndefined
    )
    groups = {
        verdict.value: [_printed(entry) for entry in entries if entry.verdict is verdict] for verdict in SHOWN
    }
    text = environment.get_template("index.html.j2").render(
        groups=groups,
        failures=failures,
        total=len(entries) + len(failures),
        headings=[column.heading for column in _COLUMNS],
        limits=_limits(Thresholds()),
        settings=json.dumps(settings, indent=2),
    )
    write_text(folder / INDEX, text)


def _printed(entry: Entry) -> dict[str, object]:
    return {
        "study_id": entry.study_id,
        "sheet": entry.sheet,
        "reasons": entry.reasons,
        "rows": {
            phase.value.replace("_", " "): [column.cell(numbers) for column in _COLUMNS]
            for phase, numbers in entry.phases.items()
        },
    }


def _limits(thresholds: Thresholds) -> list[tuple[str, str, str, str]]:
    rows = []
    for field in fields(thresholds):
        limits = getattr(thresholds, field.name)
        fail = "never" if limits.fail is None else f"{limits.fail:g}"
        rows.append((field.name, "above" if limits.above else "below", f"{limits.warn:g}", fail))
    return rows
