"""The tables as text: cells for any layout, and Rich tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mpfnl.evaluation.folder import BASELINE
from mpfnl.evaluation.tables.metric_table import MetricTable
from mpfnl.evaluation.tables.metrics import NONE, Metric, p_text
from mpfnl.metrics.statistics import Comparison, Summary

COLUMNS = ("mean ± SD", "95 % CI", "change [95 % CI]", "p (Holm)", "n", "failed")
EMPTY = "empty"
NO_VALUE = "no value"
TABLE_WIDTH = 100
"""Width of the tables in characters, for names of up to NAME_WIDTH."""

NAME_WIDTH = 13
COMPARISON_COLUMNS = ("method", "against", "n", "median difference", "p", "p (Holm)", "effect size")


def columns(tables: Sequence[MetricTable]) -> tuple[str, ...]:
    """The headings of a table; Table II also counts empty segmentations."""
    if any(table.metric.optional for table in tables):
        return (*COLUMNS[:-1], NO_VALUE)
    return (*COLUMNS, EMPTY) if any(table.metric.of_masks for table in tables) else COLUMNS


def cells(table: MetricTable, method: str) -> tuple[str, ...]:
    """A method's printed cells under `columns`."""
    summary, test = table.summaries[method], table.against_baseline(method)
    interval = "" if summary.interval is None else table.metric.notation.interval(summary.interval)
    p = p_text(test.p_holm) if test else ""
    counts = [str(summary.n), str(summary.n_failed)]
    if table.metric.of_masks:
        counts.append(str(table.n_empty.get(method, 0)))
    return (_mean(summary, table.metric), interval, _change(table, method), p, *counts)


def _mean(summary: Summary, metric: Metric) -> str:
    if summary.mean is None:
        return NONE
    mean = metric.notation.value(summary.mean)
    return mean if summary.sd is None else f"{mean} ± {metric.notation.value(summary.sd)}"


def _change(table: MetricTable, method: str) -> str:
    if method == BASELINE:
        return ""
    gain, notation = table.gains[method], table.metric.notation
    if gain.mean is None:
        return NONE
    change = notation.change(gain.mean)
    if gain.interval is None:
        return change
    low, high = notation.change_ends(gain.interval)
    return f"{change} [{low}, {high}]"


def comparison_cells(table: MetricTable, comparison: Comparison) -> tuple[str, ...]:
    """A comparison's printed cells under `COMPARISON_COLUMNS`; the difference is in the unit of a change."""
    notation = table.metric.notation
    return (
        comparison.method,
        comparison.against,
        str(comparison.n),
        NONE if comparison.difference is None else notation.change(comparison.difference),
        p_text(comparison.p),
        p_text(comparison.p_holm),
        NONE if comparison.effect is None else f"{comparison.effect:+.2f}".replace("-", "−"),
    )


def table_notes(tables: Sequence[MetricTable]) -> list[str]:
    """Notes of a table, one a line."""
    notes = [
        "change: mean paired difference to the degraded scan; CI: BCa bootstrap of the mean",
        "p: two-sided paired Wilcoxon test against the degraded scan, Holm-corrected over a metric's pairs",
    ]
    if any(table.metric.optional for table in tables):
        notes += [
            "1 = clean scan: change and p are of the distance from 1; a change below 0 comes closer to 1",
            "no value: no label map, or the structure is not in the study; left out of means and tests",
        ]
    elif any(table.metric.of_masks for table in tables):
        notes += [
            "mean and SD in %, the CI of the mean as a fraction, change in percentage points",
            "the reference is not tested; failed: no value, left out; empty: no voxel found, counts as 0",
        ]
    else:
        notes.append("failed: no value, left out of means and tests")
    return notes


def table_console(names: Iterable[str]) -> Console:
    """A terminal at least as wide as a table of these methods, so that no cell is cut off."""
    width = TABLE_WIDTH + max(0, max(map(len, names), default=0) - NAME_WIDTH)
    return Console(width=max(width, Console().width))


def rich_table(tables: Sequence[MetricTable], title: str, notice: str = "") -> Table:
    """Table I or II for the terminal, with its notes; `table_console` is wide enough for it.

    Args:
        tables: The metrics of the table.
        title: Title of the table.
        notice: Warning about all its numbers, such as the use of phantom weights.
    """
    caption = "\n".join([*([notice] if notice else []), *table_notes(tables)])
    printed = Table(
        title=escape(title),
        title_justify="left",
        caption=escape(caption),
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    printed.add_column(no_wrap=True)
    for column in columns(tables):
        printed.add_column(column, justify="right", no_wrap=True)
    for table in tables:
        printed.add_row(table.metric.title, style="bold")
        for method in table.summaries:
            printed.add_row(f"  {escape(method)}", *map(escape, cells(table, method)))
        printed.add_section()
    return printed
