"""Box plots of the metrics by method: image quality, and Figure 3."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from mpfnl.evaluation.cases import Case, methods_of, values_by_method
from mpfnl.evaluation.figures import FigureFile, save_figure
from mpfnl.evaluation.folder import REFERENCE
from mpfnl.evaluation.overlap import Truth
from mpfnl.evaluation.tables.metrics import (
    DSC,
    SEGMENTATION_METRICS,
    Metric,
    image_quality_metrics,
    window_range,
)
from mpfnl.plots.boxes import COLOURS, BoxPlot, box_plots
from mpfnl.window import Window

KEY = (
    "Boxes: quartiles and median; whiskers: to the last value within 1.5 times the box; diamond to the right:"
    " mean; points: every study, a line joins the values of one."
)


def quality_figure(cases: Sequence[Case]) -> Figure:
    """Box plots of the image metrics by method; the reference has none."""
    return _figure(cases, image_quality_metrics(), "")


def overlap_figure(cases: Sequence[Case], notice: str = "") -> Figure:
    """Box plots of DSC and NSD by method, in percent (Fig. 3)."""
    return _figure(cases, SEGMENTATION_METRICS, notice)


def draw_quality(cases: Sequence[Case], folder: Path, window: Window) -> FigureFile:
    """Draws the image quality into `image_quality.png`."""
    path = folder / "image_quality.png"
    save_figure(quality_figure(cases), path)
    metrics = image_quality_metrics()
    names = " and ".join(metric.name for metric in metrics)
    caption = f"{names} in the window {window_range(window)} against the reference, by method. {KEY}"
    return FigureFile(
        path, "Figure 1. Image quality by method", caption, _alt(cases, image_quality_metrics())
    )


def draw_overlap(
    cases: Sequence[Case], structure: str, folder: Path, notice: str, truth: Truth = Truth.MASK
) -> FigureFile:
    """Draws the segmentation's accuracy into `segmentation.png` (Fig. 3)."""
    path = folder / "segmentation.png"
    save_figure(overlap_figure(cases, notice), path)
    zeros = [
        f"{method} {values.count(0.0)}"
        for method, values in drawn_values(cases, DSC).items()
        if 0.0 in values
    ]
    sentences = [
        f"Dice score (DSC, a) and normalized surface distance (NSD, b) of the {structure} against the"
        f" {truth.noun}, by the scan that was segmented.",
        KEY,
        "Below a method: number of values, and number of failures (missing).",
        f"Without any overlap (0 %), and counted: {', '.join(zeros)}." if zeros else "",
        notice,
    ]
    title = f"Figure 3. Segmentation of the {structure} by method"
    return FigureFile(path, title, " ".join(filter(None, sentences)), _alt(cases, SEGMENTATION_METRICS))


def drawn_values(cases: Sequence[Case], metric: Metric) -> dict[str, list[float]]:
    """The values of a figure, by method; NaN where one is missing.

    A study in which no method has a value and none failed was not segmented (it has no reference mask), and
    is left out. The reference is left out where it has no value by definition, as the standard of comparison.

    Args:
        cases: The evaluation's rows.
        metric: The metric.
    """
    values = values_by_method(cases, metric.column)
    studies = list(dict.fromkeys(case.study_id for case in cases))
    failed = {case.study_id for case in cases if case.failure}
    places = [
        place
        for place, study in enumerate(studies)
        if study in failed or any(math.isfinite(scores[place]) for scores in values.values())
    ]
    compared = {
        method
        for method, scores in values.items()
        if method != REFERENCE or any(math.isfinite(value) for value in scores)
    }
    if metric.of_masks and any(case.failure for case in cases if case.method == REFERENCE):
        compared.add(REFERENCE)
    return {
        method: [metric.notation.scale * scores[place] for place in places]
        for method, scores in values.items()
        if method in compared
    }


def _figure(cases: Sequence[Case], metrics: Sequence[Metric], foot: str) -> Figure:
    plots = [BoxPlot(metric.axis, drawn_values(cases, metric)) for metric in metrics]
    return box_plots(plots, _colours(cases), foot)


def _colours(cases: Sequence[Case]) -> Mapping[str, str]:
    """The colour of each method in all figures: grey for the reference, then the others in their order."""
    others = [method for method in methods_of(cases) if method != REFERENCE]
    used = {method: COLOURS[1 + place % (len(COLOURS) - 1)] for place, method in enumerate(others)}
    return {REFERENCE: COLOURS[0], **used}


def _alt(cases: Sequence[Case], metrics: Sequence[Metric]) -> str:
    parts = []
    for metric in metrics:
        medians = []
        for method, values in drawn_values(cases, metric).items():
            finite = [value for value in values if math.isfinite(value)]
            median = f"{statistics.median(finite):.3g}" if finite else "no value"
            medians.append(f"{method} {median}")
        parts.append(f"{metric.axis}, medians: {', '.join(medians)}")
    return f"Box plots by method. {'. '.join(parts)}."
