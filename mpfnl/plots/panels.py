"""Panels: slices in rows and columns, in mm, with scale bars and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from mpfnl.plots.page import line_height, wrap
from mpfnl.plots.planes import Mask
from mpfnl.window import ABDOMEN, Window

DPI = 150
PAGE, WIDEST, NARROWEST = 10.0, 2.5, 1.4  # inches: widths of a figure, and of a panel
LEFT, GAP, EDGE = 0.36, 0.05, 0.06  # inches
TITLE_SIZE, NAME_SIZE, TEXT_SIZE, SMALL = 11.0, 9.0, 8.5, 8.0  # points


@dataclass(frozen=True)
class Frame:
    """A part of a slice, in mm from the slice's upper left corner.

    Args:
        left: Left edge.
        top: Upper edge.
        width: Width.
        height: Height.

    >>> Frame.whole((100, 200), (1.5, 1.0))
    Frame(left=0.0, top=0.0, width=200.0, height=150.0)
    """

    left: float
    top: float
    width: float
    height: float

    @classmethod
    def whole(cls, shape: Sequence[int], pixel_mm: Sequence[float]) -> Frame:
        """The whole of a slice of `(rows, columns)` whose pixels have this height and width in mm."""
        return cls(0.0, 0.0, shape[1] * pixel_mm[1], shape[0] * pixel_mm[0])

    @classmethod
    def around(cls, mask: Mask, pixel_mm: Sequence[float], margin: float, least: float) -> Frame:
        """The bounding box of a mask with a margin; it may reach beyond the slice.

        Args:
            mask: Mask `(row, column)`, not empty.
            pixel_mm: Height and width of the pixels in mm.
            margin: Margin on each side in mm.
            least: Smallest width and height in mm.

        Raises:
            ValueError: If the mask is empty.
        """
        if not mask.any():
            raise ValueError("an empty mask has no bounding box")
        edges = []
        for axis in (0, 1):
            filled = np.nonzero(mask.any(axis=1 - axis))[0]
            low, high = filled[0] * pixel_mm[axis], (filled[-1] + 1) * pixel_mm[axis]
            side = max(high - low + 2 * margin, least)
            edges.append(((low + high - side) / 2, side))
        (top, height), (left, width) = edges
        return cls(float(left), float(top), float(width), float(height))

    def squared(self) -> Frame:
        """The square around the same centre, with the longer side."""
        side = max(self.width, self.height)
        return self._resized(side, side)

    def widened(self, width: float) -> Frame:
        """A frame of another width around the same centre."""
        return self._resized(width, self.height)

    def inside(self, whole: Frame) -> Frame:
        """The frame moved, and shrunk if necessary, to lie in another frame; a square stays a square."""
        if self.width == self.height:
            side = min(self.width, whole.width, whole.height)
            fitted = self._resized(side, side)
        else:
            fitted = self._resized(min(self.width, whole.width), min(self.height, whole.height))
        left = min(max(fitted.left, whole.left), whole.left + whole.width - fitted.width)
        top = min(max(fitted.top, whole.top), whole.top + whole.height - fitted.height)
        return Frame(left, top, fitted.width, fitted.height)

    def _resized(self, width: float, height: float) -> Frame:
        left = self.left + (self.width - width) / 2
        return Frame(left, self.top + (self.height - height) / 2, width, height)


@dataclass(frozen=True)
class Heading:
    """Text above a column.

    Args:
        name: Name of the method.
        text: Numbers below the name.
    """

    name: str
    text: str = ""


def panel_grid(
    title: str,
    headings: Sequence[Heading],
    rows: Sequence[tuple[str, float]],
    foot: str = "",
    beside: float = 0.0,
) -> tuple[Figure, list[list[Axes]]]:
    """Lays out empty panels of one width.

    Args:
        title: Title of the figure.
        headings: Headings of the columns.
        rows: Label of each row and the height of its panels over their width.
        foot: Small print at the bottom; empty for none.
        beside: Free space to the right of the title in inches.

    Returns:
        Figure, and panels by row and column.
    """
    count = len(headings)
    panel = _panel_width(count, LEFT)
    labels = [wrap(label, 0.9 * panel * ratio, SMALL) for label, ratio in rows]
    left = max(LEFT, max(map(len, labels)) * line_height(SMALL) + 0.06)
    panel = _panel_width(count, left)
    width = left + count * panel + (count - 1) * GAP + EDGE
    names = [wrap(heading.name, panel - 0.04, NAME_SIZE, "bold") for heading in headings]
    texts = [wrap(heading.text, panel - 0.04, TEXT_SIZE) for heading in headings]
    titles = wrap(title, width - 2 * EDGE - beside, TITLE_SIZE, "bold")
    feet = wrap(foot, width - 2 * EDGE, SMALL)
    name_lines, text_lines = max(map(len, names)), max(map(len, texts))
    top = EDGE + len(titles) * line_height(TITLE_SIZE) + 0.04
    below = top + name_lines * line_height(NAME_SIZE) + text_lines * line_height(TEXT_SIZE) + 0.02
    heights = [panel * ratio for _, ratio in rows]
    end = below + sum(heights) + (len(rows) - 1) * GAP + EDGE
    height = end + len(feet) * line_height(SMALL) + (0.04 if feet else 0)
    figure = Figure(figsize=(width, height), dpi=DPI)

    def write(x: float, y: float, lines: Sequence[str], size: float, weight: str = "normal") -> None:
        for number, line in enumerate(lines):
            place = 1 - (y + number * line_height(size)) / height
            figure.text(x / width, place, line, fontsize=size, weight=weight, va="top", parse_math=False)

    write(EDGE, EDGE, titles, TITLE_SIZE, "bold")
    for column in range(count):
        x = left + column * (panel + GAP)
        write(x, top, names[column], NAME_SIZE, "bold")
        write(x, top + name_lines * line_height(NAME_SIZE), texts[column], TEXT_SIZE)
    write(EDGE, end, feet, SMALL)
    panels: list[list[Axes]] = []
    for label, tall in zip(labels, heights, strict=True):
        lefts = [left + column * (panel + GAP) for column in range(count)]
        boxes = [(x / width, 1 - (below + tall) / height, panel / width, tall / height) for x in lefts]
        panels.append([_empty(figure.add_axes(box)) for box in boxes])
        middle = 1 - (below + tall / 2) / height
        words = figure.text(left / 2 / width, middle, "\n".join(label), fontsize=SMALL)
        words.set(rotation=90, ha="center", va="center", parse_math=False)
        below += tall + GAP
    return figure, panels


def _panel_width(count: int, left: float) -> float:
    return min(max((PAGE - left - EDGE - (count - 1) * GAP) / count, NARROWEST), WIDEST)


def _empty(axes: Axes) -> Axes:
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="0.6", linewidth=0.5)
    return axes


def draw_picture(
    axes: Axes,
    picture: NDArray[np.floating],
    pixel_mm: Sequence[float],
    frame: Frame,
    *,
    colours: str = "gray",
    window: Window = ABDOMEN,
) -> AxesImage:
    """Draws the part of a slice that lies in a frame, with the body's proportions, interpolated linearly.

    Args:
        axes: Panel.
        picture: Slice `(row, column)` in HU.
        pixel_mm: Height and width of the pixels in mm.
        frame: Visible part.
        colours: Colour map.
        window: HU window; its ends have the first and last colour.
    """
    whole = Frame.whole(picture.shape, pixel_mm)
    image = axes.imshow(
        picture,
        cmap=colours,
        vmin=window.lower,
        vmax=window.upper,
        extent=(0.0, whole.width, whole.height, 0.0),
        interpolation="bilinear",
        aspect="equal",
    )
    show_frame(axes, frame)
    return image


def show_frame(axes: Axes, frame: Frame) -> None:
    """Limits a panel to a frame."""
    axes.set_xlim(frame.left, frame.left + frame.width)
    axes.set_ylim(frame.top + frame.height, frame.top)


def draw_bar(axes: Axes, frame: Frame) -> None:
    """Draws a scale bar of 5 cm, or of 2 cm in a small frame, in the lower left corner of a panel."""
    length = 50.0 if frame.width >= 200 else 20.0
    x, y = frame.left + 0.05 * frame.width, frame.top + 0.95 * frame.height
    axes.plot([x, x + length], [y, y], color="white", linewidth=2, solid_capstyle="butt")
    text = axes.text(x, y - 0.015 * frame.height, f"{length / 10:g} cm", fontsize=SMALL, va="bottom")
    text.set(color="white", path_effects=[withStroke(linewidth=2, foreground="black")])


def say(axes: Axes, words: str) -> None:
    """Writes a note into the upper part of a panel."""
    lines = "\n".join(wrap(words, 0.9 * NARROWEST, TEXT_SIZE))
    text = axes.text(0.5, 0.86, lines, transform=axes.transAxes, fontsize=TEXT_SIZE)
    text.set(color="white", ha="center", va="top", parse_math=False)
    text.set_path_effects([withStroke(linewidth=2.5, foreground="black")])
