"""What the tables hold: summaries, changes against the degraded scan, and paired tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

from mpfnl.evaluation.cases import BASELINE, REFERENCE, Case, values_by_method
from mpfnl.evaluation.tables.metric import IMAGE_METRICS, Metric, segmentation_metrics
from mpfnl.metrics.statistics import Comparison, Summary, compare_methods, summarize


@dataclass(frozen=True)
class MetricTable:
    """One metric over all methods.

    Args:
        metric: Which.
        summaries: For each method, in the order of the rows; `n_failed` counts the cases without a value.
        gains: For each method but the baseline, the summary of its paired difference to the baseline.
        comparisons: Each method against the baseline, then each pair of methods; Holm-corrected together.
            The reference is not among them.
        n_empty: For each method, the cases in which the segmenter found nothing: they count with their 0.
    """

    metric: Metric
    summaries: dict[str, Summary]
    gains: dict[str, Summary]
    comparisons: list[Comparison]
    n_empty: Mapping[str, int] = field(default_factory=Counter)

    def against_baseline(self, method: str) -> Comparison | None:
        """A method's test against the baseline; None for the two that are not tested so."""
        tests = (c for c in self.comparisons if c.method == method and c.against == BASELINE)
        return next(tests, None)


def tabulate_image_quality(cases: Sequence[Case]) -> list[MetricTable]:
    """Table I: PSNR and SSIM."""
    return tabulate(cases, IMAGE_METRICS)


def tabulate_overlap(cases: Sequence[Case], tolerance_mm: float) -> list[MetricTable]:
    """Table II: DSC and NSD.

    Args:
        cases: The rows of an evaluation that were segmented.
        tolerance_mm: Of NSD, in mm; it is printed with it.
    """
    return tabulate(cases, segmentation_metrics(tolerance_mm))


def tabulate(cases: Sequence[Case], metrics: Sequence[Metric] = IMAGE_METRICS) -> list[MetricTable]:
    """Summarises and tests every metric.

    The tests of one metric are one family for Holm's correction: each model or folder against the degraded
    scan, and those against each other, as in the paper. The reference stays outside of the family. It is what
    the others are measured by, nobody asks whether a clean scan beats its own degraded copy, and each test
    that answers no question makes those that do weaker. Its mean and its difference to the degraded scan are
    there, with intervals. It has no row where it is itself what the others are compared with: in image
    quality, and in segmentation where the masks of the clean scans are the truth.

    Args:
        cases: The rows of an evaluation, with the degraded scan's among them. In segmentation, a study that
            has neither a value nor a failure was not asked for, and is no failure.
        metrics: Which metrics: `IMAGE_METRICS` (Table I) or `SEGMENTATION_METRICS` (Table II).
    """
    return [_tabulate(cases, metric) for metric in metrics]


def _tabulate(cases: Sequence[Case], metric: Metric) -> MetricTable:
    if metric.of_masks:
        cases = _asked(cases)
    values = values_by_method(cases, metric.column)
    tested = {method: scores for method, scores in values.items() if method != REFERENCE}
    shown = values if _has_reference(cases, metric) else tested
    gains = {
        method: summarize([new - old for new, old in zip(scores, values[BASELINE], strict=True)])
        for method, scores in shown.items()
        if method != BASELINE
    }
    summaries = {method: summarize(scores) for method, scores in shown.items()}
    empty = Counter(case.method for case in cases if metric.of_masks and case.failure and case.dsc == 0)
    return MetricTable(metric, summaries, gains, compare_methods(tested, BASELINE), empty)


def _has_reference(cases: Sequence[Case], metric: Metric) -> bool:
    """Whether the reference is compared with something, rather than what the others are compared with."""
    rows = [case for case in cases if case.method == REFERENCE]
    has_value = any(isfinite(case.dsc) for case in rows)
    return metric.of_masks and bool(rows) and (has_value or all(case.failure for case in rows))


def _asked(cases: Sequence[Case]) -> list[Case]:
    """The rows of the studies whose masks were compared, or should have been; all rows if there is none."""
    studies = {case.study_id for case in cases if _was_asked(case)}
    return [case for case in cases if case.study_id in studies or not studies]


def _was_asked(case: Case) -> bool:
    return bool(case.failure) or isfinite(case.dsc)
