"""Box plots of the metrics by method: image quality, and Figure 3."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mpfnl.evaluation.cases import REFERENCE, Case, methods_of, values_by_method
from mpfnl.evaluation.figures.picture import TRUTHS, Picture, save_figure
from mpfnl.evaluation.overlap import Truth
from mpfnl.plots.boxes import COLOURS, BoxPlot, box_plots

BOXES = (
    "Boxes: quartiles and median; whiskers: to the last value within 1.5 times the box; diamond to the right:"
    " mean; points: every study, a line joins the values of one."
)


@dataclass(frozen=True)
class Axis:
    """A metric as it is drawn.

    Args:
        column: Its column in `cases.csv`.
        title: With the unit.
        scale: What its values are multiplied with.
    """

    column: str
    title: str
    scale: float = 1.0


QUALITY = (Axis("psnr_db", "PSNR (dB)"), Axis("ssim", "SSIM"))
OVERLAP = (
    Axis("dsc", "Dice score (%)", 100.0),
    Axis("nsd", "Normalized surface distance (%)", 100.0),
)


def quality_figure(cases: Sequence[Case]) -> Figure:
    """Box plots of PSNR and SSIM by method; the reference has none."""
    return _figure(cases, QUALITY, "")


def overlap_figure(cases: Sequence[Case], notice: str = "") -> Figure:
    """Box plots of DSC and NSD by method, in percent (Fig. 3)."""
    return _figure(cases, OVERLAP, notice)


def draw_quality(cases: Sequence[Case], folder: Path) -> Picture:
    """Draws the image quality into `image_quality.png`."""
    path = folder / "image_quality.png"
    save_figure(quality_figure(cases), path)
    caption = f"PSNR and SSIM of the windowed scan against the reference, by method. {BOXES}"
    return Picture(path, "Figure 1. Image quality by method", caption, _alt(cases, QUALITY))


def draw_overlap(
    cases: Sequence[Case], structure: str, folder: Path, notice: str, truth: Truth = Truth.MASK
) -> Picture:
    """Draws the segmentation's accuracy into `segmentation.png` (Fig. 3)."""
    path = folder / "segmentation.png"
    save_figure(overlap_figure(cases, notice), path)
    zeros = [
        f"{method} {values.count(0.0)}"
        for method, values in drawn(cases, OVERLAP[0]).items()
        if 0.0 in values
    ]
    words = [
        f"Dice score (DSC, a) and normalized surface distance (NSD, b) of the {structure} against the"
        f" {TRUTHS[truth]}, by the scan that was segmented.",
        BOXES,
        "Below a method: how many values it has, and how many failed (missing).",
        f"Without any overlap (0 %), and counted: {', '.join(zeros)}." if zeros else "",
        notice,
    ]
    title = f"Figure 3. Segmentation of the {structure} by method"
    return Picture(path, title, " ".join(filter(None, words)), _alt(cases, OVERLAP))


def drawn(cases: Sequence[Case], axis: Axis) -> dict[str, list[float]]:
    """The values that are drawn, by method; NaN where one is missing.

    A study in which no method has a value and none failed was not asked for (it has no reference mask), and
    is left out. The reference is left out where it has no value by definition: it is what others are compared
    with.

    Args:
        cases: The evaluation's rows.
        axis: The metric.
    """
    values = values_by_method(cases, axis.column)
    studies = list(dict.fromkeys(case.study_id for case in cases))
    failed = {case.study_id for case in cases if case.failure}
    asked = [
        place
        for place, study in enumerate(studies)
        if study in failed or any(math.isfinite(found[place]) for found in values.values())
    ]
    compared = {
        method
        for method, found in values.items()
        if method != REFERENCE or any(math.isfinite(value) for value in found)
    }
    if axis in OVERLAP and any(case.failure for case in cases if case.method == REFERENCE):
        compared.add(REFERENCE)
    return {
        method: [axis.scale * found[place] for place in asked]
        for method, found in values.items()
        if method in compared
    }


def _figure(cases: Sequence[Case], axes: Sequence[Axis], foot: str) -> Figure:
    return box_plots([BoxPlot(axis.title, drawn(cases, axis)) for axis in axes], _colours(cases), foot)


def _colours(cases: Sequence[Case]) -> Mapping[str, str]:
    """One colour a method in all figures: grey for the reference, then the others in their order."""
    others = [method for method in methods_of(cases) if method != REFERENCE]
    used = {method: COLOURS[1 + place % (len(COLOURS) - 1)] for place, method in enumerate(others)}
    return {REFERENCE: COLOURS[0], **used}


def _alt(cases: Sequence[Case], axes: Sequence[Axis]) -> str:
    parts = []
    for axis in axes:
        medians = []
        for method, values in drawn(cases, axis).items():
            present = [value for value in values if math.isfinite(value)]
            median = f"{statistics.median(present):.3g}" if present else "no value"
            medians.append(f"{method} {median}")
        parts.append(f"{axis.title}, medians: {', '.join(medians)}")
    return f"Box plots by method. {'. '.join(parts)}."
