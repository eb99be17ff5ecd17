"""From the values that a file stores to HU, and the checks of single values."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import IntensityError

Voxels: TypeAlias = NDArray[Any]
"""A scan's voxels (x, y, z): int16 or int32 where they are whole numbers, else float32 or float64."""


def rescale(stored: NDArray[Any], slope: float, intercept: float, name: str) -> Voxels:
    """Stored values times the slope plus the intercept.

    Args:
        stored: Values (x, y, z) of any real type.
        slope: Rescale slope; not 0.
        intercept: Rescale intercept.
        name: Name of the scan in messages.

    Returns:
        int16 or int32 where the values are whole numbers, else float32, or float64 where float32 would
        change a value.

    Raises:
        IntensityError: A value is NaN or infinite, or beyond int32.
    """
    if stored.dtype.kind == "f":
        check_finite(count_not_finite(stored), name)
    elif slope.is_integer() and intercept.is_integer():
        return _whole(stored, int(slope), int(intercept), name)
    return _real(stored if (slope, intercept) == (1.0, 0.0) else np.asarray(stored * slope + intercept))


def storage_dtype(stored: np.dtype[Any], rescaled: bool, voxels: np.dtype[Any]) -> np.dtype[Any]:
    """The number type to write a scan with: the file's where it holds HU as they are, else the voxels'.

    Args:
        stored: Number type in the file.
        rescaled: Whether slope and intercept change the stored values.
        voxels: Number type of the scan in memory.
    """
    native = stored.newbyteorder("=")
    suits = not rescaled and native in (np.int16, np.int32, np.float32, np.float64)
    return native if suits else voxels


def cast_hu(hu: Voxels, dtype: np.dtype[Any]) -> Voxels:
    """HU in another number type: rounded, and limited to its range, where it holds whole numbers.

    Args:
        hu: Voxels in HU.
        dtype: Number type.
    """
    if dtype.kind == "f" or np.can_cast(hu.dtype, dtype):
        return hu.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    return np.rint(hu.astype(np.float64)).clip(limits.min, limits.max).astype(dtype)


def as_int16(hu: Voxels) -> NDArray[np.int16]:
    """HU rounded to whole numbers and limited to the range of int16; int16 itself is not copied."""
    return cast_hu(hu, np.dtype(np.int16))


def count_not_finite(stored: NDArray[Any]) -> int:
    """The number of values that are NaN or infinite."""
    return stored.size - int(np.isfinite(stored).sum())


def check_finite(bad: int, name: str) -> None:
    """Refuses a scan with values that are NaN or infinite.

    Args:
        bad: Number of such values.
        name: Name of the scan in messages.

    Raises:
        IntensityError: The scan has some.
    """
    if bad:
        voxels = "1 voxel is" if bad == 1 else f"{bad} voxels are"
        raise IntensityError(f"{name}: {voxels} NaN or infinite; repair them or convert the scan again")


def check_bits(stored: np.dtype[Any], rescaled: bool, name: str) -> None:
    """Refuses values of 8 bits, which cannot be HU.

    Args:
        stored: Number type in the file.
        rescaled: Whether slope and intercept change the stored values.
        name: Name of the scan in messages.

    Raises:
        IntensityError: The values have 8 bits.
    """
    if stored.itemsize == 1 and not rescaled:
        raise IntensityError(f"{name}: is stored in 8 bits, which cannot hold HU (a label map?); give HU")


def _whole(stored: NDArray[Any], slope: int, intercept: int, name: str) -> Voxels:
    if stored.dtype.newbyteorder("=") == np.int16 and (slope, intercept) == (1, 0):
        return stored.astype(np.int16, order="K", copy=False)
    ends = sorted(int(end) * slope + intercept for end in (stored.min(), stored.max()))
    for dtype in (np.int16, np.int32):
        if np.iinfo(dtype).min <= ends[0] and ends[1] <= np.iinfo(dtype).max:
            if (slope, intercept) == (1, 0):
                return stored.astype(dtype, order="K", copy=False)
            wide = stored.astype(np.int64, order="K") * slope + intercept
            return wide.astype(dtype, order="K")
    raise IntensityError(f"{name}: its values lie in [{ends[0]}, {ends[1]}], which is not HU; give HU")


def _real(values: NDArray[Any]) -> Voxels:
    if values.dtype.itemsize <= 4:
        return values.astype(np.float32, order="K", copy=False)
    single = values.astype(np.float32, order="K")
    if np.array_equal(single, values):
        return single
    return values.astype(np.float64, order="K", copy=False)
