"""One series of a folder as one image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputWarning
from mpfnl.volumes.bytefile import check_shape
from mpfnl.volumes.dicom.pixels import read_pixels
from mpfnl.volumes.dicom.series import read_headers
from mpfnl.volumes.dicom.slices import Slice, check_slices
from mpfnl.volumes.dicom.stack import build_stack, order, overlapping, same_place
from mpfnl.volumes.dicom.tilt import straighten
from mpfnl.volumes.stored import StoredImage


def read_series(folder: Path, uid: str | None, name: str) -> StoredImage:
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
        return StoredImage(hu, stack.affine())
    warnings.warn(
        f"{name}: its gantry was tilted by {stack.tilt_deg:.3g} degrees; its slices were moved onto a grid"
        " with right angles by linear interpolation",
        InputWarning,
        stacklevel=2,
    )
    return StoredImage(*straighten(hu, stack))


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
