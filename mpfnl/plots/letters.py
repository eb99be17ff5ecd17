"""The letters of the patient's sides at the edges of a picture."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

COLOUR = "#9fdcff"
SIZE = 8  # points


def draw_letters(axes: Axes, letters: str) -> None:
    """Writes the patient's sides at a picture's edges: top, right, bottom, left."""
    places = [(0.5, 0.985, "center", "top"), (0.985, 0.5, "right", "center")]
    places += [(0.5, 0.015, "center", "bottom"), (0.015, 0.5, "left", "center")]
    for letter, (x, y, horizontal, vertical) in zip(letters, places, strict=True):
        text = axes.text(x, y, letter, transform=axes.transAxes, ha=horizontal, va=vertical, fontsize=SIZE)
        text.set(color=COLOUR, path_effects=[withStroke(linewidth=2, foreground="black")])
