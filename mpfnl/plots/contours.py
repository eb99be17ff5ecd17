"""Contours of a reference mask and of predictions on slices of several versions of a scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from mpfnl.plots.page import draw_letters, text_width
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
from mpfnl.plots.planes import MARKS, Mask, PlaneName
from mpfnl.window import ABDOMEN, Window

REFERENCE_COLOUR, PREDICTION_COLOUR = "#ffa500", "#00e0ff"
KEY_LINES = 0.9  # inches: the key without its text
REFERENCE_WIDTH, PREDICTION_WIDTH = 2.4, 1.1  # points; the thin line shows on the thick one


@dataclass(frozen=True, eq=False)
class ContourSlice:
    """A slice with the reference mask.

    Args:
        label: Plane and position in words.
        pixel_mm: Height and width of the pixels in mm.
        frame: Visible part.
        reference: Reference mask, `(row, column)`.
    """

    label: str
    pixel_mm: tuple[float, float]
    frame: Frame
    reference: Mask


@dataclass(frozen=True, eq=False)
class Prediction:
    """One method's column.

    Args:
        heading: Text above the column.
        hu: Slices in HU by plane, `(row, column)`; None without a scan.
        mask: Predicted masks by plane, `(row, column)`; None without a prediction.
        note: Reason for a missing contour, written into each panel; empty if there is a contour.
    """

    heading: Heading
    hu: Mapping[PlaneName, NDArray[np.floating]] | None
    mask: Mapping[PlaneName, Mask] | None
    note: str = ""


def contour_figure(
    title: str,
    slices: Mapping[PlaneName, ContourSlice],
    predictions: Sequence[Prediction],
    names: tuple[str, str] = ("reference", "prediction"),
    foot: str = "",
    *,
    window: Window = ABDOMEN,
) -> Figure:
    """Contours on slices (rows) of each method's scan (columns), in an HU window (Fig. 4).

    The reference is a thick orange line, the prediction a thin cyan one on top of it.

    Args:
        title: Title of the figure.
        slices: Rows by plane.
        predictions: Columns.
        names: Names of the two contours in the key.
        foot: Small print at the bottom.
        window: HU window of the scans.
    """
    rows = [(slice_.label, slice_.frame.height / slice_.frame.width) for slice_ in slices.values()]
    headings = [prediction.heading for prediction in predictions]
    key = sum(text_width(name, TEXT_SIZE) for name in names) + KEY_LINES
    figure, panels = panel_grid(title, headings, rows, foot, beside=key)
    for row, (plane, slice_) in zip(panels, slices.items(), strict=True):
        for place, (axes, prediction) in enumerate(zip(row, predictions, strict=True)):
            _draw(axes, plane, slice_, prediction, window)
            draw_letters(axes, MARKS[plane])
            if place == 0:
                draw_bar(axes, slice_.frame)
    _draw_key(figure, names)
    return figure


def _draw(axes: Axes, plane: PlaneName, slice_: ContourSlice, prediction: Prediction, window: Window) -> None:
    if prediction.hu is None:
        axes.set_facecolor("black")
        axes.set_aspect("equal")
        show_frame(axes, slice_.frame)
    else:
        draw_picture(axes, prediction.hu[plane], slice_.pixel_mm, slice_.frame, window=window)
    draw_contour(axes, slice_.reference, slice_.pixel_mm, REFERENCE_COLOUR, REFERENCE_WIDTH)
    mask = None if prediction.mask is None else prediction.mask[plane]
    if mask is not None:
        draw_contour(axes, mask, slice_.pixel_mm, PREDICTION_COLOUR, PREDICTION_WIDTH)
    if prediction.note:
        say(axes, prediction.note)
    elif mask is not None and not mask.any():
        say(axes, "none in this slice")


def draw_contour(axes: Axes, mask: Mask, pixel_mm: Sequence[float], colour: str, width: float) -> None:
    """Draws a mask's border, halfway between the pixels inside and outside.

    Args:
        axes: Panel, in mm.
        mask: Mask `(row, column)`; may be empty.
        pixel_mm: Height and width of the pixels in mm.
        colour: Colour of the line.
        width: Width of the line in points.
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
    """Draws the key of the two lines at the upper right, beside the title."""
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
