"""Axial, coronal and sagittal slices of a scan, turned to the patient's axes however it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpfnl.volumes import Grid

Element = TypeVar("Element", bound=np.generic)

PlaneName: TypeAlias = Literal["axial", "coronal", "sagittal"]

ScanArray: TypeAlias = NDArray[np.floating]
"""HU, (x, y, z), axes to the right, anterior and superior (RAS)."""

Mask: TypeAlias = NDArray[np.bool_]
"""Mask on a scan's grid, or of a slice's pixels."""

SliceImage: TypeAlias = NDArray[np.float64]
"""Slice as an image, (row, column) in [0, 1] under a window."""

MARKS = {"axial": "ALPR", "coronal": "SLIR", "sagittal": "SPIA"}
"""Patient's sides at the top, right, bottom and left of each plane."""

ACROSS = {"axial": (1, 0), "coronal": (2, 0), "sagittal": (2, 1)}
"""Axes of the scan along the rows and the columns of each plane."""

TISSUE_HU = (-20.0, 300.0)
"""HU of the soft tissue whose middle determines the slices."""

SIDES = (("R", "L"), ("A", "P"), ("S", "I"))
"""Letters of the ends of the x, y and z axes: towards larger and towards smaller coordinates."""


@dataclass(frozen=True, eq=False)
class Orientation:
    """Orientation of a stored grid: the turn that makes its axes run right, anterior and superior (RAS).

    An oblique grid is turned to the nearest axes and not resampled.

    Args:
        affine: Affine from voxel indices to world positions in mm (RAS+), (4, 4).
        shape: Stored number of voxels along each axis.

    >>> orientation = Orientation(np.diag([-1.0, -1.0, 5.0, 1.0]), (4, 4, 10))
    >>> orientation.turned(np.arange(160).reshape(4, 4, 10))[0, 0, 0]
    np.int64(150)
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]

    def turned(self, voxels: NDArray[Element]) -> NDArray[Element]:
        """Voxels (x, y, z) with axes to the right, anterior and superior; a view, no copy."""
        return self._grid.to_canonical(voxels)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing along the turned axes in mm."""
        return self._grid.canonical().spacing

    @property
    def turned_shape(self) -> tuple[int, int, int]:
        """Number of voxels along the turned axes."""
        return self._grid.canonical().shape

    def position(self, voxel: Sequence[int]) -> NDArray[np.float64]:
        """World position in mm (RAS) of a voxel along the turned axes, (3,)."""
        return np.asarray((self._grid.canonical().affine @ [*voxel, 1])[:3])

    def stored_index(self, axis: int, index: int) -> int:
        """Index of a slice in the file, from 0.

        Args:
            axis: Turned axis across which the slice lies.
            index: Index along that axis.
        """
        axes = self._grid.axes
        along = int(np.nonzero(axes[:, 0] == axis)[0][0])
        return index if axes[along, 1] > 0 else self.shape[along] - 1 - index

    def place(self, axis: int, voxel: Sequence[int]) -> str:
        """Index and position of a slice in words, as in "34 (S 12.5 mm)".

        Args:
            axis: Turned axis across which the slice lies.
            voxel: Voxel of the slice along the turned axes.
        """
        mm = float(self.position(voxel)[axis])
        side = SIDES[axis][int(round(mm, 1) < 0)]
        position = f"({side} {abs(mm):.1f} mm)".replace(" ", "\N{NO-BREAK SPACE}")
        return f"{self.stored_index(axis, voxel[axis])} {position}"

    @property
    def _grid(self) -> Grid:
        return Grid(self.shape, self.affine)


def view(scan: NDArray[np.generic], plane: str, index: Sequence[int]) -> NDArray[np.generic]:
    """One slice for display, (row, column): right or anterior on the left, anterior or superior at the top.

    Args:
        scan: Scan `(x, y, z)`, axes to the right, anterior and superior.
        plane: Axial, coronal or sagittal.
        index: Voxel of the slice.
    """
    x, y, z = index
    slices = {"axial": scan[:, :, z], "coronal": scan[:, y, :], "sagittal": scan[x, :, :]}
    return slices[plane].T[::-1, ::-1]


def tissue_middle(scan: ScanArray) -> tuple[int, int, int]:
    """Voxel in the middle of the soft tissue: its median along each axis, or the grid's middle."""
    tissue = np.nonzero((scan > TISSUE_HU[0]) & (scan < TISSUE_HU[1]))
    if not len(tissue[0]):
        tissue = tuple(np.array([side // 2]) for side in scan.shape)
    x, y, z = (int(np.median(positions)) for positions in tissue)
    return x, y, z
