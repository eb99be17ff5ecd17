"""Scans turned to the patient's axes, however they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mpfnl.volumes import Grid

Element = TypeVar("Element", bound=np.generic)

SIDES = (("R", "L"), ("A", "P"), ("S", "I"))
"""The letters of the ends of the x, y and z axes: towards larger coordinates, towards smaller ones."""


@dataclass(frozen=True, eq=False)
class Orientation:
    """How a stored grid is turned so that its axes run to the right, front and top (RAS).

    An oblique grid is turned to the nearest axes and not resampled.

    Args:
        affine: Voxel indices to world positions in mm (RAS+), (4, 4).
        shape: The stored number of voxels along each axis.
    """

    affine: NDArray[np.float64]
    shape: tuple[int, int, int]

    def turned(self, voxels: NDArray[Element]) -> NDArray[Element]:
        """The voxels (x, y, z) with axes to the right, front and top; a view, no copy."""
        return self._grid.to_canonical(voxels)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """The distance between neighbouring voxels along the turned axes, in mm."""
        return self._grid.canonical().spacing

    @property
    def turned_shape(self) -> tuple[int, int, int]:
        """The number of voxels along the turned axes."""
        return self._grid.canonical().shape

    def position(self, voxel: Sequence[int]) -> NDArray[np.float64]:
        """The world position in mm (RAS) of a voxel that is counted along the turned axes, (3,)."""
        return np.asarray((self._grid.canonical().affine @ [*voxel, 1])[:3])

    def stored_index(self, axis: int, index: int) -> int:
        """The number, from 0, that a slice has in the file.

        Args:
            axis: The turned axis that the slice lies across.
            index: Along it.
        """
        axes = self._grid.axes
        along = int(np.nonzero(axes[:, 0] == axis)[0][0])
        return index if axes[along, 1] > 0 else self.shape[along] - 1 - index

    def place(self, axis: int, voxel: Sequence[int]) -> str:
        """Which slice lies across an axis at a voxel, in words: "34 (S 12.5 mm)".

        Args:
            axis: The turned axis.
            voxel: Counted along the turned axes.
        """
        mm = float(self.position(voxel)[axis])
        side = SIDES[axis][int(round(mm, 1) < 0)]
        position = f"({side} {abs(mm):.1f} mm)".replace(" ", "\N{NO-BREAK SPACE}")
        return f"{self.stored_index(axis, voxel[axis])} {position}"

    @property
    def _grid(self) -> Grid:
        return Grid(self.shape, self.affine)
