"""The scanner's part: point spread, slice profile, correlated noise."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from mpfnl.phantoms.fields import Array

KERNEL_MM = 1.05
"""Standard deviation in mm of the Gaussian that correlates the noise in the slice.

A soft-tissue kernel (B30 and its like): noise 1.6 mm apart correlates by about 0.56, 2.4 mm by 0.27,
3.2 mm by 0.1. Measured in the liver of one public portal venous scan: 0.4, 0.28, 0.16.
"""

_POINT_SPREAD_MM = 0.65  # in-plane resolution beyond the voxel, standard deviation
_SLICE_OVERLAP = 0.12  # noise shared between neighbouring slices


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
    """Standard deviation in HU at each voxel: more in the middle of the body, whose rays lose most."""
    depth = np.clip(-body_distance / 90, 0, 1)
    level = 0.72 + 0.5 * depth
    level = np.where(body_distance > 0, 0.55, level)
    inside = body_distance < 0
    if inside.any():
        level = level / level[inside].mean()
    return np.asarray(level * mean_sd, dtype=np.float32)
