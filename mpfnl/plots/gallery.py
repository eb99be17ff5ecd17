"""Galleries: many versions of one scan, in the same slice, detail and window."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from scipy import ndimage

from mpfnl.plots.overlays import MARK_COLOUR
from mpfnl.plots.page import BLACK, DPI, WHITE, Colour, Page
from mpfnl.plots.planes import ACROSS, MARKS, PlaneName, ScanArray, SliceImage, view
from mpfnl.window import ABDOMEN, Window

DETAIL_MM = (40.0, 75.0)
"""Width and height of the enlarged detail."""

ENLARGED = 3
"""Magnification of the detail over the whole slice."""

_COARSEST_PIXEL_MM = 1.2
_BAR_MM = 50.0
_TITLE, _LINE, _NOTE, _GAP, _SIDE, _HEADING = 20, 16, 22, 16, 16, 36  # pixels
_BETWEEN = 4  # pixels between whole and detail
_LETTER = 6.6  # approximate width of a letter in pixels
_GREY: Colour = (0.72, 0.72, 0.72)


@dataclass(frozen=True, eq=False)
class DetailedSlice:
    """A slice and an enlarged detail, (row, column) in [0, 1] under a window.

    Args:
        plane: SliceImage of the slice.
        whole: The whole slice.
        detail: Enlarged part.
        corner: Left and upper edge of the detail, in pixels of the whole.
        pixel_mm: Side of the whole's pixels in mm.
    """

    plane: PlaneName
    whole: SliceImage
    detail: SliceImage
    corner: tuple[float, float]
    pixel_mm: float


@dataclass(frozen=True, eq=False)
class Panel:
    """One version of the scan.

    Args:
        title: Operation.
        text: Its parameters; wrapped to the panel's width.
        note: Text below the images.
        image: Slice and detail.
    """

    title: str
    text: str
    note: str
    image: DetailedSlice


@dataclass(frozen=True, eq=False)
class Section:
    """Panels under a heading.

    Args:
        heading: Heading of the section.
        panels: Panels from left to right, then from top to bottom.
    """

    heading: str
    panels: Sequence[Panel]


def detailed_slice(
    hu: ScanArray,
    spacing: Sequence[float],
    plane: PlaneName,
    voxel: Sequence[int],
    window: Window = ABDOMEN,
) -> DetailedSlice:
    """A slice of a scan with an enlarged detail.

    The pixels of the whole are the scan's voxels along x, or integer fractions of voxels coarser than 1.2 mm,
    so that the noise is smoothed evenly. Interpolation is linear.

    Args:
        hu: Scan `(x, y, z)` in HU, axes to the right, anterior and superior (RAS).
        spacing: Voxel size in mm.
        plane: Axial, coronal or sagittal.
        voxel: Voxel of the slice, in the centre of the detail.
        window: HU window.

    Returns:
        Images with the body's proportions, the patient's right or anterior side on the left.
    """
    picture = window.normalize(np.asarray(view(hu, plane, voxel), dtype=np.float64))
    axes = ACROSS[plane]
    pixel = spacing[0] / math.ceil(spacing[0] / _COARSEST_PIXEL_MM)
    step = [spacing[axis] / pixel for axis in axes]
    size = [count * length for count, length in zip(picture.shape, step, strict=True)]
    part = [min(mm / pixel, side) for mm, side in zip(reversed(DETAIL_MM), size, strict=True)]
    low = []  # the detail's upper and left edge in pixels of the whole
    for axis, length, side, extent in zip(axes, step, part, size, strict=True):
        middle = (hu.shape[axis] - voxel[axis] - 0.5) * length
        low.append(float(round(min(max(middle - side / 2, 0), extent - side))))
    whole = _sampled(picture, step, (0, 0), size, 1)
    return DetailedSlice(plane, whole, _sampled(picture, step, low, part, ENLARGED), (low[1], low[0]), pixel)


def gallery(title: str, sections: Sequence[Section], caption: str, columns: int = 3) -> Figure:
    """Panels in sections.

    A panel has a title and parameters, the whole slice with a frame around the detail, the enlarged detail
    and a note. R or A marks the patient's side on the left; the scale bar is 5 cm.

    Args:
        title: Title of the figure.
        sections: Panels by section.
        caption: Caption at the bottom; wrapped.
        columns: Number of panels side by side.

    Returns:
        Figure, to be saved pixel by pixel with `mpfnl.plots.page.small_png`.
    """
    images = [panel.image for section in sections for panel in section.panels]
    tall = max(picture.shape[0] for shown in images for picture in (shown.whole, shown.detail))
    wide = max(shown.whole.shape[1] for shown in images)
    panel_width = wide + _BETWEEN + max(shown.detail.shape[1] for shown in images)
    width = 2 * _SIDE + columns * panel_width + (columns - 1) * _GAP
    letters = int((panel_width - 4) / _LETTER)
    captions = textwrap.wrap(caption, int((width - 2 * _SIDE) / _LETTER))
    rows = [
        (section.heading if start == 0 else None, section.panels[start : start + columns])
        for section in sections
        for start in range(0, len(section.panels), columns)
    ]
    lines = [max(len(textwrap.wrap(panel.text, letters)) for panel in panels) for _, panels in rows]
    heights = [
        (_HEADING if heading else 0) + _TITLE + _LINE * count + 4 + tall + _NOTE + _GAP
        for (heading, _), count in zip(rows, lines, strict=True)
    ]
    page = Page(width, 44 + sum(heights) + (len(captions) + 1) * (_LINE + 2), paper=BLACK, ink=WHITE)
    page.write(_SIDE, 14, title, size=14, weight="bold")
    top = 44
    for (heading, panels), count, height in zip(rows, lines, heights, strict=True):
        below = top
        if heading:
            page.write(_SIDE, top + 8, heading, size=12, colour=MARK_COLOUR, weight="bold")
            below += _HEADING
        for number, panel in enumerate(panels):
            left = _SIDE + number * (panel_width + _GAP)
            _draw(page, panel, (left, below), (wide, tall), textwrap.wrap(panel.text, letters), count)
        top += height
    for number, line in enumerate(captions):
        page.write(_SIDE, top + number * (_LINE + 2), line, size=9, colour=_GREY)
    return page.figure


def _draw(
    page: Page,
    panel: Panel,
    corner: tuple[int, int],
    size: tuple[int, int],
    text: Sequence[str],
    lines: int,
) -> None:
    """Draws a panel with text of at most `lines` lines and the whole slice in the middle of `size`."""
    (left, top), (wide, tall) = corner, size
    page.write(left, top, panel.title, size=10.5, weight="bold")
    for number, line in enumerate(text):
        page.write(left, top + _TITLE + number * _LINE, line, size=9, colour=_GREY)
    top += _TITLE + lines * _LINE + 4
    whole, detail = panel.image.whole, panel.image.detail
    axes = page.place(left + (wide - whole.shape[1]) // 2, top + (tall - whole.shape[0]) // 2, whole)
    _mark(axes, panel.image)
    page.place(left + wide + _BETWEEN, top + (tall - detail.shape[0]) // 2, detail)
    page.write(left, top + tall + 3, panel.note, size=9.5, colour=WHITE)


def _mark(axes: Axes, shown: DetailedSlice) -> None:
    """Draws the frame of the detail, the patient's side and the scale bar."""
    x, y = shown.corner
    tall, wide = (side / ENLARGED for side in shown.detail.shape)
    frame = Rectangle(
        (x - 0.5, y - 0.5),
        wide,
        tall,
        fill=False,
        edgecolor=MARK_COLOUR,
        linewidth=72 / DPI,
        antialiased=False,
    )
    axes.add_patch(frame)
    letter = axes.text(3, 3, MARKS[shown.plane][3], color=MARK_COLOUR, fontsize=9, ha="left", va="top")
    letter.set_path_effects([withStroke(linewidth=2, foreground="black")])
    corner = (3.5, shown.whole.shape[0] - 6.5)
    axes.add_patch(Rectangle(corner, _BAR_MM / shown.pixel_mm, 2, facecolor=MARK_COLOUR, edgecolor="none"))


def _sampled(
    picture: SliceImage, step: Sequence[float], low: Sequence[float], size: Sequence[float], per_pixel: int
) -> SliceImage:
    """A part of a slice with `per_pixel` samples per pixel; lengths in pixels from the upper left corner."""
    places = [
        (start + (np.arange(round(length * per_pixel)) + 0.5) / per_pixel) / voxel - 0.5
        for start, length, voxel in zip(low, size, step, strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    return np.asarray(ndimage.map_coordinates(picture, grid, order=1, mode="nearest"))
