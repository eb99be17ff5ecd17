"""Contact sheets of a registration: checkerboards before and after, and edges, in three planes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from mpfnl.plots.letters import draw_letters
from mpfnl.plots.page import BLACK, Colour, Page
from mpfnl.window import ABDOMEN

Scan: TypeAlias = NDArray[np.floating]
"""HU, (x, y, z), axes to the right, front and top (RAS)."""

Mask: TypeAlias = NDArray[np.bool_]
"""On a scan's grid, or of a picture's pixels."""

Plane: TypeAlias = NDArray[np.float64]
"""A slice as a picture, (row, column) in [0, 1] under the window."""

EDGE_COLOUR: Colour = (1.0, 0.8, 0.0)
MARK_COLOUR: Colour = (0.5, 0.85, 1.0)
UNSEEN_COLOUR: Colour = (0.14, 0.18, 0.42)
GREEN: Colour = (0.10, 0.50, 0.22)
ORANGE: Colour = (0.70, 0.42, 0.00)
RED: Colour = (0.72, 0.10, 0.16)

TILE_MM = 30.0  # a side of the checkerboard's squares: a kidney shows in some four of them
FINEST_PIXEL_MM = 0.9
LARGEST_BLOCK = 680_000  # pixels of one phase's pictures: keeps a sheet of two phases below some 400 kB
EDGE_SIGMA_MM = 2.0
EDGE_LOW_HU, EDGE_HIGH_HU = 3.0, 7.5  # a mm: what an edge must exceed everywhere, and somewhere
TISSUE_HU = (-20.0, 300.0)  # what the slices are chosen by
GREYS = 64
TITLE, LINE, GAP, SIDE = 34, 17, 4, 8  # pixels: heights of title and line, between pictures, at borders
MARKS = {"axial": "ALPR", "coronal": "SLIR", "sagittal": "SPIA"}  # top, right, bottom, left
ACROSS = {"axial": (1, 0), "coronal": (2, 0), "sagittal": (2, 1)}  # axes along rows and columns
COLUMNS = ("checkerboard, before", "checkerboard, after", "edges of the phase on the reference, after")


@dataclass(frozen=True)
class Overlay:
    """A moving phase against the reference.

    Args:
        title: Its heading.
        lines: What stands below the heading.
        before: HU where the scanner's coordinates put it.
        after: HU where the registration put it.
        covered_before: Where its field of view reaches, before.
        covered_after: Where its field of view reaches, after.
        colour: Of the heading.
    """

    title: str
    lines: Sequence[str]
    before: Scan
    after: Scan
    covered_before: Mask
    covered_after: Mask
    colour: Colour = BLACK


def contact_sheet(
    title: str, fixed: Scan, phases: Sequence[Overlay], spacing: Sequence[float], colour: Colour = BLACK
) -> Figure:
    """Draws how well phases lie on the reference.

    Each phase has a block of three rows (axial, coronal, sagittal, through the middle of the reference's soft
    tissue) and three columns: squares of the reference and of the phase in turn, before and after; and the
    edges of the phase, after, on the reference. Where the phase's field of view does not reach it is blue.
    The window is the paper's, [-175, 275] HU; pictures have the body's proportions, with the patient's right,
    or front, on the left.

    Args:
        title: Of the sheet.
        fixed: The reference.
        phases: The moving phases, on the reference's grid.
        spacing: Voxel size in mm.
        colour: Of the title.

    Raises:
        ValueError: If a phase is not on the reference's grid.
    """
    for phase in phases:
        for scan in (phase.before, phase.after, phase.covered_before, phase.covered_after):
            if scan.shape != fixed.shape:
                raise ValueError(f"{phase.title}: {scan.shape} voxels, but {fixed.shape} in the reference")
    slices = _Slices(tissue_middle(fixed), tuple(spacing), pixel_mm(fixed.shape, spacing))
    references = {plane: slices.picture(fixed, plane) for plane in MARKS}
    wide = max(picture.shape[1] for picture in references.values())
    tall = sum(picture.shape[0] + GAP for picture in references.values())
    heads = [LINE * (len(phase.lines) + 2) + 8 for phase in phases]
    page = Page(2 * SIDE + 3 * wide + 2 * GAP, TITLE + sum(heads) + len(phases) * tall + SIDE)
    page.write(SIDE, 8, title, size=13, colour=colour, weight="bold")
    top = TITLE
    for phase, head in zip(phases, heads, strict=True):
        page.write(SIDE, top + 4, phase.title, size=10, colour=phase.colour, weight="bold")
        for number, line in enumerate(phase.lines, 1):
            page.write(SIDE, top + 4 + number * LINE, line, size=8)
        lefts = [SIDE + column * (wide + GAP) for column in range(len(COLUMNS))]
        for left, name in zip(lefts, COLUMNS, strict=True):
            page.write(left, top + head - LINE, name, size=8)
        top += head
        for plane, reference in references.items():
            for left, picture in zip(lefts, _compared(phase, reference, plane, slices), strict=True):
                draw_letters(page.place(left + (wide - picture.shape[1]) // 2, top, picture), MARKS[plane])
            top += reference.shape[0] + GAP
    return page.figure


def tissue_middle(scan: Scan) -> tuple[int, int, int]:
    """The voxel in the middle of the soft tissue, its median along each axis; of the grid without any."""
    tissue = np.nonzero((scan > TISSUE_HU[0]) & (scan < TISSUE_HU[1]))
    if not len(tissue[0]):
        tissue = tuple(np.array([side // 2]) for side in scan.shape)
    x, y, z = (int(np.median(positions)) for positions in tissue)
    return x, y, z


def pixel_mm(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """The side of the sheet's pixels: fine for a small body, coarser for one that fills more of the sheet."""
    x, y, z = (count * step for count, step in zip(shape, spacing, strict=True))
    area = len(COLUMNS) * (x * y + x * z + y * z)
    return max(FINEST_PIXEL_MM, float(np.sqrt(area / LARGEST_BLOCK)))


def view(scan: NDArray[np.generic], plane: str, index: Sequence[int]) -> NDArray[np.generic]:
    """One slice turned for display, (row, column): right or front on the left, front or top up.

    Args:
        scan: `(x, y, z)`, axes to the right, front and top.
        plane: Axial, coronal or sagittal.
        index: A voxel of the slice.
    """
    x, y, z = index
    slices = {"axial": scan[:, :, z], "coronal": scan[:, y, :], "sagittal": scan[x, :, :]}
    return slices[plane].T[::-1, ::-1]


def squares(shape: Sequence[int], side: int) -> Mask:
    """A checkerboard's squares, (row, column); the upper left one is False."""
    rows, columns = (np.arange(count) // side for count in shape)
    return np.asarray((rows[:, None] + columns) % 2 == 1)


def edges(picture: Plane, pixel_mm: float) -> Mask:
    """Canny's edges (1986): ridges of the slope, where it is strong somewhere along them."""
    sigma = EDGE_SIGMA_MM / pixel_mm
    rise = [ndimage.gaussian_filter(picture, sigma, order=order) for order in ((1, 0), (0, 1))]
    slope = np.hypot(*rise)
    across = np.stack(rise) / np.maximum(slope, 1e-12)
    here = np.indices(picture.shape)
    beside = [ndimage.map_coordinates(slope, here + way * across, order=1, mode="nearest") for way in (-1, 1)]
    ridge = (slope > beside[0]) & (slope >= beside[1])  # not both strict: an edge between two equal pixels
    slope_hu = slope * ABDOMEN.width / pixel_mm
    lines, _ = ndimage.label(ridge & (slope_hu > EDGE_LOW_HU), np.ones((3, 3)))
    strong = np.unique(lines[ridge & (slope_hu > EDGE_HIGH_HU)])
    return np.isin(lines, strong[strong > 0])


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG of few colours: the same bytes for the same figure, no date, no version."""
    drawn, file = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", pil_kwargs={"compress_level": 1})
    pixels = np.asarray(Image.open(drawn).convert("RGB"))
    palette = _palette()
    few = Image.frombytes("P", pixels.shape[1::-1], _nearest(pixels, palette).tobytes())
    few.putpalette(palette.tobytes())
    few.save(file, "PNG", optimize=True)
    return file.getvalue()


def _nearest(pixels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The number of the nearest of few colours, (row, column); Pillow's own search rounds."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    found, back = np.unique(packed, return_inverse=True)
    colours = np.stack([found >> 16, (found >> 8) & 255, found & 255], axis=-1).astype(np.int32)
    distance = ((colours[:, None] - palette.astype(np.int32)) ** 2).sum(axis=-1)
    return distance.argmin(axis=1).astype(np.uint8)[back].reshape(packed.shape)


def _palette() -> NDArray[np.uint8]:
    """Greys, the sheet's own colours, and those of headings with their smooth borders on white."""
    greys = [(level, level, level) for level in np.linspace(0, 1, GREYS)]
    own = [EDGE_COLOUR, MARK_COLOUR, UNSEEN_COLOUR]
    dimmed = [_dimmed(np.array(grey)) for grey in greys[::2]]
    headings = [
        tuple(1 - share * (1 - part) for part in colour)
        for colour in (GREEN, ORANGE, RED)
        for share in (1, 0.75, 0.5, 0.25)
    ]
    return np.rint(255 * np.array([*greys, *own, *dimmed, *headings])).astype(np.uint8)


@dataclass(frozen=True)
class _Slices:
    """Which slices are shown, at which resolution."""

    index: tuple[int, int, int]
    spacing: tuple[float, ...]
    pixel_mm: float

    def picture(self, scan: Scan, plane: str) -> Plane:
        """A slice under the window, with the sheet's pixels."""
        unit = ABDOMEN.normalize(np.asarray(view(scan, plane, self.index), dtype=np.float64))
        return np.clip(self._enlarged(unit, plane, order=3), 0, 1)

    def area(self, mask: Mask, plane: str) -> Mask:
        """A mask's slice, with the sheet's pixels."""
        return (
            self._enlarged(np.asarray(view(mask, plane, self.index), dtype=np.float64), plane, order=0) > 0.5
        )

    def _enlarged(self, plane: Plane, name: str, order: Literal[0, 3]) -> Plane:
        factors = [self.spacing[axis] / self.pixel_mm for axis in ACROSS[name]]
        return ndimage.zoom(plane, factors, order=order, grid_mode=True, mode="nearest")


def _compared(phase: Overlay, reference: Plane, plane: str, slices: _Slices) -> list[NDArray[np.float64]]:
    """The three pictures of a phase in one plane, (row, column, colour)."""
    tiles = squares(reference.shape, round(TILE_MM / slices.pixel_mm))
    pictures = []
    for scan, covered in ((phase.before, phase.covered_before), (phase.after, phase.covered_after)):
        board = _grey(np.where(tiles, slices.picture(scan, plane), reference))
        board[tiles & ~slices.area(covered, plane)] = UNSEEN_COLOUR
        pictures.append(board)
    seen = slices.area(phase.covered_after, plane)
    traced = _grey(reference)
    traced[~seen] = _dimmed(traced[~seen])
    inside = ndimage.binary_erosion(
        seen, iterations=round(2 * EDGE_SIGMA_MM / slices.pixel_mm), border_value=1
    )
    traced[edges(slices.picture(phase.after, plane), slices.pixel_mm) & inside] = EDGE_COLOUR
    return [*pictures, traced]


def _dimmed(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * grey + 0.5 * np.array(UNSEEN_COLOUR)


def _grey(picture: Plane) -> NDArray[np.float64]:
    return np.repeat(picture[..., None], 3, axis=-1)
