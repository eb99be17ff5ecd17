"""One series of a folder as one image."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import FormatError, InputError, InputWarning
from mpfnl.volumes.dicom.headers import is_dicom
from mpfnl.volumes.dicom.pixels import read_pixels
from mpfnl.volumes.dicom.series import read_headers, split_selector
from mpfnl.volumes.dicom.slices import Slice, check_slices
from mpfnl.volumes.dicom.stack import build_stack, order, overlapping, same_place
from mpfnl.volumes.dicom.tilt import straighten
from mpfnl.volumes.fileio import check_shape
from mpfnl.volumes.formats import Format, StoredArray
from mpfnl.volumes.grid import Affine, Grid


def read_series(folder: Path, uid: str | None, name: str) -> StoredArray:
    """Reads one series of CT slices from a folder.

    Slices are put in order by their position. Values below -1024 HU, which fill what lies outside the scan,
    become -1024. A stack that leans (tilted gantry) is resampled onto right angles.

    Args:
        folder: The folder; its subfolders are not searched.
        uid: The SeriesInstanceUID of the series, or its ending; None where there is one.
        name: How messages name the scan.

    Returns:
        Voxels (x, y, z) in HU: columns, rows, and slices along their normal.

    Raises:
        InputError: It is not one regular stack of CT slices; see `mpfnl.volumes.dicom`'s modules.

    Warns:
        InputWarning: The stack was resampled onto right angles.
    """
    slices = check_slices(read_headers(folder, uid, name), name)
    chosen, planes = _one_a_position(order(slices), name)
    stack = build_stack(chosen, name)
    check_shape((*chosen[0].shape, len(chosen)), name)
    hu = _stacked([planes[each] if each in planes else read_pixels(each, name) for each in chosen])
    if stack.lean == (0.0, 0.0):
        return _on_grid(hu, stack.affine())
    warnings.warn(
        f"{name}: its gantry was tilted by {stack.tilt_deg:.3g} degrees; its slices were moved onto a grid"
        " with right angles by linear interpolation",
        InputWarning,
        stacklevel=2,
    )
    return _on_grid(*straighten(hu, stack))


def _on_grid(hu: NDArray[Any], affine: Affine) -> StoredArray:
    x, y, z = hu.shape
    return StoredArray(hu, Grid((x, y, z), affine))


class DicomFormat(Format):
    """A folder with one series of CT slices, or one series of a folder that holds several."""

    def matches(self, path: Path) -> bool:
        """Whether the path is a folder, names a series, or is a DICOM file."""
        return split_selector(path)[1] is not None or os.path.isdir(path) or _is_dicom_file(path)

    def exists(self, path: Path) -> bool:
        """Whether the folder exists."""
        folder, uid = split_selector(path)
        return os.path.exists(folder) if uid is None else os.path.isdir(folder)

    def open(self, path: Path, name: str) -> StoredArray:
        """Reads the series; see `read_series`."""
        folder, uid = split_selector(path)
        if uid is None and not os.path.isdir(path):
            raise FormatError(f"{name}: is a single DICOM file; give the folder that holds the whole series")
        return read_series(folder, uid, name)

    def files(self, path: Path, name: str) -> list[Path]:
        """The files of the series in the order of their positions; see `series_files`."""
        folder, uid = split_selector(path)
        if uid is None and not os.path.isdir(path):
            return super().files(path, name)
        return series_files(folder, uid, name)


def _is_dicom_file(path: Path) -> bool:
    try:
        return os.path.isfile(path) and is_dicom(path, str(path))
    except InputError:
        return False


def series_files(folder: Path, uid: str | None, name: str) -> list[Path]:
    """The files of one series in the order of their positions; two at one position by name.

    Args:
        folder: The folder.
        uid: As for `read_series`.
        name: How messages name the scan.

    Raises:
        InputError: It is not one series of CT slices.
    """
    slices = check_slices(read_headers(folder, uid, name), name)
    return [each.path for group in order(slices) for each in group]


def _one_a_position(groups: list[list[Slice]], name: str) -> tuple[list[Slice], dict[Slice, NDArray[Any]]]:
    """One slice of each position, and the pixels of those that had to be compared.

    Raises:
        InputError: Two slices at one position are not the same.
    """
    planes: dict[Slice, NDArray[Any]] = {}
    for group in groups:
        kept, *copies = group
        for other in copies:
            if kept not in planes:
                planes[kept] = read_pixels(kept, name)
            if not same_place(kept, other) or not np.array_equal(planes[kept], read_pixels(other, name)):
                raise overlapping(groups, kept, other, name)
    return [group[0] for group in groups], planes


def _stacked(planes: list[NDArray[Any]]) -> NDArray[Any]:
    dtype = np.result_type(*{plane.dtype for plane in planes})
    hu = np.empty((*planes[0].shape, len(planes)), dtype, order="F")
    for index, plane in enumerate(planes):
        hu[:, :, index] = plane
    return hu
