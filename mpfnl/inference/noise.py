"""A robust estimate of a scan's noise, from slabs of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from mpfnl.window import ABDOMEN, Window

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
