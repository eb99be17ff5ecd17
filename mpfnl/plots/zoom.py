"""One slice in several versions: whole, enlarged, and as difference to the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from mpfnl.plots.page import draw_letters
from mpfnl.plots.panels import SMALL, TEXT_SIZE, Frame, Heading, draw_bar, draw_picture, panel_grid, say
from mpfnl.plots.planes import MARKS
from mpfnl.window import ABDOMEN, Window

DIFFERENCE_HU = 100.0
"""Range of the difference maps to either side of 0; larger differences have the colour of the end."""

DIFFERENCE_COLOURS = "RdBu_r"
FRAME_COLOUR = "#ffd60a"


@dataclass(frozen=True, eq=False)
class Version:
    """A slice of one version of the scan.

    Args:
        heading: Text above the column.
        hu: Slice in HU, `(row, column)`; None without a scan.
    """

    heading: Heading
    hu: NDArray[np.floating] | None


def zoom_figure(
    title: str,
    versions: Sequence[Version],
    reference: Version,
    pixel_mm: Sequence[float],
    frame: Frame,
    foot: str = "",
    *,
    window: Window = ABDOMEN,
) -> Figure:
    """Versions of an axial slice, and the reference last, in an HU window (Fig. 2).

    The rows show the whole slice with a frame, the frame enlarged, and the difference to the reference,
    both clipped to the window, in blue (lower) and red (higher).

    Args:
        title: Title of the figure.
        versions: Columns except the last.
        reference: Last column.
        pixel_mm: Height and width of the slice's pixels in mm.
        frame: Part that is enlarged.
        foot: Small print at the bottom.
        window: HU window of the scans and of the difference.

    Raises:
        ValueError: If the reference has no scan or a slice has another shape.
    """
    if reference.hu is None:
        raise ValueError("the reference must have a scan")
    for version in versions:
        if version.hu is not None and version.hu.shape != reference.hu.shape:
            raise ValueError(f"{version.heading.name}: {version.hu.shape} pixels, not {reference.hu.shape}")
    whole = Frame.whole(reference.hu.shape, pixel_mm)
    ratio = whole.height / whole.width
    rows = [("whole slice", ratio), ("enlarged", frame.height / frame.width), ("difference", ratio)]
    columns = [*versions, reference]
    figure, panels = panel_grid(title, [version.heading for version in columns], rows, foot)
    for place, version in enumerate(columns):
        column = [row[place] for row in panels]
        if version.hu is None:
            for axes in column:
                axes.set_facecolor("black")
                say(axes, "no scan")
            continue
        draw_picture(column[0], version.hu, pixel_mm, whole, window=window)
        column[0].add_patch(_rectangle(frame, FRAME_COLOUR, 1.2))
        draw_picture(column[1], version.hu, pixel_mm, frame, window=window)
        for axes, shown in ((column[0], whole), (column[1], frame)):
            draw_letters(axes, MARKS["axial"])
            if place == 0:
                draw_bar(axes, shown)
        if version is not reference:
            _draw_difference(column[2], version.hu, reference.hu, pixel_mm, frame, window)
    _draw_key(panels[2][-1], figure)
    return figure


def _draw_difference(
    axes: Axes,
    hu: NDArray[np.floating],
    reference: NDArray[np.floating],
    pixel_mm: Sequence[float],
    frame: Frame,
    window: Window,
) -> None:
    seen, clean = (np.clip(np.asarray(s, np.float64), window.lower, window.upper) for s in (hu, reference))
    whole = Frame.whole(hu.shape, pixel_mm)
    around_0 = Window(level=0.0, width=2 * DIFFERENCE_HU)
    draw_picture(axes, seen - clean, pixel_mm, whole, colours=DIFFERENCE_COLOURS, window=around_0)
    axes.add_patch(_rectangle(frame, "0.25", 0.8))


def _rectangle(frame: Frame, colour: str, width: float) -> Rectangle:
    corner = (frame.left, frame.top)
    return Rectangle(corner, frame.width, frame.height, fill=False, edgecolor=colour, linewidth=width)


def _draw_key(axes: Axes, figure: Figure) -> None:
    """Draws the colours of the difference maps in the reference's column."""
    axes.set_axis_off()
    scale = np.linspace(DIFFERENCE_HU, -DIFFERENCE_HU, 201)[:, None]
    bar = axes.inset_axes((0.12, 0.06, 0.11, 0.76))
    extent = (0.0, 1.0, -DIFFERENCE_HU, DIFFERENCE_HU)
    bar.imshow(scale, cmap=DIFFERENCE_COLOURS, aspect="auto", extent=extent)
    ticks = np.linspace(-DIFFERENCE_HU, DIFFERENCE_HU, 5)
    labels = [f"{tick:+g}" if tick else "0" for tick in ticks]
    labels[0], labels[-1] = f"≤ {labels[0]}", f"≥ {labels[-1]}"
    bar.set_xticks([])
    bar.set_yticks(ticks, [label.replace("-", "−") for label in labels], fontsize=SMALL)
    bar.yaxis.tick_right()
    axes.text(0.12, 0.92, "HU − reference", transform=axes.transAxes, fontsize=TEXT_SIZE, va="bottom")
