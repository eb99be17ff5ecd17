"""Contact sheets of a registration: checkerboards before and after, and edges, in three planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.plots.page import BLACK, Colour, Page, draw_letters
from mpfnl.plots.planes import ACROSS, MARKS, Mask, ScanArray, SliceImage, tissue_middle, view
from mpfnl.window import ABDOMEN, Window

EDGE_COLOUR: Colour = (1.0, 0.8, 0.0)
MARK_COLOUR: Colour = (0.5, 0.85, 1.0)
UNSEEN_COLOUR: Colour = (0.14, 0.18, 0.42)
GREEN: Colour = (0.10, 0.50, 0.22)
ORANGE: Colour = (0.70, 0.42, 0.00)
RED: Colour = (0.72, 0.10, 0.16)

TILE_MM = 30.0  # side of the checkerboard's squares; a kidney extends over about four
FINEST_PIXEL_MM = 0.9
LARGEST_BLOCK = 680_000  # pixels per phase, for sheets of two phases below about 400 kB
EDGE_SIGMA_MM = 2.0
EDGE_LOW_HU, EDGE_HIGH_HU = 3.0, 7.5  # per mm: slopes that an edge exceeds everywhere, and somewhere
TITLE, LINE, GAP, SIDE = 34, 17, 4, 8  # pixels: heights of title and line, between pictures, at borders
COLUMNS = ("checkerboard, before", "checkerboard, after", "edges of the phase on the reference, after")


@dataclass(frozen=True)
class Overlay:
    """A moving phase and the reference.

    Args:
        title: Heading.
        lines: Text below the heading.
        before: HU at the scanner's coordinates.
        after: HU after registration.
        covered_before: Field of view before registration.
        covered_after: Field of view after registration.
        colour: Colour of the heading.
    """

    title: str
    lines: Sequence[str]
    before: ScanArray
    after: ScanArray
    covered_before: Mask
    covered_after: Mask
    colour: Colour = BLACK


def contact_sheet(
    title: str,
    fixed: ScanArray,
    phases: Sequence[Overlay],
    spacing: Sequence[float],
    colour: Colour = BLACK,
    *,
    window: Window = ABDOMEN,
) -> Figure:
    """Contact sheet of a registration.

    Each phase has a block of three rows (axial, coronal and sagittal slices through the middle of the
    reference's soft tissue) and three columns: a checkerboard of reference and phase before and after
    registration, and the edges of the registered phase on the reference. Areas outside of the phase's field
    of view are blue. Slices have the body's proportions, with the patient's right or anterior side on the
    left.

    Args:
        title: Title of the sheet.
        fixed: Reference.
        phases: Moving phases, on the reference's grid.
        spacing: Voxel size in mm.
        colour: Colour of the title.
        window: HU window of the slices.

    Raises:
        ValueError: If a phase is not on the reference's grid.
    """
    for phase in phases:
        for scan in (phase.before, phase.after, phase.covered_before, phase.covered_after):
            if scan.shape != fixed.shape:
                raise ValueError(f"{phase.title}: {scan.shape} voxels, but {fixed.shape} in the reference")
    slices = _Slices(tissue_middle(fixed), tuple(spacing), pixel_mm(fixed.shape, spacing), window)
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
            for left, picture in zip(lefts, _columns(phase, reference, plane, slices), strict=True):
                draw_letters(page.place(left + (wide - picture.shape[1]) // 2, top, picture), MARKS[plane])
            top += reference.shape[0] + GAP
    return page.figure


def pixel_mm(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Side of the sheet's pixels in mm: fine for a small body, coarser for a large one."""
    x, y, z = (count * step for count, step in zip(shape, spacing, strict=True))
    area = len(COLUMNS) * (x * y + x * z + y * z)
    return max(FINEST_PIXEL_MM, float(np.sqrt(area / LARGEST_BLOCK)))


def squares(shape: Sequence[int], side: int) -> Mask:
    """Squares of a checkerboard, (row, column); the upper left one is False."""
    rows, columns = (np.arange(count) // side for count in shape)
    return np.asarray((rows[:, None] + columns) % 2 == 1)


def edges(picture: SliceImage, pixel_mm: float, window: Window) -> Mask:
    """Canny's edges (1986): ridges of the slope that are strong somewhere along their length.

    Args:
        picture: Slice under the window.
        pixel_mm: Side of its pixels in mm.
        window: HU window of the slice.
    """
    sigma = EDGE_SIGMA_MM / pixel_mm
    rise = [ndimage.gaussian_filter(picture, sigma, order=order) for order in ((1, 0), (0, 1))]
    slope = np.hypot(*rise)
    across = np.stack(rise) / np.maximum(slope, 1e-12)
    here = np.indices(picture.shape)
    beside = [ndimage.map_coordinates(slope, here + way * across, order=1, mode="nearest") for way in (-1, 1)]
    ridge = (slope > beside[0]) & (slope >= beside[1])  # not both strict: an edge between two equal pixels
    slope_hu = slope * window.width / pixel_mm
    lines, _ = ndimage.label(ridge & (slope_hu > EDGE_LOW_HU), np.ones((3, 3)))
    strong = np.unique(lines[ridge & (slope_hu > EDGE_HIGH_HU)])
    return np.isin(lines, strong[strong > 0])


@dataclass(frozen=True)
class _Slices:
    """Position, resolution and window of the slices."""

    index: tuple[int, int, int]
    spacing: tuple[float, ...]
    pixel_mm: float
    window: Window

    def picture(self, scan: ScanArray, plane: str) -> SliceImage:
        """A slice under the window, with the sheet's pixels."""
        unit = self.window.normalize(np.asarray(view(scan, plane, self.index), dtype=np.float64))
        return np.clip(self._enlarged(unit, plane, order=3), 0, 1)

    def area(self, mask: Mask, plane: str) -> Mask:
        """A mask's slice, with the sheet's pixels."""
        return (
            self._enlarged(np.asarray(view(mask, plane, self.index), dtype=np.float64), plane, order=0) > 0.5
        )

    def _enlarged(self, plane: SliceImage, name: str, order: Literal[0, 3]) -> SliceImage:
        factors = [self.spacing[axis] / self.pixel_mm for axis in ACROSS[name]]
        return ndimage.zoom(plane, factors, order=order, grid_mode=True, mode="nearest")


def _columns(phase: Overlay, reference: SliceImage, plane: str, slices: _Slices) -> list[NDArray[np.float64]]:
    """The three images of a phase in one plane, (row, column, colour)."""
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
    traced[edges(slices.picture(phase.after, plane), slices.pixel_mm, slices.window) & inside] = EDGE_COLOUR
    return [*pictures, traced]


def _dimmed(grey: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 * grey + 0.5 * np.array(UNSEEN_COLOUR)


def _grey(picture: SliceImage) -> NDArray[np.float64]:
    return np.repeat(picture[..., None], 3, axis=-1)
