"""From the network's [0, 1] back to HU, with the input's HU kept where the scan truly leaves the window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter

from mpfnl.phases import ABDOMEN, Window

MARGIN_HU = 50.0
"""Over this many HU beyond the window's ends the output passes from enhanced to input."""

GUARD_HU = 0.01
"""The band ends this much earlier, so that the rounding of a mean over 27 voxels cannot matter."""

NOISE_LIMIT = 6.0
"""Noise does not throw a voxel further out of the window than this many of its standard deviations."""

BROAD_SIGMA, FINE_SIGMA = 2.0, 0.7  # voxels
BROAD_RADIUS, FINE_RADIUS = 8, 3  # 4 sigma
SLAB_VOXELS = 1 << 23
NOISE_SLICES = 64
NOISE_BIN_HU, NOISE_BINS = 0.25, 8192


def restore_hu(input_hu: NDArray[Any], enhanced_unit: NDArray[Any], window: Window = ABDOMEN) -> NDArray[Any]:
    """Maps an enhanced scan back to HU.

    Inside the window the output is the enhanced scan. Where the scan truly lies outside (bone, gas, metal,
    bright vessels) it is the input, unchanged; `enhanced_share` says how that is decided. The work goes in
    slabs along z, so that little memory is taken beside the result, which does not depend on the slabs.

    Args:
        input_hu: The input scan (x, y, z) in HU, integer or floating point, finite.
        enhanced_unit: The network's output (x, y, z) in [0, 1]; clipped to it.
        window: The HU window of the network.

    Returns:
        The enhanced scan (x, y, z) in HU, of the input's type (rounded for integers).

    Raises:
        ValueError: The shapes differ, or the network's output has NaN.
    """
    if input_hu.ndim != 3 or input_hu.shape != enhanced_unit.shape:
        raise ValueError(f"the input is {input_hu.shape}, the network's output {enhanced_unit.shape}")
    output = np.empty_like(input_hu)
    noise = noise_sd(input_hu, window)
    for slab in _slabs(input_hu.shape):
        share = enhanced_share(input_hu[:, :, slab.outer], noise, window)[:, :, slab.within]
        here = slab.inner
        output[:, :, here] = _blend(input_hu[:, :, here], enhanced_unit[:, :, here], share, window)
    return output


def enhanced_share(input_hu: NDArray[Any], noise: float, window: Window = ABDOMEN) -> NDArray[np.float32]:
    """The share of the enhanced scan in the output, from 0 (the input is kept) to 1.

    With m the mean over 3x3x3 voxels, b and f the input under Gaussians of 2 and 0.7 voxels, and a ramp that
    is 1 inside the window and falls to 0 over 50 HU beyond it:

    - where m is more than 50 HU outside the window, the share is 0;
    - else it is max(ramp(m), ramp(b)): a soft-tissue voxel thrown out by noise is inside under one of the
      two. Above the window ramp(b) fades out over the last 25 HU of the band, or else a vessel of 325 HU
      would be speckled where its noisy m crosses the band's end;
    - times max(ramp(f), ramp of the voxel itself with 6 standard deviations of the noise to spare): what
      noise cannot explain and what holds under slight smoothing, such as thin cortical bone, is kept.

    Args:
        input_hu: The input scan (x, y, z) in HU.
        noise: The standard deviation of its noise in HU, see `noise_sd`.
        window: The HU window of the network.

    Returns:
        Shares (x, y, z).
    """
    scan = input_hu.astype(np.float32)
    mean = _mean_of_27(scan)
    broad = gaussian_filter(scan, BROAD_SIGMA, mode="nearest", radius=BROAD_RADIUS)
    fine = gaussian_filter(scan, FINE_SIGMA, mode="nearest", radius=FINE_RADIUS)
    reach = MARGIN_HU - GUARD_HU
    fade = ((window.upper + reach - mean) / np.float32(MARGIN_HU / 2)).clip(0.0, 1.0)
    share = np.maximum(_ramp(mean, window), _ramp(broad, window) * fade)
    share *= np.maximum(_ramp(fine, window), _ramp(scan, window, NOISE_LIMIT * noise))
    share[(mean < window.lower - reach) | (mean > window.upper + reach)] = 0.0
    return np.asarray(share, dtype=np.float32)


def noise_sd(input_hu: NDArray[Any], window: Window = ABDOMEN) -> float:
    """A robust estimate of a scan's noise: its deviation from its mean over 3x3x3 voxels, within the window.

    The median of the absolute deviation over 0.6745, the standard deviation if the noise is Gaussian.
    Correlated noise is underestimated, because the mean follows it. About 64 slices spread over the scan are
    measured.

    Args:
        input_hu: The scan (x, y, z) in HU.
        window: Only voxels whose mean lies in this window count.

    Returns:
        The standard deviation in HU, to 0.2 HU; 0 where nothing lies in the window.
    """
    counts = np.zeros(NOISE_BINS, dtype=np.int64)
    for z in range(0, input_hu.shape[2], max(1, input_hu.shape[2] // NOISE_SLICES)):
        near = input_hu[:, :, max(0, z - 1) : z + 2].astype(np.float32)
        middle = min(z, 1)
        mean = _mean_of_27(near)[:, :, middle]
        deviation = np.abs(near[:, :, middle] - mean)[(mean > window.lower) & (mean < window.upper)]
        bins = np.minimum(deviation / NOISE_BIN_HU, NOISE_BINS - 1).astype(np.int64)
        counts += np.bincount(bins, minlength=NOISE_BINS)
    total = np.cumsum(counts)
    if not total[-1]:
        return 0.0
    return float(np.searchsorted(total, total[-1] / 2)) * NOISE_BIN_HU / 0.6745


@dataclass(frozen=True)
class _Slab:
    inner: slice  # the slices of the scan that it stands for
    outer: slice  # these and a halo
    within: slice  # where the first lie in the second


def _slabs(shape: tuple[int, ...]) -> Iterator[_Slab]:
    depth = shape[2]
    step = max(1, SLAB_VOXELS // max(1, shape[0] * shape[1]))
    for start in range(0, depth, step):
        stop = min(start + step, depth)
        low, high = max(0, start - BROAD_RADIUS), min(depth, stop + BROAD_RADIUS)
        yield _Slab(slice(start, stop), slice(low, high), slice(start - low, stop - low))


def _mean_of_27(scan: NDArray[np.float32]) -> NDArray[np.float32]:
    # SciPy's uniform_filter keeps a running sum, whose rounding depends on where a slab begins.
    for axis in range(3):
        scan = correlate1d(scan, (1.0, 1.0, 1.0), axis=axis, mode="nearest")
    return scan / np.float32(27.0)


def _ramp(hu: NDArray[np.float32], window: Window, spare: float = 0.0) -> NDArray[np.float32]:
    outside = np.maximum(window.lower - hu, hu - window.upper) - np.float32(spare)
    return np.asarray((1.0 - outside / np.float32(MARGIN_HU)).clip(0.0, 1.0), dtype=np.float32)


def _blend(
    input_hu: NDArray[Any], enhanced_unit: NDArray[Any], share: NDArray[np.float32], window: Window
) -> NDArray[Any]:
    if np.isnan(enhanced_unit).any():
        raise ValueError("the network's output has NaN")
    enhanced = window.denormalize(enhanced_unit.astype(np.float32).clip(0.0, 1.0))
    mixed = share * enhanced + (1.0 - share) * input_hu
    if input_hu.dtype.kind in "iu":
        mixed = np.rint(mixed)
    return np.where(share > 0.0, mixed.astype(input_hu.dtype), input_hu)
