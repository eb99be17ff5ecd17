"""Map of the noise of a reconstruction, from the attenuation of the body along rays in all directions.

A coarse parallel-beam projector, in float64 on the CPU. See `low_dose` for the model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.resampling import Resampling, Taps, area_taps, interpolation_taps
from mpfnl.window import BODY_HU

MU_WATER_PER_MM = 0.0194
"""Attenuation of water in 1/mm at 70 keV, about the mean energy of a 120 kV beam (NIST XCOM)."""

_PIXEL_MM = 6.0
_MOST_PIXELS = 64
_ANGLES = tuple(math.pi * index / 32 for index in range(32))  # of the detector to the x axis

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class NoiseMaps:
    """Relative standard deviations of the noise of a volume; each `(x, y, z)`, float32.

    Args:
        every: Noise from all angles alike; its RMS over the body is 1 in each slice.
        along_x: Noise that varies along x: the angles weigh 2 cos^2, most with the detector along x.
        along_y: Noise that varies along y, with 2 sin^2: `along_x^2 + along_y^2 = 2 every^2`.
    """

    every: Tensor
    along_x: Tensor
    along_y: Tensor


def relative_noise(hu: SpatialVolume, spacing: Sequence[float]) -> SpatialVolume:
    """The standard deviation of quantum noise in each voxel, relative to the body's.

    The variance is the mean over all angles of exp(p), p the line integral of the attenuation through the
    voxel; scaled to a mean of 1 over the body (above `BODY_HU`) in each slice. A slice without body gets 1.

    Args:
        hu: Volume `(x, y, z)` in HU, slices across z.
        spacing: Voxel spacing in mm along x, y, z.

    Returns:
        A float32 volume of the same shape, on the same device.
    """
    variance, _ = _slice_variances(hu, spacing)
    return _to_grid(np.sqrt(variance), hu)


def noise_maps(hu: SpatialVolume, spacing: Sequence[float]) -> NoiseMaps:
    """The map of `relative_noise`, and those of its two directions.

    Args:
        hu: Volume `(x, y, z)` in HU, slices across z.
        spacing: Voxel spacing in mm along x, y, z.
    """
    variance, difference = _slice_variances(hu, spacing)
    variances = (variance, variance + difference, variance - difference)
    return NoiseMaps(*(_to_grid(np.sqrt(each), hu) for each in variances))


def _slice_variances(hu: SpatialVolume, spacing: Sequence[float]) -> tuple[Floats, Floats]:
    """The mean over angles of exp(p), and of exp(p) cos(2 angle): `(coarse x, coarse y, z)`."""
    shape, pixel_mm = _coarse_grid(hu.shape, spacing)
    coarse = _coarse_slices(hu, shape)
    attenuation = (MU_WATER_PER_MM * (1 + coarse / 1000)).clip(0).reshape(-1, hu.shape[2])
    body = coarse.reshape(attenuation.shape) > BODY_HU
    variance, difference = _back_projected(attenuation, shape, pixel_mm)
    count = body.sum(0)
    level = np.where(body, variance, 0).sum(0) / count.clip(1)
    variance = np.where(count > 0, variance / np.where(count > 0, level, 1), 1.0)
    difference = np.where(count > 0, difference / np.where(count > 0, level, 1), 0.0)
    return variance.reshape(coarse.shape), difference.reshape(coarse.shape)


def _coarse_grid(
    size: Sequence[int], spacing: Sequence[float]
) -> tuple[tuple[int, int], tuple[float, float]]:
    """The number of coarse pixels and their sizes in mm; whole pixels cover the slice."""
    extents = [size[axis] * spacing[axis] for axis in (0, 1)]
    pixel = max(_PIXEL_MM, max(extents) / _MOST_PIXELS, spacing[0], spacing[1])
    nx, ny = (max(1, round(extent / pixel)) for extent in extents)
    return (nx, ny), (extents[0] / nx, extents[1] / ny)


def _coarse_slices(hu: SpatialVolume, shape: tuple[int, int]) -> Floats:
    coarse = hu.clamp(min=-1000.0)  # beyond the scan's circle some scanners write far lower values
    for axis, count in enumerate(shape):
        width = hu.shape[axis] / count
        taps = area_taps(width * np.arange(count), width, hu.shape[axis])
        coarse = _applied(taps, coarse, axis)
    return coarse.cpu().numpy().astype(np.float64)


def _to_grid(coarse: Floats, like: SpatialVolume) -> Tensor:
    fine = torch.from_numpy(coarse.astype(np.float32)).to(like.device)
    for axis in (1, 0):  # the axis with the longest rows last
        count, size = coarse.shape[axis], like.shape[axis]
        centres = (np.arange(size) + 0.5) * (count / size) - 0.5
        taps = interpolation_taps(centres, Resampling.LINEAR, count)
        fine = _applied(taps, fine, axis)
    return fine


def _applied(taps: Taps, volume: Tensor, axis: int) -> Tensor:
    indices, weights = taps.indices.to(volume.device), taps.weights.to(volume)
    shape = [-1 if axis == each else 1 for each in range(volume.ndim)]
    total = volume.index_select(axis, indices[0]).mul_(weights[0].view(shape))
    for index, weight in zip(indices[1:], weights[1:], strict=True):
        total += volume.index_select(axis, index).mul_(weight.view(shape))
    return total


def _back_projected(
    attenuation: Floats, shape: tuple[int, int], pixel_mm: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Sums over the angles, up to one factor a slice: exp(p) would overflow behind metal."""
    projector = _projector(shape, pixel_mm)
    flat = projector.lines @ attenuation
    integrals = (flat - flat.max(0)).reshape(len(_ANGLES), -1, attenuation.shape[1])
    total, difference = np.zeros_like(attenuation), np.zeros_like(attenuation)
    for index, angle in enumerate(_ANGLES):
        bins, fraction = projector.bins[index], projector.fractions[index][:, None]
        through = integrals[index][bins] * (1 - fraction) + integrals[index][bins + 1] * fraction
        variance = np.exp(through)
        total += variance
        difference += variance * math.cos(2 * angle)
    return total, difference


@dataclass(frozen=True)
class _Projector:
    """Parallel rays through the coarse pixels.

    Args:
        lines: `(angle * bin, pixel)`: the length in mm of each ray in each pixel.
        bins: `(angle, pixel)`: the detector bin left of each pixel's projection.
        fractions: `(angle, pixel)`: its distance from that bin, in bins.
    """

    lines: sparse.csr_array
    bins: NDArray[np.int64]
    fractions: Floats


@lru_cache(maxsize=8)
def _projector(shape: tuple[int, int], pixel_mm: tuple[float, float]) -> _Projector:
    x, y = (_centres(count, pixel) for count, pixel in zip(shape, pixel_mm, strict=True))
    step = min(pixel_mm)
    half = math.ceil(math.hypot(x[-1], y[-1]) / step) + 1
    detector = step * np.arange(-half, half + 1, dtype=np.float64)
    rays = [_rays(angle, detector, (x, y), pixel_mm) for angle in _ANGLES]
    lengths, places, pixels = (np.concatenate(each) for each in zip(*rays, strict=True))
    places += np.repeat(np.arange(len(rays)) * len(detector), [len(each[0]) for each in rays])
    size = (len(rays) * len(detector), len(x) * len(y))
    lines = sparse.csr_array((lengths, (places, pixels)), shape=size)
    offsets = (np.add.outer(x * math.cos(angle), y * math.sin(angle)).ravel() for angle in _ANGLES)
    hits = np.stack(list(offsets)) / step + half
    bins = np.floor(hits).astype(np.int64)
    return _Projector(lines, bins, hits - bins)


def _centres(count: int, pixel_mm: float) -> Floats:
    return pixel_mm * (np.arange(count, dtype=np.float64) - (count - 1) / 2)


def _rays(
    angle: float, detector: Floats, centres: tuple[Floats, Floats], pixel_mm: tuple[float, float]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """The rays x cos + y sin = s for each s of the detector, after Joseph (IEEE TMI 1982).

    A ray takes one sample in each row of pixels that it crosses steeply, interpolated linearly in that row.

    Returns:
        Lengths in mm, the detector bins and the pixels that they belong to.
    """
    direction = (math.cos(angle), math.sin(angle))
    row = 1 if abs(direction[0]) >= abs(direction[1]) else 0  # the axis along which the rays advance
    across = 1 - row
    shape = [len(centre) for centre in centres]
    crossing = (detector[:, None] - centres[row] * direction[row]) / direction[across]
    position = crossing / pixel_mm[across] + (shape[across] - 1) / 2
    left = np.floor(position)
    place, rank = np.indices(position.shape)
    neighbours = np.stack([left, left + 1]).astype(np.int64)
    weights = np.stack([left + 1 - position, position - left]) * (pixel_mm[row] / abs(direction[across]))
    inside = (neighbours >= 0) & (neighbours < shape[across])
    pixels = neighbours + rank * shape[1] if row == 0 else neighbours * shape[1] + rank
    places = np.broadcast_to(place, inside.shape)
    return weights[inside], places[inside], pixels[inside]
