"""Gaussian blur and resampling along the axes of a volume, in physical units.

Every operator is a sum of shifted copies: an addition and a multiplication at a time, never a
fused one. The result is therefore the same bit by bit for any number of threads, whatever
precision the caller has set for matrix products and convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mpfnl.phases import SpatialVolume

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""The full width at half maximum of a Gaussian of standard deviation 1."""

TRUNCATION = 4.0
"""A Gaussian kernel ends after this many standard deviations (6e-5 of its mass is left out)."""

_BLOCK_ELEMENTS = 2**17  # a block of columns and its intermediates stay in the cache of one core


class Interpolation(StrEnum):
    """How a volume is brought to a coarser grid, or back from it."""

    AREA = "area"
    """The mean over the coarse voxel: partial volume, as a scanner's own voxels have it."""
    LINEAR = "linear"
    """Linear between the two nearest samples; not smoothed first, so noise keeps its strength."""
    CUBIC = "cubic"
    """Keys' cubic convolution (a = -1/2) of four samples; not smoothed first."""


@dataclass(frozen=True)
class Taps:
    """A linear operator along one axis: output `i` is the sum of `weights[k, i] * input[indices[k, i]]`."""

    indices: Tensor
    weights: Tensor


def gaussian_kernel(sigma: float) -> tuple[float, ...]:
    """The right half of a normalised, sampled Gaussian.

    Args:
        sigma: Standard deviation in voxels, 0 or more.

    Returns:
        The weights at offsets 0, 1, ..., r with r = int(4 sigma + 1/2); `(1.0,)` for sigma 0.
    """
    radius = int(TRUNCATION * sigma + 0.5)
    if radius == 0:
        return (1.0,)
    raw = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(radius + 1)]
    total = raw[0] + 2 * sum(raw[1:])
    return tuple(weight / total for weight in raw)


def gaussian_blur(hu: SpatialVolume, spacing: Sequence[float], fwhm_mm: Sequence[float]) -> SpatialVolume:
    """Blurs with a Gaussian aligned to the axes; beyond the border the nearest voxel continues.

    Args:
        hu: Volume `(x, y, z)`.
        spacing: Voxel spacing in mm along x, y, z.
        fwhm_mm: Full width at half maximum in mm along x, y, z; 0 leaves that axis as it is.

    Returns:
        The blurred volume, on the same grid.
    """
    for axis in range(3):
        kernel = gaussian_kernel(fwhm_mm[axis] / FWHM_PER_SIGMA / spacing[axis])
        if len(kernel) > 1:
            hu = along_axis(hu, axis, partial(_convolve_replicated, kernel=kernel))
    return hu


def convolve_valid(volume: SpatialVolume, axis: int, kernel: Sequence[float]) -> Tensor:
    """Convolves one axis with a symmetric kernel, only where the kernel fits.

    Args:
        volume: Volume `(x, y, z)`.
        axis: 0, 1 or 2.
        kernel: The right half of the kernel, r + 1 weights.

    Returns:
        A volume that is 2 r shorter along `axis`.
    """
    return along_axis(volume, axis, partial(_convolve, kernel=kernel))


def resample_and_return(
    hu: SpatialVolume,
    factors: Sequence[float],
    down: Interpolation,
    up: Interpolation,
) -> SpatialVolume:
    """Takes a volume to a coarser grid and back to its own.

    The coarse grid is centred on the volume and covers it; its voxels are `factor` fine voxels
    wide. No structure is shifted, whether or not the size is divisible by the factor.

    Args:
        hu: Volume `(x, y, z)`.
        factors: Coarse voxel size over fine voxel size along x, y, z; 1 or less leaves that axis.
        down: The way to the coarse grid.
        up: The way back; linear or cubic.

    Returns:
        The volume with the detail of the coarse grid, on its own grid.

    Raises:
        ValueError: `up` is `Interpolation.AREA`.
    """
    if up is Interpolation.AREA:
        raise ValueError("the way back to the fine grid is linear or cubic, not area")
    for axis in range(3):
        if factors[axis] > 1:
            there_and_back = _resampling_taps(hu.shape[axis], factors[axis], down, up)
            hu = along_axis(hu, axis, partial(_apply_all, operators=there_and_back))
    return hu


def along_axis(volume: Tensor, axis: int, operator: Callable[[Tensor], Tensor]) -> Tensor:
    """Applies `operator`, which maps `(n, columns)` to `(m, columns)`, along one axis of a volume."""
    front = volume.movedim(axis, 0)
    flat = front.reshape(front.shape[0], -1)
    columns = max(1, _BLOCK_ELEMENTS // front.shape[0]) if volume.device.type == "cpu" else flat.shape[1]
    blocks = [operator(block) for block in flat.split(columns, dim=1)]
    result = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)
    return result.reshape(-1, *front.shape[1:]).movedim(0, axis)


def _convolve_replicated(block: Tensor, kernel: Sequence[float]) -> Tensor:
    margin = len(kernel) - 1
    first, last = block[:1].expand(margin, -1), block[-1:].expand(margin, -1)
    return _convolve(torch.cat([first, block, last]), kernel)


def _convolve(padded: Tensor, kernel: Sequence[float]) -> Tensor:
    radius = len(kernel) - 1
    length = padded.shape[0] - 2 * radius
    total = padded.narrow(0, radius, length) * kernel[0]
    for offset in range(1, radius + 1):
        pair = padded.narrow(0, radius - offset, length) + padded.narrow(0, radius + offset, length)
        total += pair.mul_(kernel[offset])
    return total


def _apply_all(block: Tensor, operators: Sequence[Taps]) -> Tensor:
    for taps in operators:
        block = _apply(taps, block)
    return block


def _apply(taps: Taps, block: Tensor) -> Tensor:
    indices, weights = taps.indices.to(block.device), taps.weights.to(block)
    total = block.index_select(0, indices[0]) * weights[0, :, None]
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        total += block.index_select(0, index).mul_(weight[:, None])
    return total


def _resampling_taps(length: int, factor: float, down: Interpolation, up: Interpolation) -> tuple[Taps, Taps]:
    coarse_length = max(1, math.ceil(length / factor - 1e-6))
    start = (length - coarse_length * factor) / 2  # the left edge of the coarse grid, in fine voxels
    lower_edges = start + factor * np.arange(coarse_length)
    if down is Interpolation.AREA:
        to_coarse = _area_taps(lower_edges, factor, length)
    else:
        to_coarse = _interpolation_taps(lower_edges + (factor - 1) / 2, down, length)
    fine_centres = (np.arange(length) + 0.5 - start) / factor - 0.5
    return to_coarse, _interpolation_taps(fine_centres, up, coarse_length)


def _area_taps(lower_edges: np.ndarray, width: float, length: int) -> Taps:
    first = np.floor(lower_edges)
    voxels = first + np.arange(math.ceil(width) + 1)[:, None]
    overlap = np.minimum(voxels + 1, lower_edges + width) - np.maximum(voxels, lower_edges)
    return _taps(voxels, overlap.clip(0) / width, length)


def _interpolation_taps(positions: np.ndarray, kind: Interpolation, length: int) -> Taps:
    first = np.floor(positions)
    t = positions - first
    if kind is Interpolation.LINEAR:
        return _taps(np.stack([first, first + 1]), np.stack([1 - t, t]), length)
    weights = [
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    ]
    return _taps(first + np.arange(-1, 3)[:, None], np.stack(weights), length)


def _taps(voxels: np.ndarray, weights: np.ndarray, length: int) -> Taps:
    indices = voxels.astype(np.int64).clip(0, length - 1)
    return Taps(torch.from_numpy(indices), torch.from_numpy(weights.astype(np.float32)))
