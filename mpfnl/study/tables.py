"""Table I: image quality by method, with intervals and paired tests."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mpfnl.files import write_text
from mpfnl.metrics.statistics import Comparison, Interval, Summary, compare_methods, summarize
from mpfnl.study.cases import Case, values_by_method

BASELINE = "degraded"
COLUMNS = ("mean ± SD", "95 % CI", "gain [95 % CI]", "p (Holm)")


@dataclass(frozen=True)
class Metric:
    """A column of the tables.

    Args:
        column: Its column in `cases.csv`.
        title: As it is printed.
        digits: Decimals that are printed.
    """

    column: str
    title: str
    digits: int


IMAGE_METRICS = (Metric("psnr_db", "PSNR (dB)", 2), Metric("ssim", "SSIM", 4))


@dataclass(frozen=True)
class MetricTable:
    """One metric over all methods.

    Args:
        metric: Which.
        summaries: For each method, in the order of the rows.
        gains: For each method but the baseline, the summary of its paired difference to the baseline.
        comparisons: Each method against the baseline, then each pair of methods; Holm-corrected together.
    """

    metric: Metric
    summaries: dict[str, Summary]
    gains: dict[str, Summary]
    comparisons: list[Comparison]

    def against_baseline(self, method: str) -> Comparison:
        """A method's test against the baseline."""
        return next(c for c in self.comparisons if c.method == method and c.against == BASELINE)


def tabulate(cases: Sequence[Case], metrics: Sequence[Metric] = IMAGE_METRICS) -> list[MetricTable]:
    """Summarises and tests every metric. The tests of one metric are one family for Holm's correction."""
    return [_tabulate(cases, metric) for metric in metrics]


def _tabulate(cases: Sequence[Case], metric: Metric) -> MetricTable:
    values = values_by_method(cases, metric.column)
    gains = {
        method: summarize([new - old for new, old in zip(scores, values[BASELINE], strict=True)])
        for method, scores in values.items()
        if method != BASELINE
    }
    summaries = {method: summarize(scores) for method, scores in values.items()}
    return MetricTable(metric, summaries, gains, compare_methods(values, BASELINE))


def rich_table(tables: Sequence[MetricTable], title: str) -> Table:
    """Table I for the terminal."""
    printed = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    printed.add_column(no_wrap=True)
    for column in COLUMNS:
        printed.add_column(column, justify="right", no_wrap=True)
    for table in tables:
        printed.add_row(table.metric.title, style="bold")
        for method in table.summaries:
            printed.add_row(f"  {method}", *cells(table, method))
        printed.add_section()
    return printed


def cells(table: MetricTable, method: str) -> tuple[str, str, str, str]:
    """A method's printed cells under `COLUMNS`."""
    digits, summary = table.metric.digits, table.summaries[method]
    spread = "" if summary.sd is None else f" ± {summary.sd:.{digits}f}"
    failed = f" ({summary.n_failed} failed)" if summary.n_failed else ""
    mean = _number(summary, digits) + spread + failed
    interval = interval_text(summary.interval, digits)
    if method == BASELINE:
        return mean, interval, "", ""
    gain = table.gains[method]
    gained = f"{_number(gain, digits, sign='+')} {interval_text(gain.interval, digits)}".rstrip()
    test = table.against_baseline(method)
    return mean, interval, gained, p_text(test.p_holm)


def _number(summary: Summary, digits: int, sign: str = "") -> str:
    return "–" if summary.mean is None else f"{summary.mean:{sign}.{digits}f}"


def interval_text(interval: Interval | None, digits: int) -> str:
    """An interval in brackets; empty where there is none."""
    return "" if interval is None else f"[{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def p_text(p: float | None) -> str:
    """A p-value as it is printed."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def write_summary(folder: Path, tables: Sequence[MetricTable]) -> None:
    """Writes `summary.csv` (one row a metric and method) and `summary.json` (with all comparisons)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    header = ["metric", "method", "n", "n_failed", "mean", "sd", "median", "ci_low", "ci_high", "gain"]
    writer.writerow([*header, "gain_ci_low", "gain_ci_high", "p", "p_holm", "effect"])
    for table in tables:
        for method in table.summaries:
            writer.writerow(_row(table, method))
    write_text(folder / "summary.csv", text.getvalue())
    record = {
        table.metric.column: {
            "methods": {name: asdict(summary) for name, summary in table.summaries.items()},
            "gains": {name: asdict(summary) for name, summary in table.gains.items()},
            "comparisons": [asdict(comparison) for comparison in table.comparisons],
        }
        for table in tables
    }
    write_text(folder / "summary.json", json.dumps(record, indent=2) + "\n")


def _row(table: MetricTable, method: str) -> list[object]:
    summary = table.summaries[method]
    row: list[object] = [table.metric.column, method, summary.n, summary.n_failed]
    row += [summary.mean, summary.sd, summary.median, *_ends(summary.interval)]
    if method == BASELINE:
        return row + [None] * 6
    gain = table.gains[method]
    test = table.against_baseline(method)
    return [*row, gain.mean, *_ends(gain.interval), test.p, test.p_holm, test.effect]


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)
