"""The one check that a scan is CT in HU, from a sample of its voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import IntensityError
from mpfnl.volumes.intensity import Voxels
from mpfnl.window import UNCOVERED_HU

SAMPLE_VOXELS = 1 << 18
"""Voxels that are looked at: enough for shares of 0.1 %, and a small part of a long scan."""

LEAST_VOXELS, LEAST_VOXELS_STATED = 256, 1 << 15
"""Fewest voxels whose shares count; more are needed where the file states that it holds HU, as DICOM does."""

SCALED_LIMIT = 1.05
"""Largest absolute value of a scan that was mapped to [0, 1] or [-1, 1]; interpolation exceeds 1 a little."""

NORMALIZED_LIMIT = 25.0
"""Largest absolute value of nearly all voxels of a scan that was divided by its standard deviation or by 255.
The noise of CT alone, 10 HU and more, spreads the voxels of one organ wider than that."""

DARK_HU = -30.0
"""Upper bound of fat and air. Fat has about -100 HU (ICRU Report 44), and every abdomen holds some."""

WIDE_HU = 300.0
"""Range of values that no soft tissue without fat and air spans, its noise included."""

NEGATIVE_HU, LEAST_NEGATIVE_SHARE = -1.0, 0.1
"""Upper bound of noise around 0 HU, and its least share in a scan whose fat and air were clipped to 0 before
noise was added. Magnitudes and grey values have none; those that splines resampled ring at edges only."""

LEAST_VALUES = 32
"""Fewest different values of a scan; a made-up one of a few tissues without noise has less."""

LEAST_FLOOR_SHARE = 0.05
"""Least share of voxels at the lowest value of grey values that were clipped, or masked by 0: noise, which
every scan has, piles up at a limit only."""

EIGHT_BITS, LEAST_TOP_SHARE = 255, 1e-3
"""The highest value of a window in 8 bits, and the least share of voxels there: what is above the window. In
HU nothing ends at 255."""

NEAR_ZERO, LEAST_NEAR_ZERO = 0.1, 0.2
"""The part of the range of values next to 0 that holds the background of MR, and its least share of voxels.
Noise around air or water in CT goes below 0; values that are evenly spread put 0.1 of them there."""

OFFSET_TISSUE = (750.0, 1350.0)
"""Range of soft tissue and fat that lie 1000 or 1024 HU too high. In HU this is compact bone and metal, which
fill less than 1 % of an abdomen and are always outnumbered by cancellous bone, at 300 to 750 HU."""

LEAST_OFFSET_SHARE = 0.1
"""Least share in `OFFSET_TISSUE`, of the voxels above -500, in a scan without its intercept."""

LEAST_SPREAD = 10.0
"""Least range of displaced tissue, its extreme tenths left out; the noise of CT alone makes it wider."""

PARTIAL_AIR = (-900.0, -150.0)
"""Range of lung and of the voxels between air and skin; the lowest value may be padding and is left out."""

LEAST_PARTIAL_AIR = 0.03
"""Share of the voxels in `PARTIAL_AIR` that shows air to be where it belongs."""

BODY_LIMIT_HU = -300.0
"""Upper bound of a scan that shows no body at all: less than 1 % of its voxels are brighter."""


class HuSample:
    """A sample of a scan's voxels that is taken slab by slab, and the check of it.

    Args:
        shape: Voxels of the scan along x, y and z.
        stated: Whether the file states that its values are HU.

    >>> sample = HuSample((20, 20, 20))
    >>> sample.add(0, np.random.default_rng(0).normal(40, 30, (20, 20, 20)))
    >>> sample.fault
    ''
    >>> sample = HuSample((20, 20, 20))
    >>> sample.add(0, np.linspace(0, 1, 8000).reshape(20, 20, 20))
    >>> sample.fault
    'its values lie in [0, 1]: normalized or windowed already; give HU'
    """

    def __init__(self, shape: Sequence[int], stated: bool = False) -> None:
        self._stated = stated
        self._step = max(1, math.ceil((math.prod(shape) / SAMPLE_VOXELS) ** (1 / 3)))
        self._parts: list[NDArray[np.float64]] = []
        self._low, self._high = math.inf, -math.inf

    def add(self, start: int, slab: Voxels) -> None:
        """Takes some voxels of a slab.

        Args:
            start: First slice of the slab; slabs may come in any order.
            slab: Voxels (x, y, slices), all of them finite.
        """
        step = self._step
        self._low = min(self._low, float(slab.min()))
        self._high = max(self._high, float(slab.max()))
        part = slab[::step, ::step, -start % step :: step]
        self._parts.append(part.astype(np.float64).ravel())

    def check(self, name: str) -> None:
        """Refuses a scan that is not CT in HU.

        Args:
            name: Name of the scan in messages.

        Raises:
            IntensityError: The values are none of CT in HU; the message tells what was found.
        """
        if fault := self.fault:
            raise IntensityError(f"{name}: {fault}")

    @property
    def fault(self) -> str:
        """Fault and remedy in one line; empty for CT in HU.

        Padding and metal have any value, so that shares of voxels count, and not single ones. Voxels that a
        prepared scan marks as not covered say nothing.
        """
        values = np.concatenate([np.empty(0), *self._parts])
        values = values[values != UNCOVERED_HU]
        if not values.size:
            return ""
        low, high = self._low, self._high
        found = f"its darkest voxel has {low:.5g}, its median is {float(np.median(values)):.5g}"
        if self._stated and values.size < LEAST_VOXELS_STATED:
            return ""
        if low == high and abs(low) <= SCALED_LIMIT:
            return "" if self._stated else f"all its voxels are {low:.3g} (an empty scan or mask?); give HU"
        if max(abs(low), abs(high)) <= SCALED_LIMIT or _normalized(values):
            return f"its values lie in [{low:.3g}, {high:.3g}]: normalized or windowed already; give HU"
        if values.size < LEAST_VOXELS:
            return ""
        if _offset(values):
            return (
                f"{found}, and its tissue lies about 1000 above HU, so its rescale intercept is missing;"
                " convert it again with slope and intercept"
            )
        if _without_fat_and_air(values) or _floored(values, low, high):
            return (
                f"{found}, and it has neither fat nor air below {DARK_HU:g} HU, so it is no CT in HU (MR,"
                " grey values, masked by 0, or no rescale intercept); give CT in HU"
            )
        if float(np.quantile(values, 0.99)) < BODY_LIMIT_HU:
            return (
                f"{found}, and it shows no body: less than 1 % of it is brighter than {BODY_LIMIT_HU:g} HU;"
                " check that it is CT in HU, its intercept applied once"
            )
        return ""


def hu_fault(voxels: Voxels) -> str:
    """Fault and remedy of voxels (x, y, z) that are not CT in HU, in one line; empty for CT in HU.

    >>> hu_fault(np.full((9, 9, 9), 40, np.int16))
    ''
    """
    sample = HuSample(voxels.shape)
    sample.add(0, voxels)
    return sample.fault


def _normalized(values: NDArray[np.float64]) -> bool:
    low, high = np.quantile(values, [0.001, 0.999])
    near = -NORMALIZED_LIMIT <= low < high <= NORMALIZED_LIMIT
    return bool(near and (values != np.rint(values)).any())


def _offset(values: NDArray[np.float64]) -> bool:
    inside = max(1, int((values > -500).sum()))
    found = values[(values >= OFFSET_TISSUE[0]) & (values < OFFSET_TISSUE[1])]
    tissue = found.size
    between = _count(values, (300.0, OFFSET_TISSUE[0]))
    air = _count(values[values > values.min()], PARTIAL_AIR)
    displaced = tissue >= LEAST_OFFSET_SHARE * inside and tissue >= 2 * between
    if not displaced or np.subtract(*np.quantile(found, [0.9, 0.1])) <= LEAST_SPREAD:
        return False
    return air < LEAST_PARTIAL_AIR * values.size


def _without_fat_and_air(values: NDArray[np.float64]) -> bool:
    low, high = np.quantile(values, [0.005, 0.995])
    shares = [np.count_nonzero(values < bound) / values.size for bound in (DARK_HU, NEGATIVE_HU)]
    none = high - low > WIDE_HU and shares[0] < 0.002 and shares[1] < LEAST_NEGATIVE_SHARE
    return bool(none and np.unique(values).size >= LEAST_VALUES)


def _floored(values: NDArray[np.float64], low: float, high: float) -> bool:
    """Whether the lowest value is a limit at 0 or 1, or an end is that of 8 bits."""
    if low < 0 or high - low <= NORMALIZED_LIMIT:
        return False
    top = np.count_nonzero(values >= EIGHT_BITS - 0.5)
    if EIGHT_BITS - 0.5 <= high <= EIGHT_BITS and top >= max(2, LEAST_TOP_SHARE * values.size):
        return True
    if low > 1:
        return False
    piled = np.count_nonzero(values == low) >= LEAST_FLOOR_SHARE * values.size
    near = np.count_nonzero(values < NEAR_ZERO * np.quantile(values, 0.99))
    return bool(piled or near >= LEAST_NEAR_ZERO * values.size) or 253 <= high <= 255


def _count(values: NDArray[np.float64], bounds: tuple[float, float]) -> int:
    return int(((values >= bounds[0]) & (values < bounds[1])).sum())
