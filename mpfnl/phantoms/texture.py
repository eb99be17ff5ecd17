"""Texture: smooth random fields on a lattice fixed in the patient, independent of the voxel grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

_EXTENT = (240.0, 240.0, 210.0)  # half the lattice's size in mm: more than any field of view
_SPREAD = (151.0 / 315.0) ** 1.5  # mean over positions of the cubic B-spline's summed squares, in 3-D


@dataclass(frozen=True)
class SmoothField:
    """A Gaussian random field: normal values at lattice points, spread by cubic B-splines.

    Zero mean and unit variance (averaged over positions); smooth below the lattice's spacing, so
    that the spacing is the size of the structure in mm.
    """

    values: Array
    spacing: float

    @classmethod
    def draw(cls, rng: np.random.Generator, spacing: float) -> SmoothField:
        """Draws the lattice's values; `spacing` in mm."""
        shape = tuple(int(np.ceil(2 * half / spacing)) + 4 for half in _EXTENT)
        values = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(_SPREAD))
        return cls(values, spacing)

    def on(self, axes: Sequence[Array]) -> Array:
        """The field on the grid spanned by three coordinate axes in mm, shape (x, y, z)."""
        out = self.values
        for axis in (2, 1, 0):  # z first: the lattice is the smallest there
            out = self._along(out, axes[axis], axis)
        return out

    def _along(self, values: Array, coordinates: Array, axis: int) -> Array:
        position = (np.asarray(coordinates, dtype=np.float64) + _EXTENT[axis]) / self.spacing
        position = np.clip(position, 0, values.shape[axis] - 4 - 1e-6)
        start = np.floor(position).astype(np.int64)
        t = position - start
        weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3)
        shape = [1, 1, 1]
        shape[axis] = len(start)
        # Summed term by term rather than by a matrix product: the same bits whatever the BLAS.
        out: Array | None = None
        for offset, weight in enumerate(weights):
            term = np.take(values, start + offset, axis=axis)
            term *= (weight / 6).astype(np.float32).reshape(shape)
            out = term if out is None else np.add(out, term, out=out)
        assert out is not None
        return out


@dataclass(frozen=True)
class Texture:
    """Random fields on the whole grid, unit variance, named by the size of their structure."""

    low: Array  # 40 mm
    middle: Array  # 18 mm
    rough: Array  # 10 mm
    fine: Array  # 6 mm

    @classmethod
    def draw(cls, rng: np.random.Generator, axes: tuple[Array, Array, Array]) -> Texture:
        """Draws all four on the grid spanned by `axes` (mm)."""
        fields = [SmoothField.draw(rng, size) for size in (40.0, 18.0, 10.0, 6.0)]
        return cls(*(field.on(axes) for field in fields))
