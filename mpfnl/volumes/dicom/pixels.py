"""The pixels of a slice in HU."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.volumes.dicom.headers import Tag, slice_reader
from mpfnl.volumes.dicom.silence import silent
from mpfnl.volumes.dicom.slices import Slice
from mpfnl.volumes.fileio import open_file
from mpfnl.window import AIR_HU

HIGHEST_HU = 3071
"""The end of the usual 12-bit scale. A padding value within it could be tissue and is left alone."""

_ENCAPSULATED = rb"\xe0\x7f\x10\x00O[BW]\0\0\xff\xff\xff\xff"


def read_pixels(each: Slice, name: str) -> NDArray[Any]:
    """The pixels of a slice in HU, at least -1024; whole numbers as int16 or int32, else float64.

    Args:
        each: The slice.
        name: How messages name the scan.

    Returns:
        Pixels (x, y): columns, then rows.

    Raises:
        InputError: They are cut off, damaged, or not as many as the header says.
    """
    _check_length(each, name)
    reader = slice_reader(each.path)
    try:
        with silent():
            image = reader.Execute()
    except RuntimeError as error:
        raise InputError(
            f"{name}: the pixels of {each.path.name} are damaged, or packed in a way that cannot be read;"
            " copy the file again, or unpack the series, e.g. with gdcmconv --raw"
        ) from error
    hu = sitk.GetArrayFromImage(image).reshape(each.shape[::-1]).T
    return _whole(_clamped(hu, each))


def _check_length(each: Slice, name: str) -> None:
    """Refuses a slice whose pixels are not as many as its header says.

    GDCM fills what is missing with whatever lies in memory. Packed pixels know their own size; others must
    stand in the file in the length that rows and columns ask for (PS3.5, A.1 to A.4).

    Args:
        each: The slice.
        name: How messages name the scan.

    Raises:
        InputError: As above.
    """
    with open_file(each.path, f"{name}: {each.path.name}") as file:
        content = file.read()
    length = each.shape[0] * each.shape[1] * 2
    little, big = length.to_bytes(4, "little"), length.to_bytes(4, "big")
    plain = [b"\xe0\x7f\x10\x00" + form + little for form in (b"OW\0\0", b"OB\0\0", b"")]
    plain += [b"\x7f\xe0\x00\x10" + form + big for form in (b"OW\0\0", b"OB\0\0")]
    if not any(start in content for start in plain) and not re.search(_ENCAPSULATED, content):
        raise InputError(
            f"{name}: the pixels of {each.path.name} are not as many as its header says, or are stored in an"
            " unusual way; copy the file again, or convert the series, e.g. with dcm2niix"
        )


def _clamped(hu: NDArray[Any], each: Slice) -> NDArray[Any]:
    padding = each.header.number(Tag.PADDING)
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
