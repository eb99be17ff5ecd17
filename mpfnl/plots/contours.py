"""Contours of a reference mask and of predictions on cuts through several versions of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mpfnl.plots.gallery import PlaneName
from mpfnl.plots.letters import draw_letters
from mpfnl.plots.overlays import MARKS, Mask
from mpfnl.plots.panels import (
    EDGE,
    TEXT_SIZE,
    Frame,
    Heading,
    draw_bar,
    draw_picture,
    panel_grid,
    say,
    show_frame,
)
from mpfnl.plots.words import text_width
from mpfnl.window import ABDOMEN, Window

REFERENCE_COLOUR, PREDICTION_COLOUR = "#ffa500", "#00e0ff"
KEY_LINES = 0.9  # inches: the key without its words
REFERENCE_WIDTH, PREDICTION_WIDTH = 2.4, 1.1  # points; the thin line shows on the thick one


@dataclass(frozen=True, eq=False)
class Cut:
    """A slice in which contours are drawn.

    Args:
        label: Which it is.
        pixel_mm: Height and width of its pixels.
        frame: The part that is shown.
        reference: The reference mask, `(row, column)`.
    """

    label: str
    pixel_mm: tuple[float, float]
    frame: Frame
    reference: Mask


@dataclass(frozen=True, eq=False)
class Prediction:
    """One method's column.

    Args:
        heading: What stands above it.
        hu: By plane, `(row, column)`; None where there is no scan.
        mask: By plane, `(row, column)`; None where nothing was predicted.
        note: Written into each panel: why there is no contour. Empty where there is one.
    """

    heading: Heading
    hu: Mapping[PlaneName, NDArray[np.floating]] | None
    mask: Mapping[PlaneName, Mask] | None
    note: str = ""


def contour_figure(
    title: str,
    cuts: Mapping[PlaneName, Cut],
    predictions: Sequence[Prediction],
    names: tuple[str, str] = ("reference", "prediction"),
    foot: str = "",
    *,
    window: Window = ABDOMEN,
) -> Figure:
    """Draws contours on cuts (rows) through each method's scan (columns), in an HU window (Fig. 4).

    The reference is a thick orange line, the prediction a thin cyan one on top of it.

    Args:
        title: Of the figure.
        cuts: The rows.
        predictions: The columns.
        names: What the two contours are called in the key.
        foot: Small print below everything.
        window: HU window of the scans.
    """
    rows = [(cut.label, cut.frame.height / cut.frame.width) for cut in cuts.values()]
    headings = [prediction.heading for prediction in predictions]
    key = sum(text_width(name, TEXT_SIZE) for name in names) + KEY_LINES
    figure, panels = panel_grid(title, headings, rows, foot, beside=key)
    for row, (plane, cut) in zip(panels, cuts.items(), strict=True):
        for place, (axes, prediction) in enumerate(zip(row, predictions, strict=True)):
            _draw(axes, plane, cut, prediction, window)
            draw_letters(axes, MARKS[plane])
            if place == 0:
                draw_bar(axes, cut.frame)
    _draw_key(figure, names)
    return figure


def _draw(axes: Axes, plane: PlaneName, cut: Cut, prediction: Prediction, window: Window) -> None:
    if prediction.hu is None:
        axes.set_facecolor("black")
        axes.set_aspect("equal")
        show_frame(axes, cut.frame)
    else:
        limits = (window.lower, window.upper)
        draw_picture(axes, prediction.hu[plane], cut.pixel_mm, cut.frame, limits=limits)
    draw_contour(axes, cut.reference, cut.pixel_mm, REFERENCE_COLOUR, REFERENCE_WIDTH)
    mask = None if prediction.mask is None else prediction.mask[plane]
    if mask is not None:
        draw_contour(axes, mask, cut.pixel_mm, PREDICTION_COLOUR, PREDICTION_WIDTH)
    if prediction.note:
        say(axes, prediction.note)
    elif mask is not None and not mask.any():
        say(axes, "none in this cut")


def draw_contour(axes: Axes, mask: Mask, pixel_mm: Sequence[float], colour: str, width: float) -> None:
    """Draws a mask's border, halfway between the pixels inside and outside.

    Args:
        axes: The panel, in mm.
        mask: `(row, column)`; may be empty.
        pixel_mm: Height and width of its pixels.
        colour: Of the line.
        width: Of the line, in points.
    """
    if not mask.any():
        return
    limits = axes.get_xlim(), axes.get_ylim()
    closed = np.pad(mask, 1).astype(np.float64)  # a mask that touches the border has a border there too
    y, x = ((np.arange(n) - 0.5) * mm for n, mm in zip(closed.shape, pixel_mm, strict=True))
    axes.contour(x, y, closed, levels=[0.5], colors=[colour], linewidths=[width])
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])


def _draw_key(figure: Figure, names: tuple[str, str]) -> None:
    """Says which line is which, at the upper right, on the title's level."""
    lines = [
        Line2D([], [], color=REFERENCE_COLOUR, linewidth=REFERENCE_WIDTH + 0.6),
        Line2D([], [], color=PREDICTION_COLOUR, linewidth=PREDICTION_WIDTH + 0.6),
    ]
    width, height = figure.get_size_inches()
    figure.legend(
        lines,
        names,
        loc="upper right",
        bbox_to_anchor=(1 - EDGE / float(width), 1 - 0.02 / float(height)),
        ncols=2,
        fontsize=TEXT_SIZE,
        frameon=True,
        facecolor="0.25",
        labelcolor="white",
        edgecolor="none",
        borderpad=0.3,
        borderaxespad=0,
        handlelength=1.6,
        columnspacing=1.2,
    )
