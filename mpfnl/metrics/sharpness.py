"""Sharpness and noise of a scan against the clean one: gradient of the strongest edges, noise of flat tissue.

HU arrays `(x, y, z)`; NumPy and SciPy only. Each measure compares with a clean scan that is noisy itself:
`docs/evaluation.md` states what follows from that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.metrics.contrast import Mask, Scan, smoothed
from mpfnl.metrics.phase_leak import box_around

EDGE_SHARE = 0.05
"""Share of the body's voxels that count as strong edges: those of the largest gradient."""

EDGE_SMOOTHING_MM = 1.0
"""Standard deviation of the Gaussian filter before a gradient is taken, in mm."""

GAUSSIAN_MAD = 1.4826
"""Standard deviation of a normal distribution as a multiple of its median absolute deviation."""

HIGH_PASS_MM = 2.0
"""Standard deviation of the Gaussian filter whose result is subtracted to leave the noise, in mm."""


@dataclass(frozen=True, eq=False)
class Edges:
    """Strong edges of the clean scan; found once, and measured in every scan of the study.

    Args:
        places: Indices of the edges' voxels along x, y and z.
        normals: Direction of the clean scan's gradient at each of them, `(3, edges)`.
        slope: Median gradient of the clean scan along the normals in HU per mm.
        spacing: Voxel size in mm.
    """

    places: tuple[NDArray[np.intp], ...]
    normals: NDArray[np.float32]
    slope: float
    spacing: tuple[float, ...]

    @staticmethod
    def find(reference: Scan, spacing: Sequence[float], region: Mask, share: float = EDGE_SHARE) -> Edges:
        """Finds the strong edges of a clean scan inside a region, the outermost voxels of the grid left out.

        Args:
            reference: HU of the clean scan.
            spacing: Voxel size in mm.
            region: Mask in which edges are sought.
            share: Share of the region's voxels that count as edges.

        Raises:
            ValueError: The region holds no voxel inside of the grid, or the clean scan has no edge in it.
        """
        inner = np.zeros(region.shape, dtype=bool)
        inner[1:-1, 1:-1, 1:-1] = region[1:-1, 1:-1, 1:-1]
        places = np.nonzero(inner)
        if not places[0].size:
            raise ValueError("the region holds no voxel inside of the grid")
        gradient = _gradient(smoothed(reference, spacing, EDGE_SMOOTHING_MM), places, spacing)
        magnitude = np.sqrt(np.sum(gradient * gradient, axis=0))
        count = max(1, round(share * magnitude.size))
        chosen = magnitude >= max(np.partition(magnitude, -count)[-count], np.float32(1e-6))
        if not chosen.any():
            raise ValueError("the clean scan has no edge in the region")
        return Edges(
            tuple(axis[chosen] for axis in places),
            gradient[:, chosen] / magnitude[chosen],
            float(np.median(magnitude[chosen])),
            tuple(spacing),
        )

    def ratio(self, image: Scan) -> float:
        """Median gradient of an image along the normals, as a fraction of the clean scan's."""
        gradient = _gradient(smoothed(image, self.spacing, EDGE_SMOOTHING_MM), self.places, self.spacing)
        return float(np.median(np.sum(gradient * self.normals, axis=0))) / self.slope


def edge_gradient_ratio(
    image: Scan, reference: Scan, spacing: Sequence[float], region: Mask, share: float = EDGE_SHARE
) -> float:
    """Sharpness of the edges: gradient along the clean scan's strongest edges, image over reference.

    The gradient of both, smoothed by 1 mm, is taken in the direction of the clean scan's gradient; the ratio
    is that of the medians over the steepest 5 % of the region. 1 is as sharp as the clean scan, below 1 is
    blurred, above 1 over-sharpened. An edge is steepest where the clean scan's noise adds to it: an equally
    sharp scan with other noise has a little less than 1.

    Args:
        image: HU (x, y, z).
        reference: HU of the clean scan.
        spacing: Voxel size in mm.
        region: Mask of the body.
        share: Share of the region's voxels that count as edges.

    Raises:
        ValueError: The shapes differ, the region is empty, or the clean scan has no edge in it.

    >>> ramp = np.broadcast_to(np.arange(9.0)[:, None, None] * 20, (9, 9, 9))
    >>> round(edge_gradient_ratio(0.5 * ramp + 30, ramp, (1.0, 1.0, 1.0), np.ones((9, 9, 9), dtype=bool)), 3)
    0.5
    """
    if not image.shape == reference.shape == region.shape:
        raise ValueError(f"the shapes differ: {image.shape}, {reference.shape}, {region.shape}")
    return Edges.find(reference, spacing, region, share).ratio(image)


def noise_sd(image: Scan, spacing: Sequence[float], region: Mask) -> float:
    """Noise in HU: standard deviation of the image minus itself smoothed in its slices, over a region.

    The Gaussian filter has 2 mm, and at least one voxel; structures larger than that do not count. The
    standard deviation is 1.4826 times the median absolute deviation, which a few edges do not change.

    Args:
        image: HU (x, y, z).
        spacing: Voxel size in mm.
        region: Mask of homogeneous tissue.

    Raises:
        ValueError: The region is empty.

    >>> noise = np.random.default_rng(0).normal(0, 10, (40, 40, 4))
    >>> round(noise_sd(noise, (1.0, 1.0, 1.0), np.ones(noise.shape, dtype=bool)))
    10
    """
    if not region.any():
        raise ValueError("the region is empty")
    box = box_around(region, spacing, 4 * HIGH_PASS_MM)
    part = image[box].astype(np.float32)
    sigma = [max(1.0, HIGH_PASS_MM / step) for step in spacing[:2]]
    high = part - ndimage.gaussian_filter(part, [*sigma, 0], truncate=3.0)
    values = high[region[box]]
    return GAUSSIAN_MAD * float(np.median(np.abs(values - np.median(values))))


def noise_ratio(image: Scan, reference: Scan, spacing: Sequence[float], region: Mask) -> float:
    """Noise of an image as a fraction of the clean scan's: 1 is alike, far below 1 looks like plastic.

    Args:
        image: HU (x, y, z).
        reference: HU of the clean scan.
        spacing: Voxel size in mm.
        region: Mask of homogeneous tissue, see `flat_tissue`.

    Returns:
        The ratio; NaN if the clean scan has no noise.

    Raises:
        ValueError: The region is empty.

    >>> noise = np.random.default_rng(0).normal(0, 10, (20, 20, 4))
    >>> round(noise_ratio(noise / 2 + 60, noise, (1.0, 1.0, 1.0), np.ones(noise.shape, dtype=bool)), 3)
    0.5
    """
    clean = noise_sd(reference, spacing, region)
    return noise_sd(image, spacing, region) / clean if clean > 0 else math.nan


def flat_tissue(
    reference: Scan, spacing: Sequence[float], body: Mask, bounds_hu: tuple[float, float] = (0.0, 200.0)
) -> Mask:
    """Homogeneous soft tissue, found without a mask of an organ.

    The half of the soft tissue in which the smoothed clean scan is flattest.

    Args:
        reference: HU of the clean scan.
        spacing: Voxel size in mm.
        body: Mask of the body.
        bounds_hu: Ends of the soft tissue in HU.

    Returns:
        Mask; empty if there is no soft tissue.

    >>> int(flat_tissue(np.full((6, 6, 6), 60.0), (1.0, 1.0, 1.0), np.ones((6, 6, 6), dtype=bool)).sum())
    64
    """
    smooth = smoothed(reference, spacing, HIGH_PASS_MM)
    soft = np.zeros(body.shape, dtype=bool)
    inner = (slice(1, -1),) * 3
    soft[inner] = body[inner] & (smooth[inner] > bounds_hu[0]) & (smooth[inner] < bounds_hu[1])
    places = np.nonzero(soft)
    if places[0].size:
        steepness = np.sum(_gradient(smooth, places, spacing) ** 2, axis=0)
        soft[places] = steepness <= np.median(steepness)
    return soft


def _gradient(
    hu: NDArray[np.float32], places: tuple[NDArray[np.intp], ...], spacing: Sequence[float]
) -> NDArray[np.float32]:
    """Central differences in HU per mm at some voxels, `(3, places)`."""
    slopes = []
    for axis, step in enumerate(spacing):
        before, after = list(places), list(places)
        before[axis], after[axis] = places[axis] - 1, places[axis] + 1
        slopes.append((hu[tuple(after)] - hu[tuple(before)]) / np.float32(2 * step))
    return np.stack(slopes)
