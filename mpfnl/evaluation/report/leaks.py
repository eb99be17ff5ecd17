"""The phase-leak check and the swap test as tables of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mpfnl.evaluation.leaks.swap import SwapRow
from mpfnl.evaluation.leaks.table import LeakSummary
from mpfnl.evaluation.report.contents import TextTable
from mpfnl.evaluation.tables import signed
from mpfnl.phases import PHASES, Phase

UNKNOWN = "–"


def leak_table(summaries: Sequence[LeakSummary], target: Phase) -> TextTable:
    """A row a method and organ: how far it drifted from the reference, and toward which phase.

    Args:
        summaries: What `summarize_leaks` gave.
        target: The phase that was restored.
    """
    others = [phase for phase in PHASES if phase is not target]
    toward = [f"share toward {phase.replace('_', ' ')}" for phase in others]
    rows = [
        [
            summary.method,
            summary.organ.replace("_", " "),
            _drift(summary),
            *(_percent(summary.fractions.get(phase, math.nan)) for phase in others),
            str(summary.n),
            str(summary.n_unmeasured),
            str(summary.n_flagged),
        ]
        for summary in summaries
    ]
    return TextTable(
        ["method", "organ", "drift (HU)", *toward, "studies", "not measured", "warnings"], rows, words=2
    )


def swap_table(rows: Mapping[str, Sequence[SwapRow]]) -> TextTable:
    """A row a method, phase and region: what the phase gave to the enhanced scan.

    Args:
        rows: What `swap_test` gave, by method.
    """
    cells = [
        [
            method,
            row.swapped.replace("_", " "),
            row.by.replace("_", " "),
            row.region.replace("_", " "),
            signed(row.given_hu, 1),
            f"{row.rms_hu:.1f}",
        ]
        for method, found in rows.items()
        for row in found
    ]
    return TextTable(
        ["method", "taken away", "stands in", "region", "mean change (HU)", "RMS (HU)"], cells, words=4
    )


def _drift(summary: LeakSummary) -> str:
    if math.isnan(summary.drift_hu):
        return UNKNOWN
    spread = "" if math.isnan(summary.drift_sd_hu) else f" ± {summary.drift_sd_hu:.1f}"
    return signed(summary.drift_hu, 1) + spread


def _percent(fraction: float) -> str:
    return UNKNOWN if math.isnan(fraction) else f"{100 * fraction:.0f} %".replace("-", "−")
