"""From the network's [0, 1] back to HU, with the input's HU kept where the scan truly leaves the window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter
from torch.nn import functional

from mpfnl.window import ABDOMEN, Window

__all__ = ["Restorer", "enhanced_share", "noise_sd", "restore_hu"]

MARGIN_HU = 50.0
"""Over this many HU beyond the window's ends the output passes from enhanced to input."""

GUARD_HU = 0.01
"""The band ends this much earlier, so that the rounding of a mean over 27 voxels cannot matter."""

NOISE_LIMIT = 6.0
"""Noise does not throw a voxel further out of the window than this many of its standard deviations."""

BROAD_SIGMA, FINE_SIGMA = 2.0, 0.7  # voxels
BROAD_RADIUS, FINE_RADIUS = 8, 3  # 4 sigma
REACH = BROAD_RADIUS + 1
"""Slices to either side of a slab that it depends on; the last one where the result's grid is finer."""
SLAB_VOXELS = 1 << 23

BYTES_A_VOXEL = 42
"""Memory for each voxel of a slab and its halo while it is restored, as measured; int16 or float32 HU."""

FINER_BYTES_A_VOXEL = 28
"""Memory beside it for each voxel of a result on a finer grid: input and share there, and the mixture."""

ReadSlices: TypeAlias = Callable[[int, int], NDArray[Any]]
"""Gives slices of the input scan in HU, `(x, y, n)`, from the first to before the last."""


def restore_hu(input_hu: NDArray[Any], enhanced_unit: NDArray[Any], window: Window = ABDOMEN) -> NDArray[Any]:
    """Maps an enhanced scan back to HU.

    Inside the window the output is the enhanced scan. Where the scan truly lies outside (bone, gas, metal,
    bright vessels) it is the input, unchanged; `enhanced_share` says how that is decided. The work goes in
    slabs along z, so that little memory is taken beside the result, which does not depend on the slabs.

    Args:
        input_hu: The input scan (x, y, z) in HU, integer or floating point, finite.
        enhanced_unit: The network's output (x, y, z) in [0, 1]; clipped to it. On a grid that is finer by a
            whole number along all axes the input and its share are interpolated linearly.
        window: The HU window of the network.

    Returns:
        The enhanced scan (x, y, z) in HU, of the output's shape and the input's type (rounded for integers).

    Raises:
        ValueError: The shapes do not fit, or the network's output has NaN.
    """
    scale = max(1, enhanced_unit.shape[0] // input_hu.shape[0]) if input_hu.ndim == 3 else 0
    if tuple(scale * side for side in input_hu.shape) != enhanced_unit.shape:
        raise ValueError(f"the input is {input_hu.shape}, the network's output {enhanced_unit.shape}")
    output = np.empty_like(input_hu, shape=enhanced_unit.shape)
    restorer = Restorer(input_hu.shape, noise_sd(input_hu, window), window, scale=scale)
    for start, slab in restorer.slabs(lambda first, stop: input_hu[:, :, first:stop], 0, enhanced_unit):
        output[:, :, start : start + slab.shape[2]] = slab
    return output


@dataclass(frozen=True)
class Restorer:
    """Maps slabs of an enhanced scan back to HU, as `restore_hu` does the whole; however they are cut.

    Args:
        shape: Of the whole input scan, (x, y, z).
        noise: The standard deviation of the input's noise in HU, see `noise_sd`.
        window: The HU window of the network.
        slices: How many of the input to restore at a time; so many that they become 8 million voxels if
            None.
        scale: How many times finer the result's grid is.
    """

    shape: tuple[int, ...]
    noise: float
    window: Window = ABDOMEN
    slices: int | None = None
    scale: int = 1

    @property
    def step(self) -> int:
        """How many slices of the input are restored at a time."""
        return self.slices or max(1, SLAB_VOXELS // max(1, self.shape[0] * self.shape[1] * self.scale**3))

    def slabs(
        self, read: ReadSlices, first: int, enhanced_unit: NDArray[Any]
    ) -> Iterator[tuple[int, NDArray[Any]]]:
        """Restores a slab, a part at a time.

        Args:
            read: Gives the input's slices; is asked for at most `REACH` more than the slab to either side,
                where the scan has them.
            first: The slab's first slice on the result's grid; whole slices of the input, as are the others.
            enhanced_unit: The network's output there, `(x, y, n)` in [0, 1].

        Yields:
            The first slice of a part on the result's grid, and the part in HU, of the input's type.

        Raises:
            ValueError: The network's output has NaN.
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
        """Slices of the input in HU and the share of the enhanced scan, on the result's grid; its type."""
        finer, depth = self.scale > 1, self.shape[2]
        low, high = max(0, start - finer), min(depth, stop + finer)  # what is interpolated between
        before, after = max(0, low - BROAD_RADIUS), min(depth, high + BROAD_RADIUS)
        near, within = read(before, after), slice(low - before, high - before)
        share = enhanced_share(near, self.noise, self.window)[:, :, within]
        scan = near[:, :, within]
        if not finer:
            return scan, share, near.dtype
        cut = slice(self.scale * (start - low), self.scale * (stop - low))
        scan, share = (_interpolated(each, self.scale)[:, :, cut] for each in (scan, share))
        return _as(near.dtype, scan), share, near.dtype


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
    scan = input_hu.astype(np.float32, order="C")  # which is what SciPy's filters give
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
    """A scan (x, y, z) on a grid so many times finer, linearly; the finer voxels fill the coarse ones."""
    voxels = torch.from_numpy(np.asarray(scan, dtype=np.float32, order="C"))
    finer = functional.interpolate(voxels[None, None], scale_factor=scale, mode="trilinear")
    return finer[0, 0].numpy()


def _ramp(hu: NDArray[np.float32], window: Window, spare: float = 0.0) -> NDArray[np.float32]:
    outside = np.maximum(window.lower - hu, hu - window.upper) - np.float32(spare)
    return np.asarray((1.0 - outside / np.float32(MARGIN_HU)).clip(0.0, 1.0), dtype=np.float32)


def _blend(
    input_hu: NDArray[Any],
    enhanced_unit: NDArray[Any],
    share: NDArray[np.float32],
    window: Window,
    dtype: np.dtype[Any],
) -> NDArray[Any]:
    if np.isnan(enhanced_unit).any():
        raise ValueError("the network's output has NaN")
    enhanced = window.denormalize(enhanced_unit.astype(np.float32).clip(0.0, 1.0))
    mixed = share * enhanced + (1.0 - share) * input_hu
    return np.where(share > 0.0, _as(dtype, mixed), input_hu)


def _as(dtype: np.dtype[Any], hu: NDArray[Any]) -> NDArray[Any]:
    """HU as another type; rounded for integers."""
    return (np.rint(hu) if dtype.kind in "iu" else hu).astype(dtype)


NOISE_SLICES = 64
NOISE_BIN_HU, NOISE_BINS = 0.25, 8192


class NoiseMeter:
    """Measures the noise of a scan that is shown to it slab by slab; see `noise_sd`.

    Args:
        window: Only voxels whose mean lies in this window count.
    """

    def __init__(self, window: Window = ABDOMEN) -> None:
        self._window = window
        self._near: dict[int, NDArray[np.float32]] = {}
        self._counts = np.zeros(NOISE_BINS, dtype=np.int64)

    def __call__(self, start: int, slab: NDArray[Any], depth: int) -> None:
        """Takes the next slab.

        Args:
            start: Its first slice.
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
        """The standard deviation in HU, to 0.2 HU; 0 where nothing lies in the window."""
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
    meter = NoiseMeter(window)
    meter(0, input_hu, input_hu.shape[2])
    return meter.sd


def mean_of_27(scan: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean over 3x3x3 voxels; beyond the border the nearest voxel continues."""
    # SciPy's uniform_filter keeps a running sum, whose rounding depends on where a slab begins.
    for axis in range(3):
        scan = correlate1d(scan, (1.0, 1.0, 1.0), axis=axis, mode="nearest")
    return scan / np.float32(27.0)
