"""Figures as small PNG files."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import KDTree

STEPS = (3, 5)  # of red, green and blue, whole parts of 255: fine, and coarser where that is too large
LARGEST = 600_000  # bytes
COLOURS = 256


class Png(bytes):
    """A PNG that a notebook shows when it is the last thing in a cell."""

    def __repr__(self) -> str:
        return "a picture"

    def _repr_png_(self) -> bytes:
        """What Jupyter asks for."""
        return bytes(self)


def small_png(figure: Figure) -> Png:
    """The figure as a PNG of 256 colours: the same bytes for the same figure, no date, no version.

    Greys are rounded to 86 levels, to 52 where the file would be larger than 600 kB: under a window of 450 HU
    these are steps of 5 and 9 HU, less than the noise of CT. Of the other colours those are kept that lie far
    from all kept ones and are frequent; the rest become the nearest of these.

    Args:
        figure: The figure; drawn at its own resolution.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, format="rgba", dpi=figure.dpi)
    width, height = (int(side) for side in figure.canvas.get_width_height())
    pixels = np.frombuffer(drawn.getvalue(), dtype=np.uint8).reshape(height, width, 4)[..., :3]
    packed = Png()
    for step in STEPS:
        packed = _packed(pixels, step, float(figure.dpi))
        if len(packed) <= LARGEST:
            break
    return packed


def _packed(pixels: NDArray[np.uint8], step: int, dpi: float) -> Png:
    palette, numbers = _few_colours(pixels, step)
    few = Image.frombytes("P", pixels.shape[1::-1], numbers.tobytes())
    few.putpalette(palette.tobytes())
    file = io.BytesIO()
    few.save(file, "PNG", optimize=True, dpi=(dpi, dpi))
    return Png(file.getvalue())


def _few_colours(pixels: NDArray[np.uint8], step: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A palette `(colours, 3)` and each pixel's number in it, `(rows, columns)`."""
    levels = 255 // step + 1
    red, green, blue = np.moveaxis(((pixels.astype(np.int32) + step // 2) // step), -1, 0)
    packed = (red * levels + green) * levels + blue
    count = np.bincount(packed.ravel(), minlength=levels**3)
    found = np.nonzero(count)[0]
    colours = step * np.stack([found // levels**2, found // levels % levels, found % levels], axis=-1)
    kept = np.sort(_spread(colours, count[found]))  # near colours get near numbers, which PNG packs better
    numbers = np.zeros(len(count), dtype=np.uint8)
    numbers[found] = KDTree(colours[kept]).query(colours)[1]
    return colours[kept].astype(np.uint8), numbers[packed]


def _spread(colours: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of the colours that are kept: all greys, and others that are far from these and frequent."""
    points = colours.astype(np.float64)
    kept = np.nonzero(np.ptp(points, axis=1) == 0)[0].tolist()
    away = KDTree(points[kept]).query(points)[0] if kept else np.full(len(points), 255.0)
    weight = np.sqrt(count)
    while len(kept) < min(COLOURS, len(points)):
        place = int((away**2 * weight).argmax())
        kept.append(place)
        away = np.minimum(away, np.linalg.norm(points - points[place], axis=1))
    return np.array(kept)
