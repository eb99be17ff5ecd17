"""Resizing: to coarser voxels and back to the grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from torch import Tensor

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.base import MOST_MM, Degradation, Triple, by, check, require, triple
from mpfnl.transforms.degradation.resampling import (
    Resampling,
    Taps,
    apply_taps,
    area_taps,
    coarse_grid,
    interpolation_taps,
)


@dataclass(frozen=True)
class Resize(Degradation):
    """Resizing to coarser voxels and back to the grid.

    The factor along an axis is the coarse voxel over the spacing, at least 1 (an axis that is
    already as coarse stays as it is) and at most `max_factor`.

    Args:
        voxel_mm: Size of the coarse voxel in mm along x, y, z.
        down: Resampling to the coarse grid.
        up: Resampling back to the grid, linear or cubic.
        max_factor: Largest factor; the paper's is 4.
        grid_shift: Shift of the coarse grid along x, y, z, in coarse voxels, from -1/2 to 1/2; at 0 it is
            centred on the volume (or patch).
    """

    kind = "resize"
    margin = 4
    voxel_mm: Triple
    down: Resampling
    up: Resampling
    max_factor: float = 4.0
    grid_shift: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxel_mm", triple("a resize's voxel_mm", self.voxel_mm, 0, MOST_MM))
        object.__setattr__(self, "grid_shift", triple("a resize's grid_shift", self.grid_shift, -0.5, 0.5))
        check("a resize's max_factor", self.max_factor, 1, 64)
        object.__setattr__(self, "down", Resampling(self.down))
        object.__setattr__(self, "up", Resampling(self.up))
        require(self.up is not Resampling.AREA, "a resize's way up is linear or cubic")

    def factors(self, spacing: Sequence[float]) -> Triple:
        """Factor along each axis for a volume of that spacing in mm."""
        x, y, z = (
            min(max(voxel / step, 1.0), self.max_factor)
            for voxel, step in zip(self.voxel_mm, spacing, strict=True)
        )
        return x, y, z

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Resizes and returns; see `resample_and_return`."""
        return resample_and_return(hu, self.factors(spacing), self.down, self.up, self.grid_shift)

    @classmethod
    def apply_each(cls, degradations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Resizes all volumes at once."""
        factors = [each.factors(spacing) for each, spacing in zip(degradations, spacings, strict=True)]
        ways = [(each.down, each.up) for each in degradations]
        return resample_and_return_each(hu, factors, ways, [each.grid_shift for each in degradations])

    def describe(self) -> str:
        """For example "voxels of 2 x 2 x 5 mm and back"."""
        return f"voxels of {by(self.voxel_mm)} mm and back"


def resample_and_return(
    hu: SpatialVolume,
    factors: Sequence[float],
    down: Resampling,
    up: Resampling,
    grid_shift: Sequence[float] = (0.0, 0.0, 0.0),
) -> SpatialVolume:
    """Resamples a volume to a coarser grid and back to its own.

    The coarse grid covers the volume and is centred on it, but for `grid_shift`; its voxels are `factor` fine
    voxels wide. No structure is shifted, whether or not the size is divisible by the factor.

    Args:
        hu: Volume `(x, y, z)`.
        factors: Coarse voxel size over fine voxel size along x, y, z; 1 or less leaves that axis.
        down: Resampling to the coarse grid.
        up: Resampling back; linear or cubic.
        grid_shift: Shift of the coarse grid along x, y, z, in coarse voxels, from -1/2 to 1/2.

    Returns:
        The volume with the detail of the coarse grid, on its own grid.

    Raises:
        ValueError: `up` is `Resampling.AREA`.
    """
    return resample_and_return_each(hu[None], [factors], [(down, up)], [grid_shift])[0]


def resample_and_return_each(
    hu: Tensor,
    factors: Sequence[Sequence[float]],
    ways: Sequence[tuple[Resampling, Resampling]],
    grid_shifts: Sequence[Sequence[float]],
) -> Tensor:
    """Resamples each volume of a batch to a coarser grid of its own and back; see `resample_and_return`.

    Args:
        hu: Volumes `(batch, x, y, z)`.
        factors: Factors of each volume along x, y, z.
        ways: Resampling of each volume, down and up.
        grid_shifts: Shifts of each volume's coarse grid along x, y, z.

    Raises:
        ValueError: A way up is `Resampling.AREA`.
    """
    if any(up is Resampling.AREA for _, up in ways):
        raise ValueError("the way back to the fine grid is linear or cubic, not area")
    for axis in range(3):
        length = hu.shape[axis + 1]
        chains = [
            there_and_back(length, factor[axis], *way, shift[axis]) if factor[axis] > 1 else ()
            for factor, way, shift in zip(factors, ways, grid_shifts, strict=True)
        ]
        hu = apply_taps(hu, axis, chains)
    return hu


def there_and_back(
    length: int, factor: float, down: Resampling, up: Resampling, shift: float = 0.0
) -> tuple[Taps, Taps]:
    """The operators to a coarse grid along an axis and back; see `resample_and_return`."""
    coarse_length, start = coarse_grid(length, factor, shift)
    lower_edges = start + factor * np.arange(coarse_length)
    if down is Resampling.AREA:
        to_coarse = area_taps(lower_edges, factor, length)
    else:
        to_coarse = interpolation_taps(lower_edges + (factor - 1) / 2, down, length)
    fine_centres = (np.arange(length) + 0.5 - start) / factor - 0.5
    return to_coarse, interpolation_taps(fine_centres, up, coarse_length)
