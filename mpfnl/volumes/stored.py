"""An image as its file stores it, and the step from stored numbers to voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.volumes.volume import SCANNER_SPACE, Affine, Voxels


@dataclass(frozen=True, eq=False)
class StoredImage:
    """A file's numbers before slope and intercept, and where they lie.

    Args:
        stored: The numbers (x, y, z), of any real type.
        affine: Voxel indices to world positions in mm (RAS+), (4, 4), checked.
        space: The NIfTI code of the world's coordinates.
        slope: What a number is multiplied with; not 0.
        intercept: What is added then.
    """

    stored: NDArray[Any]
    affine: Affine
    space: int = SCANNER_SPACE
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_plain(self) -> bool:
        """Whether the stored numbers are the values."""
        return (self.slope, self.intercept) == (1.0, 0.0)

    def voxels(self, name: str) -> Voxels:
        """The values: int16 or int32 where they are whole numbers, else float32 or float64.

        Args:
            name: How messages name the file.

        Raises:
            InputError: A voxel is NaN or infinite, or beyond int32.
        """
        stored = self.stored
        if stored.dtype.kind == "f":
            check_none_bad(count_bad(stored), name)
        elif self.slope.is_integer() and self.intercept.is_integer():
            return _whole(stored, int(self.slope), int(self.intercept), name)
        return _real(stored if self.is_plain else np.asarray(stored * self.slope + self.intercept))

    def storage(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The type to write again: the file's where it holds the values as they are, else the voxels'."""
        stored = self.stored.dtype.newbyteorder("=")
        keeps = self.is_plain and stored in (np.int16, np.int32, np.float32, np.float64)
        return stored if keeps else dtype


def count_bad(stored: NDArray[Any]) -> int:
    """How many numbers are NaN or infinite."""
    return stored.size - int(np.isfinite(stored).sum())


def check_none_bad(bad: int, name: str) -> None:
    """Refuses an image that holds numbers which are NaN or infinite.

    Raises:
        InputError: There are some.
    """
    if bad:
        voxels = "1 voxel is" if bad == 1 else f"{bad} voxels are"
        raise InputError(f"{name}: {voxels} NaN or infinite; repair them or convert the scan again")


def _whole(stored: NDArray[Any], slope: int, intercept: int, name: str) -> Voxels:
    ends = sorted(int(end) * slope + intercept for end in (stored.min(), stored.max()))
    for dtype in (np.int16, np.int32):
        if np.iinfo(dtype).min <= ends[0] and ends[1] <= np.iinfo(dtype).max:
            if (slope, intercept) == (1, 0):
                return stored.astype(dtype, order="K", copy=False)
            wide = stored.astype(np.int64, order="K") * slope + intercept
            return wide.astype(dtype, order="K")
    raise InputError(f"{name}: its values lie in [{ends[0]}, {ends[1]}], which is not HU; give HU")


def _real(values: NDArray[Any]) -> Voxels:
    if values.dtype.itemsize <= 4:
        return values.astype(np.float32, order="K", copy=False)
    single = values.astype(np.float32, order="K")
    if np.array_equal(single, values):
        return single
    return values.astype(np.float64, order="K", copy=False)
