"""Acquisition: voxel grid, point spread, slice profile, sampling after motion, correlated noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates, spline_filter

from mpfnl.phantoms.config import PhantomConfig, Range
from mpfnl.phantoms.texture import Array

KERNEL_MM = 1.05
"""Standard deviation in mm of the Gaussian that correlates the noise in the slice.

A soft-tissue kernel (B30 and its like): noise 1.6 mm apart correlates by about 0.56, 2.4 mm by 0.27,
3.2 mm by 0.1. Measured in the liver of one public portal venous scan: 0.4, 0.28, 0.16.
"""

_POINT_SPREAD_MM = 0.65  # in-plane resolution beyond the voxel, standard deviation
_SLICE_OVERLAP = 0.12  # noise shared between neighbouring slices
_FINEST_SLICE_MM = 3.0  # thicker slices are painted finer and averaged over the slice profile


@dataclass(frozen=True)
class Grid:
    """The scan's voxel centres, and the finer ones along z on which it is painted."""

    axes: tuple[Array, Array, Array]
    spacing: tuple[float, float, float]
    factor: int

    @classmethod
    def draw(cls, rng: np.random.Generator, config: PhantomConfig, half_width: float) -> Grid:
        """Draws the voxels and a field of view that suits the patient's `half_width` (mm)."""
        in_plane, thick = (
            round(uniform(rng, config.in_plane_mm), 3),
            round(uniform(rng, config.slice_mm), 2),
        )
        wide = float(np.clip(2 * half_width * rng.uniform(1.08, 1.2), *config.field_of_view_mm))
        tall = uniform(rng, config.coverage_mm)
        middle = (0.0, 0.0, 4 + 0.03 * tall + rng.uniform(-4, 4))
        spacing = (in_plane, in_plane, thick)
        sizes = (wide / in_plane, config.depth_fraction * wide / in_plane, tall / thick)
        counts = [max(8, round(n)) for n in sizes]
        x, y, z = (
            _f32((np.arange(n) - (n - 1) / 2) * s + m)
            for n, s, m in zip(counts, spacing, middle, strict=True)
        )
        return cls((x, y, z), spacing, math.ceil(thick / _FINEST_SLICE_MM - 1e-6))

    def fine(self, margin: float) -> tuple[tuple[Array, Array, Array], int]:
        """Axes with `factor` voxels a slice, `margin` mm longer at both ends; the first slice's index."""
        step = self.spacing[2] / self.factor
        extra = math.ceil(margin / step)
        count = (len(self.axes[2]) - 1) * self.factor + 1 + 2 * extra
        z = float(self.axes[2][0]) + (np.arange(count) - extra) * step
        return (self.axes[0], self.axes[1], _f32(z)), extra

    def affine(self, origin: NDArray[np.float64]) -> NDArray[np.float64]:
        """Affine from indices to RAS+ mm; `origin` is the patient's position in the scanner in mm."""
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = [round(float(a[0]) + o, 3) for a, o in zip(self.axes, origin, strict=True)]
        return affine


def blurred(clean: Array, spacing: tuple[float, float, float], factor: int) -> Array:
    """Point spread in plane, and the slice profile along z of slices `factor` voxels thick."""
    out = clean
    for axis in (0, 1):
        out = gaussian_filter1d(out, _POINT_SPREAD_MM / spacing[axis], axis=axis, mode="nearest")
    profile = 0.36 * factor  # standard deviation in fine voxels; full width at half maximum near the slice
    return np.asarray(gaussian_filter1d(out, profile, axis=2, mode="nearest"), dtype=np.float32)


def correlated_noise(rng: np.random.Generator, shape: tuple[int, int, int], in_plane_mm: float) -> Array:
    """Unit-variance noise, correlated within each slice as the kernel does, and slightly across."""
    white = rng.standard_normal(shape, dtype=np.float32)
    sigma = KERNEL_MM / in_plane_mm
    smooth = gaussian_filter(white, (sigma, sigma, 0), mode="wrap", truncate=3.5)
    across = smooth + np.float32(_SLICE_OVERLAP) * (np.roll(smooth, 1, axis=2) + np.roll(smooth, -1, axis=2))
    return np.asarray(across / across.std(), dtype=np.float32)


def noise_level(body_distance: Array, mean_sd: float) -> Array:
    """Noise SD in HU at each voxel: highest in the centre of the body, where rays are attenuated most."""
    depth = np.clip(-body_distance / 90, 0, 1)
    level = 0.72 + 0.5 * depth
    level = np.where(body_distance > 0, 0.55, level)
    inside = body_distance < 0
    if inside.any():
        level = level / level[inside].mean()
    return np.asarray(level * mean_sd, dtype=np.float32)


def source_indices(move: Array, grid: Grid, first: int) -> Array:
    """Position of each voxel's tissue in another phase, as indices of the fine grid (3, x, y, z)."""
    steps = (grid.spacing[0], grid.spacing[1], grid.spacing[2] / grid.factor)
    indices = np.empty_like(move)
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = -1
        scale, start = (grid.factor, first) if axis == 2 else (1, 0)
        index = np.arange(len(grid.axes[axis]), dtype=np.float32) * scale + start
        indices[axis] = move[axis] / np.float32(steps[axis]) + index.reshape(shape)
    return indices


def resampled(clean: Array, indices: Array) -> Array:
    """The noise-free image of one phase at indices of the fine grid."""
    smooth = spline_filter(clean, order=3, output=np.float32, mode="nearest")
    return np.asarray(
        map_coordinates(smooth, indices, order=3, mode="nearest", prefilter=False), dtype=np.float32
    )


def uniform(rng: np.random.Generator, limits: Range) -> float:
    """A uniform draw from a range."""
    return float(rng.uniform(*limits))


def _f32(values: NDArray[Any]) -> Array:
    return np.asarray(values, dtype=np.float32)
