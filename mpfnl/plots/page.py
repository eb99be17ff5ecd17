"""Pages: text of measured width, images pixel by pixel, letters of the patient's sides, small PNG files."""

from __future__ import annotations

import io
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patheffects import withStroke
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray
from PIL import Image

DPI = 100

Colour: TypeAlias = tuple[float, float, float]
"""Red, green and blue from 0 to 1."""

BLACK: Colour = (0.0, 0.0, 0.0)
WHITE: Colour = (1.0, 1.0, 1.0)

LETTER_COLOUR, LETTER_SIZE = "#9fdcff", 8  # points

ROUNDING = 1.03
"""Largest width of a drawn line over its nominal width; letters are moved to whole pixels."""

LEADING = 1.35
"""Height of a line over the size of its letters."""

GREY_STEPS = (3, 5)  # of 255: fine, and coarser for large files
LARGEST = 600_000  # bytes


class Page:
    """A figure that shows images pixel by pixel; positions count from the upper left corner.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        paper: Background colour.
        ink: Colour of text.
    """

    def __init__(self, width: int, height: int, paper: Colour = WHITE, ink: Colour = BLACK) -> None:
        self.width, self.height, self.ink = width, height, ink
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=paper)

    def place(self, left: int, top: int, picture: NDArray[np.float64]) -> Axes:
        """Draws an image, `(rows, columns)` in grey or `(rows, columns, 3)`, from 0 to 1."""
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
        """Writes a line of text whose upper edge is at `top`."""
        x, y = left / self.width, 1 - top / self.height
        colour = self.ink if colour is None else colour
        self.figure.text(x, y, text, fontsize=size, color=colour, weight=weight, va="top", parse_math=False)


def draw_letters(axes: Axes, letters: str) -> None:
    """Writes the patient's sides at the edges of an image: top, right, bottom, left."""
    places = [(0.5, 0.985, "center", "top"), (0.985, 0.5, "right", "center")]
    places += [(0.5, 0.015, "center", "bottom"), (0.015, 0.5, "left", "center")]
    for letter, (x, y, horizontal, vertical) in zip(letters, places, strict=True):
        text = axes.text(
            x, y, letter, transform=axes.transAxes, ha=horizontal, va=vertical, fontsize=LETTER_SIZE
        )
        text.set(color=LETTER_COLOUR, path_effects=[withStroke(linewidth=2, foreground="black")])


def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of a line in inches, with a margin for rounding.

    Args:
        text: One line.
        size: Size of the letters in points.
        weight: Weight of the font, "normal" or "bold".
    """
    font = FontProperties(size=size, weight=weight)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return ROUNDING * float(width) / 72


def line_height(size: float) -> float:
    """Height of a line in inches, for letters of a size in points."""
    return LEADING * size / 72


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Breaks a text into lines by their drawn width; `textwrap` counts letters instead.

    Lines break at spaces. A word that is wider than a line breaks after a hyphen, an underscore or a full
    stop in its second half, else anywhere.

    Args:
        text: Text to break.
        width: Width of a line in inches.
        size: Size of the letters in points.
        weight: Weight of the font, "normal" or "bold".
    """
    lines: list[str] = []
    words = [word for word in text.split(" ") if word]  # a no-break space stays
    while words:
        count = len(words)
        while count > 1 and text_width(" ".join(words[:count]), size, weight) > width:
            count -= 1
        line = " ".join(words[:count])
        words = words[count:]
        if text_width(line, size, weight) > width:  # one long word
            cut = _break(line, width, size, weight)
            words = [line[cut:], *words] if line[cut:] else words
            line = line[:cut]
        lines.append(line)
    return lines


def _break(word: str, width: float, size: float, weight: str) -> int:
    """Number of letters of a word that fit into a line; at least one."""
    fits = len(word)
    while fits > 1 and text_width(word[:fits], size, weight) > width:
        fits -= 1
    joints = [place for place in range(fits, fits // 2, -1) if word[place - 1] in "-_."]
    return joints[0] if joints else fits


class Png(bytes):
    """A PNG that a notebook shows as the result of a cell."""

    def __repr__(self) -> str:
        return "a picture"

    def _repr_png_(self) -> bytes:
        """The PNG, for Jupyter."""
        return bytes(self)


def small_png(figure: Figure) -> Png:
    """A figure as a PNG of at most 256 colours; the same bytes for the same figure, without date or version.

    Greys are rounded to 86 levels, or to 52 if the file would exceed 600 kB: steps of 1.2 or 2 % of the
    window's width, less than the noise of CT. Pillow chooses the palette of the other colours.

    Args:
        figure: Figure; drawn at its own resolution.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="rgba", dpi=figure.dpi)
    width, height = (int(side) for side in figure.canvas.get_width_height())
    pixels = np.frombuffer(drawn.getvalue(), dtype=np.uint8).reshape(height, width, 4)[..., :3]
    packed = Png()
    for step in GREY_STEPS:
        packed = _packed(pixels, step, float(figure.dpi))
        if len(packed) <= LARGEST:
            break
    return packed


def _packed(pixels: NDArray[np.uint8], step: int, dpi: float) -> Png:
    """The PNG of an image whose greys are rounded to multiples of `step`."""
    greys = np.arange(0, 256, step, dtype=np.uint8)
    palette = np.repeat(greys[:, None], 3, axis=1)
    numbers = ((pixels[..., 0].astype(np.int32) + step // 2) // step).astype(np.uint8)
    coloured = np.ptp(pixels, axis=-1) > 0
    if coloured.any():
        line = Image.fromarray(pixels[coloured][None])
        few = line.quantize(256 - len(greys), Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        numbers[coloured] = len(greys) + np.asarray(few)[0]
        palette = np.concatenate([palette, np.array(few.getpalette(), np.uint8).reshape(-1, 3)])
    image = Image.frombytes("P", pixels.shape[1::-1], numbers.tobytes())
    image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, dpi=(dpi, dpi))
    return Png(file.getvalue())
