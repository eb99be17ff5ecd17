"""Network output in [0, 1] back in HU; the input's HU where the scan truly lies outside of the window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter
from torch.nn import functional

from mpfnl.window import Window

MARGIN_HU = 50.0
"""Width in HU of the transition from enhanced to input beyond each end of the window."""

GUARD_HU = 0.01
"""Reduction of that width, so that the rounding of a mean over 27 voxels cannot matter."""

NOISE_LIMIT = 6.0
"""Largest deviation of a voxel that counts as noise, in standard deviations."""

BROAD_SIGMA, FINE_SIGMA = 2.0, 0.7  # voxels
BROAD_RADIUS, FINE_RADIUS = 8, 3  # 4 sigma
REACH = BROAD_RADIUS + 1
"""Slices on either side of a slab that its result depends on; the last one for finer output grids only."""

SLAB_VOXELS = 1 << 23

BYTES_PER_VOXEL = 42
"""Measured memory per voxel of a slab and its margin during the conversion; int16 or float32 HU."""

FINER_BYTES_PER_VOXEL = 28
"""Additional memory per voxel of a result on a finer grid: input, share and blend."""

NOISE_SLICES = 64  # measured at most
NOISE_BIN_HU, NOISE_BINS = 0.25, 8192

ReadSlices: TypeAlias = Callable[[int, int], NDArray[Any]]
"""Reads slices `(x, y, stop - start)` of the input scan in HU, given start and stop."""


def restore_hu(input_hu: NDArray[Any], enhanced_unit: NDArray[Any], window: Window) -> NDArray[Any]:
    """Maps an enhanced scan back to HU.

    Inside the window the output is the enhanced scan. Where the scan truly lies outside of it (bone, gas,
    metal, bright vessels) the output is the input, unchanged; see `enhanced_share`. The scan is processed in
    slabs along z to save memory; the result does not depend on the slabs.

    Args:
        input_hu: Input scan (x, y, z) in HU, integer or floating point, finite.
        enhanced_unit: Network output (x, y, z); clipped to [0, 1]. Its grid may be finer by a whole number
            along all axes: then the input and its share are interpolated linearly.
        window: HU window of the network.

    Returns:
        Enhanced scan (x, y, z) in HU, of the output's shape and the input's type (rounded for integers).

    Raises:
        ValueError: If the shapes do not fit or the network output has NaN.

    >>> scan = np.full((4, 4, 4), 60, np.int16)
    >>> restore_hu(scan, np.full((4, 4, 4), 0.6, np.float32), Window(level=60, width=150))[0, 0, 0]
    np.int16(75)
    """
    scale = max(1, enhanced_unit.shape[0] // input_hu.shape[0]) if input_hu.ndim == 3 else 0
    if tuple(scale * side for side in input_hu.shape) != enhanced_unit.shape:
        raise ValueError(f"the input has shape {input_hu.shape}, the network output {enhanced_unit.shape}")
    output = np.empty_like(input_hu, shape=enhanced_unit.shape)
    restorer = Restorer(input_hu.shape, noise_sd(input_hu, window), window, scale=scale)
    for start, slab in restorer.slabs(lambda first, stop: input_hu[:, :, first:stop], 0, enhanced_unit):
        output[:, :, start : start + slab.shape[2]] = slab
    return output


@dataclass(frozen=True)
class Restorer:
    """Maps slabs of an enhanced scan back to HU, with the same result as `restore_hu` for the whole.

    Args:
        shape: Shape (x, y, z) of the whole input scan.
        noise: Standard deviation of the input's noise in HU, see `noise_sd`.
        window: HU window of the network.
        slices: Input slices per step; as many as give 8 million voxels if None.
        scale: Factor by which the result's grid is finer.
        strength: Share of the enhanced scan in the result, 0 to 1; the rest is the input.
    """

    shape: tuple[int, ...]
    noise: float
    window: Window
    slices: int | None = None
    scale: int = 1
    strength: float = 1.0

    @property
    def step(self) -> int:
        """Input slices per step."""
        return self.slices or slices_per_step(self.shape, self.scale)

    def slabs(
        self, read: ReadSlices, first: int, enhanced_unit: NDArray[Any]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Converts a slab in steps.

        Args:
            read: Reader of the input's slices; asked for at most `REACH` slices beyond the slab on either
                side.
            first: First slice of the slab on the result's grid; a multiple of `scale`, as is its length.
            enhanced_unit: Network output of the slab, `(x, y, n)` in [0, 1].

        Yields:
            First slice of each part on the result's grid, and the part in HU, of the input's type.

        Raises:
            ValueError: If the network output has NaN.
        """
        scale = self.scale
        end = (first + enhanced_unit.shape[2]) // scale
        for start in range(first // scale, end, self.step):
            stop = min(start + self.step, end)
            scan, share, dtype = self._input(read, start, stop)
            unit = enhanced_unit[:, :, scale * start - first : scale * stop - first]
            yield scale * start, _blend(scan, unit, share, self.window, dtype)

    def _input(
        self, read: ReadSlices, start: int, stop: int
    ) -> tuple[NDArray[Any], NDArray[np.float32], np.dtype[Any]]:
        """Input slices in HU and the share of the enhanced scan, on the result's grid; the input's type."""
        finer, depth = self.scale > 1, self.shape[2]
        low, high = max(0, start - finer), min(depth, stop + finer)  # neighbours for the interpolation
        before, after = max(0, low - BROAD_RADIUS), min(depth, high + BROAD_RADIUS)
        near, within = read(before, after), slice(low - before, high - before)
        share = enhanced_share(near, self.noise, self.window)[:, :, within] * np.float32(self.strength)
        scan = near[:, :, within]
        if not finer:
            return scan, share, near.dtype
        cut = slice(self.scale * (start - low), self.scale * (stop - low))
        scan, share = (_interpolated(each, self.scale)[:, :, cut] for each in (scan, share))
        return _as(near.dtype, scan), share, near.dtype


def slices_per_step(shape: Sequence[int], scale: int = 1) -> int:
    """Input slices that give 8 million voxels of the result."""
    return max(1, SLAB_VOXELS // max(1, shape[0] * shape[1] * scale**3))


def enhanced_share(input_hu: NDArray[Any], noise: float, window: Window) -> NDArray[np.float32]:
    """The share of the enhanced scan in the output, from 0 (the input is kept) to 1.

    With m the mean over 3x3x3 voxels, b and f the input smoothed by Gaussians of 2 and 0.7 voxels, and a ramp
    that is 1 inside the window and falls to 0 over 50 HU beyond it:

    - where m is more than 50 HU outside the window, the share is 0;
    - elsewhere it is max(ramp(m), ramp(b)): a soft-tissue voxel that only noise puts outside is inside under
      one of the two. Above the window ramp(b) fades out over the last 25 HU of the band; otherwise a vessel
      of 50 HU beyond the window would be speckled where its noisy m crosses the end of the band;
    - multiplied by max(ramp(f), ramp of the voxel itself with a tolerance of 6 standard deviations of the
      noise): values that noise cannot explain and that persist under slight smoothing, such as thin cortical
      bone, are kept.

    Args:
        input_hu: Input scan (x, y, z) in HU.
        noise: Standard deviation of its noise in HU, see `noise_sd`.
        window: HU window of the network.

    Returns:
        Shares (x, y, z).
    """
    scan = input_hu.astype(np.float32, order="C")  # as SciPy's filters return it
    mean = mean_of_27(scan)
    broad = gaussian_filter(scan, BROAD_SIGMA, mode="nearest", radius=BROAD_RADIUS)
    fine = gaussian_filter(scan, FINE_SIGMA, mode="nearest", radius=FINE_RADIUS)
    reach = MARGIN_HU - GUARD_HU
    fade = ((window.upper + reach - mean) / np.float32(MARGIN_HU / 2)).clip(0.0, 1.0)
    share = np.maximum(_ramp(mean, window), _ramp(broad, window) * fade)
    share *= np.maximum(_ramp(fine, window), _ramp(scan, window, NOISE_LIMIT * noise))
    share[(mean < window.lower - reach) | (mean > window.upper + reach)] = 0.0
    return np.asarray(share, dtype=np.float32)


def _interpolated(scan: NDArray[Any], scale: int) -> NDArray[np.float32]:
    """A scan (x, y, z) on a finer grid, linearly; the finer voxels fill the coarse ones."""
    voxels = torch.from_numpy(np.asarray(scan, dtype=np.float32, order="C"))
    finer = functional.interpolate(voxels[None, None], scale_factor=scale, mode="trilinear")
    return finer[0, 0].numpy()


def _ramp(hu: NDArray[np.float32], window: Window, tolerance: float = 0.0) -> NDArray[np.float32]:
    outside = np.maximum(window.lower - hu, hu - window.upper) - np.float32(tolerance)
    return np.asarray((1.0 - outside / np.float32(MARGIN_HU)).clip(0.0, 1.0), dtype=np.float32)


def _blend(
    input_hu: NDArray[Any],
    enhanced_unit: NDArray[Any],
    share: NDArray[np.float32],
    window: Window,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    if np.isnan(enhanced_unit).any():
        raise ValueError("the network output has NaN")
    enhanced = window.denormalize(enhanced_unit.astype(np.float32).clip(0.0, 1.0))
    mixed = share * enhanced + (1.0 - share) * input_hu
    return np.where(share > 0.0, _as(dtype, mixed), input_hu)


def _as(dtype: np.dtype[Any], hu: NDArray[Any]) -> NDArray[Any]:
    """HU in another type; rounded for integers."""
    return (np.rint(hu) if dtype.kind in "iu" else hu).astype(dtype)


class NoiseMeter:
    """Noise of a scan that is read slab by slab; see `noise_sd`.

    Args:
        window: HU window; only voxels whose local mean lies inside count.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._near: dict[int, NDArray[np.float32]] = {}
        self._counts = np.zeros(NOISE_BINS, dtype=np.int64)

    def __call__(self, start: int, slab: NDArray[Any], depth: int) -> None:
        """Adds the next slab.

        Args:
            start: First slice of the slab.
            slab: HU `(x, y, slices)`.
            depth: Number of slices of the whole scan.
        """
        every = max(1, depth // NOISE_SLICES)
        for z in range(start, start + slab.shape[2]):
            if any(near % every == 0 for near in (z - 1, z, z + 1)):
                self._near[z] = slab[:, :, z - start].astype(np.float32)
            if z > 0 and (z - 1) % every == 0:
                self._measure(z - 1)
            if z == depth - 1 and z % every == 0:
                self._measure(z)
            self._near.pop(z - 2, None)

    @property
    def sd(self) -> float:
        """Standard deviation in HU, to 0.2 HU; 0 if no voxel lies in the window."""
        total = np.cumsum(self._counts)
        if not total[-1]:
            return 0.0
        return float(np.searchsorted(total, total[-1] / 2)) * NOISE_BIN_HU / 0.6745

    def _measure(self, z: int) -> None:
        near = np.stack([self._near[each] for each in (z - 1, z, z + 1) if each in self._near], axis=2)
        middle = min(z, 1)
        mean = mean_of_27(near)[:, :, middle]
        inside = (mean > self._window.lower) & (mean < self._window.upper)
        deviation = np.abs(near[:, :, middle] - mean)[inside]
        bins = np.minimum(deviation / NOISE_BIN_HU, NOISE_BINS - 1).astype(np.int64)
        self._counts += np.bincount(bins, minlength=NOISE_BINS)


def noise_sd(input_hu: NDArray[Any], window: Window) -> float:
    """A robust estimate of a scan's noise: its deviation from the mean over 3x3x3 voxels, within the window.

    The estimate is the median absolute deviation over 0.6745, the standard deviation of Gaussian noise.
    Correlated noise is underestimated because the mean follows it. About 64 slices, evenly spread over the
    scan, are measured.

    Args:
        input_hu: Scan (x, y, z) in HU.
        window: HU window; only voxels whose local mean lies inside count.

    Returns:
        Standard deviation in HU, to 0.2 HU; 0 if no voxel lies in the window.

    >>> scan = np.random.default_rng(0).normal(50.0, 20.0, (24, 24, 8))
    >>> round(noise_sd(scan, Window(level=50, width=450)))
    20
    """
    meter = NoiseMeter(window)
    meter(0, input_hu, input_hu.shape[2])
    return meter.sd


def mean_of_27(scan: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean over 3x3x3 voxels; the nearest voxel continues beyond the border."""
    # SciPy's uniform_filter keeps a running sum, whose rounding depends on where a slab begins.
    for axis in range(3):
        scan = correlate1d(scan, (1.0, 1.0, 1.0), axis=axis, mode="nearest")
    return scan / np.float32(27.0)
