"""The pixels of a slice in HU, decoded by GDCM inside SimpleITK."""

from __future__ import annotations

from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mpfnl.errors import DamagedError
from mpfnl.volumes.dicom.slices import Slice
from mpfnl.volumes.itk import silent
from mpfnl.window import AIR_HU

HIGHEST_HU = 3071
"""The end of the usual 12-bit scale. A padding value within it could be tissue and is left alone."""


def read_pixels(each: Slice, name: str) -> NDArray[Any]:
    """The pixels of a slice in HU, at least -1024; whole numbers as int16 or int32, else float64.

    Args:
        each: The slice.
        name: Name of the scan in messages.

    Returns:
        Pixels (x, y): columns, then rows.

    Raises:
        DamagedError: The pixels are cut off, damaged, or not as many as the header says.
    """
    _check_length(each, name)
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.LoadPrivateTagsOff()
    reader.SetFileName(str(each.path))
    try:
        with silent():
            image = reader.Execute()
    except RuntimeError as error:
        raise DamagedError(
            f"{name}: the pixels of {each.path.name} are damaged, or packed in a way that cannot be read;"
            " copy the file again, or unpack the series, e.g. with gdcmconv --raw"
        ) from error
    hu = sitk.GetArrayFromImage(image).reshape(each.shape[::-1]).T
    return _whole(_clamped(hu, each))


def _check_length(each: Slice, name: str) -> None:
    """Refuses a slice whose pixels are not as many as its header says.

    GDCM fills what is missing with whatever lies in memory. Compressed pixels state their own size; others
    must have the length that rows and columns ask for (PS3.5, A.1 to A.4).

    Args:
        each: The slice.
        name: Name of the scan in messages.

    Raises:
        DamagedError: The length is another one.
    """
    columns, rows = each.shape
    if each.header.pixel_bytes not in (None, 2 * columns * rows):
        raise DamagedError(
            f"{name}: the pixels of {each.path.name} are not as many as its header says, or are stored in an"
            " unusual way; copy the file again, or convert the series, e.g. with dcm2niix"
        )


def _clamped(hu: NDArray[Any], each: Slice) -> NDArray[Any]:
    padding = each.header.number("PixelPaddingValue")
    if padding is not None and padding * each.slope + each.intercept > HIGHEST_HU:
        hu = np.where(hu == padding * each.slope + each.intercept, AIR_HU, hu)
    return np.asarray(np.maximum(hu, AIR_HU))


def _whole(hu: NDArray[Any]) -> NDArray[Any]:
    if hu.dtype.kind == "f":
        rounded = np.rint(hu)
        if not np.array_equal(rounded, hu) or np.abs(rounded).max() > np.iinfo(np.int32).max:
            return hu
        hu = rounded
    fits = hu.max() <= np.iinfo(np.int16).max  # they are at least -1024
    return hu.astype(np.int16 if fits else np.int32)
