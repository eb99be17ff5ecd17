"""Reading a scan or a mask, with every check that a user's file may fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.phases import Phase
from mpfnl.volumes.grid import check_same_grid, header_affine
from mpfnl.volumes.nifti import Header, RawImage, read_raw
from mpfnl.volumes.volume import Volume, Voxels, describe

WINDOWED_LIMIT = 1.05
"""A scan whose values all lie within this of 0 is not in HU: it was mapped to [0, 1] or [-1, 1]."""


def read_volume(path: str | Path, phase: Phase | None = None) -> Volume:
    """Reads a scan in HU from a NIfTI file and checks it.

    The voxels stay as they are; nothing is clamped. Whole numbers are held as int16 (int32 where they do not
    fit), others as float32 (float64 where float32 would change one).

    Args:
        path: A .nii or .nii.gz file.
        phase: Its contrast phase, which messages then name.

    Returns:
        The volume, with the number type and space code with which to write it again.

    Raises:
        InputError: The file is missing, a folder, no NIfTI image, cut off, not 3-D or not of real numbers; a
            voxel is NaN or infinite; the values are windowed already; the grid has no orientation, no
            positive spacing, or is sheared.
    """
    path = Path(path)
    name = describe(path, phase)
    raw = read_raw(path, name)
    affine, space = header_affine(raw.header, name)
    if raw.stored.dtype.itemsize == 1 and _scaling(raw.header, name) == (1.0, 0.0):
        raise InputError(f"{name}: is stored in 8 bits, which cannot hold HU (a label map?); give HU")
    data = _voxels(raw, name)
    low, high = data.min(), data.max()
    if max(abs(float(low)), abs(float(high))) <= WINDOWED_LIMIT:
        raise InputError(
            f"{name}: its values lie in [{low:.3g}, {high:.3g}], so it is windowed already; give HU"
        )
    return Volume(data, affine, path, phase, _storage(raw, data), space)


def read_mask(path: str | Path, like: Volume | None = None, label: int | None = None) -> NDArray[np.bool_]:
    """Reads a mask, or one label of a label map.

    Args:
        path: A .nii or .nii.gz file.
        like: The scan on whose grid the mask must lie; unchecked if None.
        label: The label to take; if None the file may hold 0 and 1 only.

    Returns:
        True where the structure is, (x, y, z). A label that does not occur gives an empty mask.

    Raises:
        InputError: As for `read_volume`; or another grid, or values other than 0 and 1 without a label.
    """
    path = Path(path)
    name = describe(path)
    raw = read_raw(path, name)
    data = _voxels(raw, name)
    affine, space = header_affine(raw.header, name)
    if like is not None:
        check_same_grid(like, [Volume(data, affine, path, space=space)])
    if label is not None:
        return np.asarray(data == label)
    mask = np.asarray(data == 1)
    if not (mask | (data == 0)).all():
        raise InputError(
            f"{name}: a mask holds 0 and 1, this one holds values from {data.min():g} to {data.max():g};"
            " name the label to take"
        )
    return mask


def _scaling(header: Header, name: str) -> tuple[float, float]:
    """The slope and the intercept; a slope of 0 means none (NIfTI-1, scl_slope)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise InputError(f"{name}: its rescale intercept is {intercept}; convert it again")
    return slope, intercept


def _voxels(raw: RawImage, name: str) -> Voxels:
    slope, intercept = _scaling(raw.header, name)
    stored = raw.stored
    if stored.dtype.kind == "f":
        bad = stored.size - int(np.isfinite(stored).sum())
        if bad:
            voxels = "1 voxel is" if bad == 1 else f"{bad} voxels are"
            raise InputError(f"{name}: {voxels} NaN or infinite; repair them or convert the scan again")
    if stored.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        return _whole(stored, int(slope), int(intercept), name)
    scaled = stored if (slope, intercept) == (1.0, 0.0) else stored * slope + intercept
    return _real(np.asarray(scaled))


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


def _storage(raw: RawImage, data: Voxels) -> np.dtype[Any]:
    """The type to write again: the file's where it holds HU as they are, else that of the voxels."""
    stored = raw.stored.dtype.newbyteorder("=")
    plain = _scaling(raw.header, "") == (1.0, 0.0)
    keeps = plain and stored in (np.int16, np.int32, np.float32, np.float64)
    return stored if keeps else data.dtype
