"""How well two scans agree, and what a displacement does to volumes: functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Scan = NDArray[np.float32]
Mask = NDArray[np.bool_]

WINDOW_HU = (-200.0, 300.0)
"""What is compared: soft tissue, with air and dense bone clipped."""

BINS = 64
"""Of each scan's histogram, 7.8 HU each."""

STRUCTURE_HU = 20.0
"""Standard deviation in a neighbourhood from which on it shows structure: noise at 4 mm stays below 8."""

MATCHING = 0.5
"""Squared correlation from which on two neighbourhoods show the same structure."""


def normalized_mutual_information(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Studholme's (Pattern Recognition, 1999): (H(A) + H(B)) / H(A, B), from 1 (none) to 2 (all).

    Args:
        first: HU, any shape.
        second: HU of the same places.

    Returns:
        NaN where there is nothing to compare, or nothing but one value.
    """
    a, b = (np.clip(np.ravel(scan), *WINDOW_HU) for scan in (first, second))
    counts = np.histogram2d(a, b, bins=BINS, range=[WINDOW_HU, WINDOW_HU])[0]
    joint = _entropy(counts.ravel())
    if joint == 0:
        return float("nan")
    return (_entropy(counts.sum(axis=0)) + _entropy(counts.sum(axis=1))) / joint


def mismatch(first: Scan, second: Scan, where: Mask) -> float:
    """Share of the neighbourhoods with structure that show another structure in the other scan.

    A neighbourhood is a voxel with its 26 neighbours. It shows structure where HU vary by 20 or more
    (standard deviation) in either scan. Its structure is the same where the squared correlation of both is at
    least 0.5: whatever contrast medium makes of two tissues, brighter or darker, their border stays in place.

    Args:
        first: HU, (x, y, z).
        second: HU on the same grid.
        where: What is looked at.

    Returns:
        From 0 to 1; NaN where no structure is seen.
    """
    a, b = (np.clip(scan, *WINDOW_HU).astype(np.float64) for scan in (first, second))
    mean_a, mean_b = _around(a), _around(b)
    variance_a = np.maximum(_around(a * a) - mean_a**2, 0)
    variance_b = np.maximum(_around(b * b) - mean_b**2, 0)
    covariance = _around(a * b) - mean_a * mean_b
    structured = where & (np.maximum(variance_a, variance_b) >= STRUCTURE_HU**2)
    if not structured.any():
        return float("nan")
    # one HU squared added: where one scan is flat there is no correlation, and nothing is divided by zero
    squared = covariance**2 / ((variance_a + 1) * (variance_b + 1))
    return float(np.mean(squared[structured] < MATCHING))


def jacobian(displacement: Scan, spacing: Sequence[float]) -> NDArray[np.float64]:
    """By what factor volumes change: the determinant of the derivative of x + u(x); folded where negative.

    Args:
        displacement: u in mm, (3, x, y, z).
        spacing: Voxel size in mm; nothing changes along an axis of one voxel.
    """
    u = displacement.astype(np.float64)
    slopes = [[_slope(u[i], j, spacing[j]) for j in range(3)] for i in range(3)]
    matrices = np.moveaxis(np.array(slopes), (0, 1), (-2, -1)) + np.eye(3)
    return np.asarray(np.linalg.det(matrices))


def inside(mask: Mask, depth_mm: float, spacing: Sequence[float], beyond: bool) -> Mask:
    """The part of a mask that lies deeper than this under its surface.

    Args:
        mask: (x, y, z).
        depth_mm: How deep.
        spacing: Voxel size in mm.
        beyond: Whether the mask is taken to go on beyond the grid.
    """
    known = mask if beyond else np.pad(mask, 1)
    if known.all():
        return known
    deep = ndimage.distance_transform_edt(known, sampling=spacing) > depth_mm  # no bound at the array's ends
    return np.asarray(deep if beyond else deep[1:-1, 1:-1, 1:-1])


def _entropy(counts: NDArray[np.float64]) -> float:
    some = counts[counts > 0]
    if len(some) < 2:
        return 0.0
    shares = some / some.sum()
    return float(-(shares * np.log(shares)).sum())


def _around(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(ndimage.uniform_filter(values, 3))


def _slope(values: NDArray[np.float64], axis: int, step: float) -> NDArray[np.float64]:
    if values.shape[axis] < 2:
        return np.zeros_like(values)
    return np.asarray(np.gradient(values, step, axis=axis))
