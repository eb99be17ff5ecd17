"""The tables on disk: `summary.csv` and `summary.json`, in the units of `cases.csv`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mpfnl.evaluation.cases import BASELINE
from mpfnl.evaluation.tables.tabulate import MetricTable
from mpfnl.files import write_text
from mpfnl.metrics.statistics import Interval

METHOD = ("metric", "method", "n", "n_failed", "n_empty", "mean", "sd", "median", "ci_low", "ci_high")
CHANGE = ("gain", "gain_ci_low", "gain_ci_high", "p", "p_holm", "effect")


def write_summary(folder: Path, tables: Sequence[MetricTable], notice: str = "") -> None:
    """Writes `summary.csv` (one row a metric and method) and `summary.json` (with all comparisons).

    Values are those of `cases.csv`: dB and fractions, not rounded. Gains and tests are against the degraded
    scan; its own row has none, and the reference's has a gain and no test.

    Args:
        folder: The evaluation folder.
        tables: Those of Table I and Table II together.
        notice: What must be said of those of Table II; stands in each of their rows.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*METHOD, *CHANGE, "notice"])
    for table in tables:
        for method in table.summaries:
            writer.writerow([*_row(table, method), notice if table.metric.of_masks else ""])
    write_text(folder / "summary.csv", text.getvalue())
    record = {
        table.metric.column: {
            "methods": {
                name: asdict(summary) | {"n_empty": table.n_empty.get(name, 0)}
                for name, summary in table.summaries.items()
            },
            "gains": {name: asdict(summary) for name, summary in table.gains.items()},
            "comparisons": [asdict(comparison) for comparison in table.comparisons],
            "notice": notice if table.metric.of_masks else "",
        }
        for table in tables
    }
    write_text(folder / "summary.json", json.dumps(record, indent=2) + "\n")


def _row(table: MetricTable, method: str) -> list[object]:
    summary = table.summaries[method]
    row: list[object] = [table.metric.column, method, summary.n, summary.n_failed]
    row += [table.n_empty.get(method, 0), summary.mean, summary.sd, summary.median, *_ends(summary.interval)]
    if method == BASELINE:
        return row + [None] * len(CHANGE)
    gain = table.gains[method]
    test = table.against_baseline(method)
    tested = [test.p, test.p_holm, test.effect] if test else [None] * 3
    return [*row, gain.mean, *_ends(gain.interval), *tested]


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)
