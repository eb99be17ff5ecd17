"""A figure on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mpfnl.evaluation.overlap import Truth
from mpfnl.files import atomic_file
from mpfnl.plots.png import small_png

TRUTHS = {
    Truth.MASK: "reference mask",
    Truth.REFERENCE_SCAN: "segmentation of the reference scan",
}
"""What captions call the mask that segmentations are compared with."""


@dataclass(frozen=True)
class Picture:
    """A figure on disk.

    Args:
        path: The PNG.
        title: Its number and what it is: "Figure 2. ...".
        caption: What it shows, and by which rule it was picked.
        alt: What is to be seen, for those who do not see it.
    """

    path: Path
    title: str
    caption: str
    alt: str


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG, whole or not at all."""
    with atomic_file(path) as file:
        file.write(small_png(figure))
