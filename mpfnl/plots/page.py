"""A page: pictures on it pixel by pixel, words between them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

DPI = 100

Colour: TypeAlias = tuple[float, float, float]
"""Red, green and blue from 0 to 1."""

BLACK: Colour = (0.0, 0.0, 0.0)
WHITE: Colour = (1.0, 1.0, 1.0)


class Page:
    """A figure on which pictures lie pixel by pixel; positions are from the upper left corner.

    Args:
        width: In pixels.
        height: In pixels.
        paper: The colour behind everything.
        ink: The colour of words.
    """

    def __init__(self, width: int, height: int, paper: Colour = WHITE, ink: Colour = BLACK) -> None:
        self.width, self.height, self.ink = width, height, ink
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=paper)

    def place(self, left: int, top: int, picture: NDArray[np.float64]) -> Axes:
        """Puts down a picture, `(rows, columns)` in grey or `(rows, columns, 3)`, from 0 to 1."""
        tall, wide = picture.shape[:2]
        box = (left / self.width, 1 - (top + tall) / self.height, wide / self.width, tall / self.height)
        axes = self.figure.add_axes(box)
        axes.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set_axis_off()
        return axes

    def write(
        self,
        left: int,
        top: int,
        text: str,
        *,
        size: float,
        colour: Colour | None = None,
        weight: str = "normal",
    ) -> None:
        """Writes words, which hang from `top`."""
        x, y = left / self.width, 1 - top / self.height
        colour = self.ink if colour is None else colour
        self.figure.text(x, y, text, fontsize=size, color=colour, weight=weight, va="top", parse_math=False)
