"""The contents of a report: its figures, tables and sentences about the methods."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mpfnl.evaluation.cases import Case, studies_of
from mpfnl.evaluation.figures import FigureFile
from mpfnl.evaluation.folder import REFERENCE
from mpfnl.evaluation.leaks.swap import SwapRow
from mpfnl.evaluation.leaks.table import LeakSummary
from mpfnl.evaluation.methods import INPUT_PHASES
from mpfnl.evaluation.tables.metric_table import MetricTable
from mpfnl.evaluation.tables.metrics import NONE, signed
from mpfnl.phases import Phase
from mpfnl.window import Window


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text; its first column names the row.

    Args:
        columns: Headings.
        rows: Cells, row by row.
        text_columns: Number of columns, from the left, that hold words; the others hold numbers.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    text_columns: int = 1

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.rows} - {len(self.columns)}
        if widths:
            raise ValueError(f"a row of {widths.pop()} cells under {len(self.columns)} headings")


@dataclass(frozen=True)
class LeakSection:
    """The phase-leak check.

    Args:
        table: Drift by method and organ; None if no organ was measured.
        warnings: Warnings of the check, a line each.
        swap: Swap test; None if it was not done.
        remarks: Remarks for the reader, a sentence each: unchecked scans, the studies of the swap test.
    """

    table: TextTable | None = None
    warnings: Sequence[str] = ()
    swap: TextTable | None = None
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class ReportContents:
    """Contents of a report.

    Args:
        target: Phase that was restored.
        window: HU window of the comparison.
        split: Split that was evaluated.
        degradation: Name of the preset that degraded the scans.
        cases: One row for each study and method.
        image_tables: Table I.
        methods: Architecture and input phases of each model and folder, a sentence each.
        overlap_tables: Table II; empty where nothing was segmented.
        structure_tables: Table of contrast and structure.
        structure: Structure that was segmented.
        truth: Masks of the comparison, in a sentence.
        tolerance_mm: Tolerance of NSD in mm.
        figures: Figures, which are embedded in the file.
        leaks: Phase-leak check; None if there was none.
        left_out: Studies that were not evaluated, by reason, as in "Left out, since ...".
        notice: Warning at the top, such as "phantoms, not patients".
        segmentation_notice: Warning at every result of the segmenter.
        provenance: Provenance of the evaluation, as JSON values.
    """

    target: Phase
    window: Window
    split: str
    degradation: str
    cases: Sequence[Case]
    image_tables: Sequence[MetricTable]
    methods: Mapping[str, str]
    overlap_tables: Sequence[MetricTable] = ()
    structure_tables: Sequence[MetricTable] = ()
    structure: str = "pancreas"
    truth: str = "reference mask"
    tolerance_mm: float = 3.0
    figures: Sequence[FigureFile] = ()
    leaks: LeakSection | None = None
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notice: str = ""
    segmentation_notice: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def studies(self) -> int:
        """Number of evaluated studies."""
        return len(studies_of(self.cases))

    @property
    def target_name(self) -> str:
        """The target phase in a sentence: `portal venous`."""
        return self.target.label

    @property
    def structure_name(self) -> str:
        """The structure in a sentence: `portal vein and splenic vein`."""
        return self.structure.replace("_", " ")


FAILURE_COLUMNS = ("study", "methods", "failure", "in the tables")


def failure_table(cases: Sequence[Case]) -> TextTable:
    """The failures: a row for each study and reason, with all methods that it concerns."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for case in cases:
        if case.failure:
            groups.setdefault((case.study_id, case.failure, _counted(case)), []).append(case.method)
    rows = [[study, ", ".join(names), reason, counted] for (study, reason, counted), names in groups.items()]
    return TextTable(FAILURE_COLUMNS, rows, len(FAILURE_COLUMNS))


def _counted(case: Case) -> str:
    if math.isfinite(case.dsc):
        return "counts as 0" if case.dsc == 0 else "counts"
    in_table_i = math.isfinite(case.psnr_db) or case.method == REFERENCE  # the reference has no row there
    return "left out of Table II" if in_table_i else "left out"


def leak_table(summaries: Sequence[LeakSummary]) -> TextTable | None:
    """The drift of each organ by method, and the share of it toward each other phase.

    Args:
        summaries: Results of `summarize_leaks`.

    Returns:
        None if no organ was measured.
    """
    measured = {phase for summary in summaries for phase in summary.fractions}
    if not any(summary.n for summary in summaries):
        return None
    others = [phase for phase in Phase if phase in measured]
    rows = [
        [
            summary.method,
            _words(summary.organ),
            _drift(summary),
            *(_percent(summary.fractions.get(phase, math.nan)) for phase in others),
            str(summary.n),
            str(summary.n_unmeasured),
            str(summary.n_flagged),
        ]
        for summary in summaries
    ]
    shares = [f"share toward {phase.label}" for phase in others]
    columns = ["method", "organ", "drift (HU)", *shares, "studies", "not measured", "warnings"]
    return TextTable(columns, rows, text_columns=2)


def swap_table(rows: Mapping[str, Sequence[SwapRow]]) -> TextTable | None:
    """The contribution of each phase to each region of the enhanced scan, by method.

    Args:
        rows: Results of `swap_test`, by method.

    Returns:
        None if no model was tested.
    """
    cells = [
        [
            method,
            row.swapped.label,
            row.by.label,
            _words(row.region),
            signed(row.given_hu, 1),
            f"{row.rms_hu:.1f}",
        ]
        for method, contributions in rows.items()
        for row in contributions
    ]
    columns = ["method", "replaced", "by", "region", "mean change (HU)", "RMS (HU)"]
    return TextTable(columns, cells, text_columns=4) if cells else None


def _words(name: str) -> str:
    return name.replace("_", " ")


def _drift(summary: LeakSummary) -> str:
    if math.isnan(summary.drift_hu):
        return NONE
    spread = "" if math.isnan(summary.drift_sd_hu) else f" ± {summary.drift_sd_hu:.1f}"
    return signed(summary.drift_hu, 1) + spread


def _percent(fraction: float) -> str:
    return NONE if math.isnan(fraction) else f"{100 * fraction:.0f} %".replace("-", "−")


def method_lines(provenance: Mapping[str, Any]) -> dict[str, str]:
    """A sentence about each model and folder of an evaluation.

    Args:
        provenance: Record of the evaluation, with `models` (name to `model`, `arguments`) and `folders`.
    """
    lines = {name: _model_line(model) for name, model in provenance.get("models", {}).items()}
    folders = provenance.get("folders", {})
    return lines | dict.fromkeys(folders, "scans that other software enhanced.")


def _model_line(model: Mapping[str, Any]) -> str:
    kind, phases = model.get("model", "a model"), model.get("arguments", {}).get("phases")
    if not phases:
        return f"{kind}."
    received = model.get(INPUT_PHASES, phases)
    withheld = [phase for phase in phases if phase not in received]
    without = f"; withheld: {_listed(withheld)}" if withheld else ""
    return f"{kind}; input phases: {_listed(received)}{without}."


def _listed(phases: Sequence[str]) -> str:
    *others, last = (Phase(phase).label for phase in phases)
    return f"{', '.join(others)} and {last}" if others else last
