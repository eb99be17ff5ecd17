"""The figures of an evaluation: the paper's Figures 2 to 4, and image quality by method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpfnl.files import atomic_file
from mpfnl.plots.page import small_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class FigureFile:
    """A figure on disk.

    Args:
        path: PNG file.
        title: Number and subject: "Figure 2. ...".
        caption: Content, and the rule by which the case was selected; with the segmenter's notice where its
            results are shown.
        alt: Description for readers who do not see the figure.
    """

    path: Path
    title: str
    caption: str
    alt: str


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, whole or not at all."""
    with atomic_file(path) as file:
        file.write(small_png(figure))
