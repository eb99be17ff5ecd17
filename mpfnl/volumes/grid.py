"""The grid of a scan: its shape and its place in the patient. No other module knows orientation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation, ornt_transform
from numpy.typing import NDArray

from mpfnl.errors import GridError
from mpfnl.phases import Phase
from mpfnl.volumes.fileio import by, numbers

Affine: TypeAlias = NDArray[np.float64]
"""A (4, 4) matrix from voxel indices to world positions in mm (RAS+, as in NIfTI)."""

Box: TypeAlias = tuple[slice, slice, slice]
"""A part of a grid along x, y and z: slices with a start and a stop, and a step of 1."""

Element = TypeVar("Element", bound=np.generic)

SCANNER_SPACE = 1
"""The NIfTI code of scanner coordinates (NIFTI_XFORM_SCANNER_ANAT)."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From world positions of DICOM and ITK (LPS+) to those of NIfTI (RAS+), and back."""

_RAS = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])

SAME_GRID = 0.1
"""The largest distance between the corners of two grids that count as the same, in shortest voxel edges. It
forgives a first or last slice whose position is rounded to 0.1 mm (0.05 mm, where CT's pixels are 0.5 mm and
more), a spacing with four digits (0.026 mm over 512 voxels), and float32 arithmetic on positions (1e-4 mm a
slice). Half a voxel, the mistake of taking edges for centres, is far beyond."""

ROUNDED_PRODUCT = 3**0.5 * 1e-3
"""What three digits can change in the scalar product of two unit vectors, or in a square length: each of
their components by 0.0005. Axes at right angles then look up to 0.0992 degrees off; gantry tilts are 0.5
degrees and more."""

SPACING_TOLERANCE = 1e-3
"""The largest relative difference between the spacing in a header and that in its affine: cosines with three
digits are up to 0.0009 too long or too short."""

SPACING_TOLERANCE_MM = 0.005
"""The same in mm: a spacing that was rounded to two digits."""

CONVERT = "convert the scan again from its DICOM slices, e.g. with dcm2niix"


@dataclass(frozen=True, eq=False)
class Grid:
    """The voxel grid of a scan: shape and affine.

    Args:
        shape: Number of voxels along x, y and z.
        affine: Voxel indices to world positions in mm (RAS+), (4, 4).
        space: NIfTI code of the world's coordinates (1 is the scanner's).
        stored: Grid in the file's order of axes, where this one was turned from it; writers turn back.
        rounding: Largest distance in mm of a slice's place in the file from that on this grid, along each
            axis of the world; above 0 where slices whose positions were rounded were put at equal distances.

    Raises:
        ValueError: The shape has not three axes, or the affine is not (4, 4).

    >>> grid = Grid((512, 512, 60), np.diag([-0.8, -0.8, 5.0, 1.0]))
    >>> grid.spacing
    (0.8, 0.8, 5.0)
    >>> grid.finer(2).shape, grid.finer(2).spacing
    ((1024, 1024, 120), (0.4, 0.4, 2.5))
    >>> grid.canonical().affine.diagonal()
    array([0.8, 0.8, 5. , 1. ])
    """

    shape: tuple[int, int, int]
    affine: Affine
    space: int = SCANNER_SPACE
    stored: Grid | None = None
    rounding: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        affine = np.asarray(self.affine, dtype=np.float64)
        if len(self.shape) != 3:
            raise ValueError(f"a grid has three axes; this shape is {tuple(self.shape)}")
        if affine.shape != (4, 4):
            raise ValueError(f"an affine is 4 by 4; this one has the shape {affine.shape}")
        x, y, z = (int(size) for size in self.shape)
        object.__setattr__(self, "shape", (x, y, z))
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along x, y and z, in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def box(self) -> Box:
        """The whole grid as a box."""
        x, y, z = self.shape
        return slice(0, x), slice(0, y), slice(0, z)

    def slab(self, start: int, stop: int) -> Box:
        """The box of the slices from `start` to before `stop`."""
        x, y, _ = self.box
        return x, y, slice(start, stop)

    def crop(self, box: Box) -> Grid:
        """The grid of a box of voxels.

        Args:
            box: Slices with a start and a stop within the grid.
        """
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.array([part.start for part in box], dtype=np.float64)
        x, y, z = (part.stop - part.start for part in box)
        stored = None if self.stored is None else self.stored.crop(self.stored_box(box))
        return replace(self, shape=(x, y, z), affine=affine, stored=stored)

    def finer(self, scale: int) -> Grid:
        """The grid that divides each voxel into cubes of smaller ones; both fill the same space.

        Args:
            scale: Number of parts into which each edge of a voxel is divided.
        """
        if scale == 1:
            return self
        finer = np.diag([*3 * [1 / scale], 1.0])
        finer[:3, 3] = 0.5 / scale - 0.5
        x, y, z = (scale * side for side in self.shape)
        stored = None if self.stored is None else self.stored.finer(scale)
        return replace(self, shape=(x, y, z), affine=self.affine @ finer, stored=stored)

    @property
    def axes(self) -> NDArray[np.float64]:
        """For each axis of the grid the nearest patient axis (0 to 2) and the direction (1 or -1), (3, 2)."""
        return np.asarray(io_orientation(self.affine))

    def canonical(self) -> Grid:
        """The same voxels with axes nearest to right, anterior and superior (RAS+); no interpolation.

        Returns:
            This grid where its axes run so; else one that remembers this as its `stored` grid.
        """
        turned = self.turned(_RAS)
        return self if turned is self else replace(turned, stored=self)

    def turned(self, axes: NDArray[np.float64]) -> Grid:
        """The same voxels with their axes in the order and directions of another grid's `axes`."""
        if np.array_equal(self.axes, axes):
            return self
        turn = ornt_transform(self.axes, axes)
        x, y, z = (self.shape[place] for place in np.argsort(turn[:, 0]))
        affine: Affine = self.affine @ inv_ornt_aff(turn, self.shape)
        return replace(self, shape=(x, y, z), affine=affine, stored=None)

    def turn(self, voxels: NDArray[Element], axes: NDArray[np.float64]) -> NDArray[Element]:
        """Voxels of this grid in the order of `turned(axes)`; a view, no copy."""
        return np.asarray(apply_orientation(voxels, ornt_transform(self.axes, axes)))

    def to_canonical(self, voxels: NDArray[Element]) -> NDArray[Element]:
        """Voxels of this grid in the order of `canonical()`; a view, no copy."""
        return self.turn(voxels, _RAS)

    def to_stored(self, voxels: NDArray[Element]) -> NDArray[Element]:
        """Voxels of this grid in the order of its `stored` grid; a view, no copy."""
        return voxels if self.stored is None else self.turn(voxels, self.stored.axes)

    def stored_box(self, box: Box) -> Box:
        """The box of the `stored` grid with the voxels of a box of this grid."""
        if self.stored is None:
            return box
        x, y, z = (
            box[int(axis)]
            if direction > 0
            else slice(
                self.shape[int(axis)] - box[int(axis)].stop, self.shape[int(axis)] - box[int(axis)].start
            )
            for axis, direction in self.stored.axes
        )
        return x, y, z

    @property
    def keeps_slices(self) -> bool:
        """Whether the `stored` grid has the slices along z in this grid's order."""
        return self.stored is None or tuple(self.stored.axes[2]) == (2, 1)

    def detached(self) -> Grid:
        """The grid without its `stored` one: what is written on it keeps this order of axes."""
        return replace(self, stored=None)

    def corners(self, margin: float = 0.0) -> NDArray[np.float64]:
        """World positions in mm of the eight corner voxels, (8, 3).

        Args:
            margin: Distance in voxels by which the corners are moved outwards.
        """
        ends = [(-margin, size - 1 + margin) for size in self.shape]
        index = np.array(list(product(*ends)), dtype=np.float64)
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)

    @property
    def shear(self) -> tuple[float, int, int]:
        """The cosine between the two axes furthest from a right angle, and these axes (0 to 2)."""
        columns = self.affine[:3, :3] / np.array(self.spacing)
        cosines = columns.T @ columns
        a, b = max(combinations(range(3), 2), key=lambda pair: abs(cosines[pair]))
        return float(cosines[a, b]), a, b

    def right_angled(self) -> Grid:
        """The grid with the nearest axes at right angles, the same first voxel and the same spacing.

        This is what a NIfTI qform holds, and what ITK reads of a NIfTI file whose axes are slightly off right
        angles (polar decomposition, as `nifti_mat44_to_quatern` in nifti1_io.c).
        """
        if self.shear[0] == 0:
            return self
        affine = self.affine.copy()
        left, _, right = np.linalg.svd(affine[:3, :3] / np.array(self.spacing))
        affine[:3, :3] = (left @ right) * np.array(self.spacing)
        return replace(self, affine=affine, stored=None)

    def offset_mm(self, other: Grid) -> float:
        """The largest distance in mm between corners of two grids of one shape."""
        return float(_distances(self, other).max())

    def overlaps(self, other: Grid) -> bool:
        """Whether two fields of view meet: separating axes along the grid axes of both."""
        return _meets(self, other) and _meets(other, self)


def same_grid(a: Grid, b: Grid) -> bool:
    """Whether two grids have equal shapes, and corner voxels at the same places in the world.

    Corners lie at the same place where rounding (see `SAME_GRID`) explains their distance. Of axes that
    rounding took off right angles programs make right angles, each in its own way (ITK's two readers, NIfTI's
    qform, this package's of DICOM). So directions may differ as far as three digits explain, about a corner
    that both grids share, where no voxel is off by half an edge. Programs also differ in where they put
    slices whose positions were rounded, by what `Grid.rounding` says; it is forgiven where no voxel is off by
    half of its own edge.

    Args:
        a: A grid.
        b: Another grid.

    >>> scan = Grid((512, 512, 60), np.diag([0.703125, 0.703125, 5, 1]))
    >>> same_grid(scan, Grid(scan.shape, np.diag([0.7031, 0.7031, 4.99998, 1])))
    True
    """
    if a.shape != b.shape:
        return False
    distances = _distances(a, b)
    if _near(a, b):
        return True
    if distances.max() >= 0.5 * min(*a.spacing, *b.spacing):
        return False
    directions = [grid.affine[:3, :3] / np.array(grid.spacing) for grid in (a, b)]
    if np.linalg.norm(directions[0] - directions[1], axis=0).max() > ROUNDED_PRODUCT:
        return False
    shared = int(distances.argmin())
    aligned = b.affine.copy()
    aligned[:3, :3] = directions[0] * np.array(b.spacing)
    aligned[:3, 3] += b.corners()[shared] - Grid(b.shape, aligned).corners()[shared]
    return _near(a, replace(b, affine=aligned, stored=None))


class OnGrid(Protocol):
    """A scan, volume or mask on a grid, as messages name it."""

    @property
    def path(self) -> Path:
        """File or folder."""

    @property
    def phase(self) -> Phase | None:
        """Contrast phase, where there is one."""

    @property
    def name(self) -> str:
        """File and phase, as in messages."""

    @property
    def grid(self) -> Grid:
        """Shape and place."""


def check_same_grid(reference: OnGrid, others: Sequence[OnGrid]) -> None:
    """Refuses scans that do not lie on the reference's grid; see `same_grid`.

    Args:
        reference: Scan with which the others are compared.
        others: The other scans.

    Raises:
        GridError: A scan lies on another grid; the message tells its file and phase, and the difference.
    """
    grid = reference.grid
    for other in others:
        if same_grid(grid, other.grid):
            continue
        against = (
            f"the {reference.phase.label} phase ({reference.path})" if reference.phase else reference.name
        )
        if not grid.overlaps(other.grid):
            raise GridError(
                f"{other.name}: its field of view does not overlap that of {against};"
                " check that both scans are of the same study and register it"
            )
        if other.grid.shape != grid.shape:
            raise GridError(
                f"{other.name}: its grid has {by(other.grid.shape)} voxels, that of {against} has"
                f" {by(grid.shape)}; register and resample it onto that grid"
            )
        offset, edge = grid.offset_mm(other.grid), min(*grid.spacing, *other.grid.spacing)
        raise GridError(
            f"{other.name}: its grid lies {offset:.4g} mm off that of {against}, {offset / edge:.2g} of a"
            f" voxel's shortest edge (tolerance {SAME_GRID:g}); register and resample it onto that grid"
        )


def check_affine(affine: Affine, name: str, field: str = "affine") -> None:
    """Refuses an affine that is not finite, has a zero spacing, or is sheared more than rounding explains.

    Args:
        affine: Voxel indices to mm, (4, 4).
        name: Name of the file in messages.
        field: Name of the affine in the file's format.

    Raises:
        GridError: The affine is one of these.
    """
    if not np.isfinite(affine).all():
        raise GridError(f"{name}: its {field} has values that are not finite; {CONVERT}")
    grid = Grid((1, 1, 1), affine)
    if not all(edge > 0 for edge in grid.spacing):
        raise GridError(
            f"{name}: its voxel spacing is {numbers(grid.spacing)} mm in its {field}, not positive; {CONVERT}"
        )
    cosine, a, b = grid.shear
    if abs(cosine) > ROUNDED_PRODUCT:
        angle = float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
        raise GridError(
            f"{name}: its {field} is sheared: {angle:.2f} degrees between {'xyz'[a]} and {'xyz'[b]}"
            " instead of 90 (a tilted gantry?); give the folder of its DICOM slices, which are put at right"
            " angles on reading, or resample it to a grid with right angles"
        )


def affine_from_lps(
    origin: NDArray[Any], directions: NDArray[Any], spacing: Sequence[float] | NDArray[Any]
) -> Affine:
    """The affine (RAS+) of a grid that DICOM or ITK describes.

    Args:
        origin: World position of the first voxel in mm (LPS+), (3,).
        directions: Unit vectors along x, y and z (LPS+), one a column, (3, 3).
        spacing: Distance between neighbouring voxels along x, y and z, in mm.
    """
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing)
    affine[:3, 3] = origin
    return np.asarray(LPS_TO_RAS @ affine, dtype=np.float64)


def affine_to_lps(affine: Affine) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Origin, directions (one a column) and spacing as `affine_from_lps` takes them."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    lps = LPS_TO_RAS @ affine
    return lps[:3, 3], lps[:3, :3] / spacing, spacing


def _distances(a: Grid, b: Grid) -> NDArray[np.float64]:
    """Distances in mm between the corners of two grids of one shape, (8,)."""
    distances: NDArray[np.float64] = np.linalg.norm(a.corners() - b.corners(), axis=1)
    return distances


def _near(a: Grid, b: Grid) -> bool:
    """Whether all corners of two grids of one shape lie within `SAME_GRID`, and the rounding of slices."""
    apart = a.corners() - b.corners()
    rounding = np.maximum(a.rounding, b.rounding)
    if rounding.any():
        along = np.abs(apart @ (a.affine[:3, :3] / np.array(a.spacing)))
        if (along >= 0.5 * np.minimum(a.spacing, b.spacing)).any():
            rounding = np.zeros(3)
    rest = np.maximum(np.abs(apart) - rounding, 0)
    return float(np.linalg.norm(rest, axis=1).max()) <= SAME_GRID * min(*a.spacing, *b.spacing)


def _meets(box: Grid, other: Grid) -> bool:
    to_index = np.linalg.inv(box.affine)
    index = other.corners(margin=0.5) @ to_index[:3, :3].T + to_index[:3, 3]
    size = np.array(box.shape)
    return bool(((index.max(axis=0) > -0.5) & (index.min(axis=0) < size - 0.5)).all())
