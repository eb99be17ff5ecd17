"""Tables I and II as numbers, in memory and on disk: summaries, changes, and paired tests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path

from mpfnl.evaluation.cases import Case, values_by_method
from mpfnl.evaluation.folder import BASELINE, REFERENCE, write_table
from mpfnl.evaluation.tables.metrics import (
    IMAGE_METRICS,
    STRUCTURE_METRICS,
    Metric,
    image_quality_metrics,
    segmentation_metrics,
)
from mpfnl.files import write_text
from mpfnl.metrics.statistics import Comparison, ConfidenceInterval, Summary, compare_methods, summarize

METHOD = ("metric", "method", "n", "n_failed", "n_empty", "mean", "sd", "median", "ci_low", "ci_high")
CHANGE = ("gain", "gain_ci_low", "gain_ci_high", "p", "p_holm", "effect")


@dataclass(frozen=True)
class MetricTable:
    """One metric over all methods.

    Args:
        metric: The metric.
        summaries: Summary of each method, in the order of the rows; `n_failed` counts cases without a value.
        gains: Summary of each method's paired difference to the baseline, the baseline left out; of the
            distance from the best value where the metric has one.
        comparisons: Tests of each method against the baseline, then of each pair of methods; Holm-corrected
            together, of the same values as the gains. The reference is not among them.
        n_empty: Number of each method's cases in which the segmenter found nothing; they count as 0.
    """

    metric: Metric
    summaries: dict[str, Summary]
    gains: dict[str, Summary]
    comparisons: list[Comparison]
    n_empty: Mapping[str, int] = field(default_factory=Counter)

    @property
    def has_values(self) -> bool:
        """Whether any method has a value."""
        return any(summary.n for summary in self.summaries.values())

    def against_baseline(self, method: str) -> Comparison | None:
        """A method's test against the baseline; None for baseline and reference."""
        tests = (c for c in self.comparisons if c.method == method and c.against == BASELINE)
        return next(tests, None)


def tabulate_image_quality(cases: Sequence[Case]) -> list[MetricTable]:
    """Table I: PSNR, SSIM, and the image metrics that were registered."""
    return tabulate(cases, image_quality_metrics())


def tabulate_structure(cases: Sequence[Case]) -> list[MetricTable]:
    """Contrast and structure: every metric that a study has; organ means need a label map, for example."""
    return [table for table in tabulate(cases, STRUCTURE_METRICS) if table.has_values]


def tabulate_overlap(cases: Sequence[Case], tolerance_mm: float) -> list[MetricTable]:
    """Table II: DSC and NSD.

    Args:
        cases: The rows of an evaluation that were segmented.
        tolerance_mm: Tolerance of NSD in mm, printed in its title.
    """
    return tabulate(cases, segmentation_metrics(tolerance_mm))


def tabulate(cases: Sequence[Case], metrics: Sequence[Metric] = IMAGE_METRICS) -> list[MetricTable]:
    """Summarises and tests every metric.

    The tests of one metric are one family for Holm's correction: each model or folder against the degraded
    scan, and those against each other, as in the paper. The reference stays outside of the family. It is what
    the others are measured against, and each further test would weaken the others. Its mean and its
    difference to the degraded scan are listed, with intervals. It has no row where the others are compared
    with it: in image quality, and in segmentation where the masks of the clean scans are the truth.

    Args:
        cases: The rows of an evaluation, those of the degraded scan included. In segmentation, a study with
            neither a value nor a failure was not segmented, and is no failure.
        metrics: `IMAGE_METRICS` (Table I) or `SEGMENTATION_METRICS` (Table II).
    """
    return [_tabulate(cases, metric) for metric in metrics]


def _tabulate(cases: Sequence[Case], metric: Metric) -> MetricTable:
    if metric.of_masks:
        cases = _compared(cases)
    values = values_by_method(cases, metric.column)
    tested = {method: scores for method, scores in values.items() if method != REFERENCE}
    shown = values if _has_reference(cases, metric) else tested
    summaries = {method: summarize(scores) for method, scores in shown.items()}
    if metric.best is not None:
        tested = shown = {name: [abs(x - metric.best) for x in scores] for name, scores in tested.items()}
    gains = {
        method: summarize([new - old for new, old in zip(scores, shown[BASELINE], strict=True)])
        for method, scores in shown.items()
        if method != BASELINE
    }
    empty = Counter(case.method for case in cases if metric.of_masks and case.failure and case.dsc == 0)
    return MetricTable(metric, summaries, gains, compare_methods(tested, BASELINE), empty)


def _has_reference(cases: Sequence[Case], metric: Metric) -> bool:
    """Whether the reference is compared with a mask, rather than the standard of comparison."""
    rows = [case for case in cases if case.method == REFERENCE]
    has_value = any(isfinite(case.dsc) for case in rows)
    return metric.of_masks and bool(rows) and (has_value or all(case.failure for case in rows))


def _compared(cases: Sequence[Case]) -> list[Case]:
    """The rows of the studies whose masks were or should have been compared; all rows if there is none."""
    studies = {case.study_id for case in cases if _was_compared(case)}
    return [case for case in cases if case.study_id in studies or not studies]


def _was_compared(case: Case) -> bool:
    return bool(case.failure) or isfinite(case.dsc)


def write_summary(folder: Path, tables: Sequence[MetricTable], notice: str = "") -> None:
    """Writes `summary.csv` (one row a metric and method) and `summary.json` (with all comparisons).

    Values are those of `cases.csv`: dB and fractions, not rounded. Gains and tests are against the degraded
    scan; its own row has none, and the reference's has a gain and no test. Gains and tests of a metric with a
    best value (`best` in the JSON) are of the distance from it.

    Args:
        folder: The evaluation folder.
        tables: Every table of the evaluation.
        notice: Warning about Table II, written to each of its rows.
    """
    columns = [*METHOD, *CHANGE, "notice"]
    rows = [
        [*_row(table, method), notice if table.metric.of_masks else ""]
        for table in tables
        for method in table.summaries
    ]
    write_table(folder / "summary.csv", columns, (dict(zip(columns, row, strict=True)) for row in rows))
    record = {
        table.metric.column: {
            "methods": {
                name: asdict(summary) | {"n_empty": table.n_empty.get(name, 0)}
                for name, summary in table.summaries.items()
            },
            "gains": {name: asdict(summary) for name, summary in table.gains.items()},
            "comparisons": [asdict(comparison) for comparison in table.comparisons],
            "best": table.metric.best,
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


def _ends(interval: ConfidenceInterval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)
