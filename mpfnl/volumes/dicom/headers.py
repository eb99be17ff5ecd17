"""The header of one DICOM file: the few elements that reading needs, and nothing that names a patient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.volumes.dicom.silence import silent
from mpfnl.volumes.fileio import open_file

SUFFIXES = (".dcm", ".dicom", ".ima")
MAGIC_END = 132  # the preamble of 128 bytes and "DICM" (PS3.10, 7.1)


class Tag(StrEnum):
    """The elements that are read, as SimpleITK writes their tags."""

    IMAGE_TYPE = "0008|0008"
    SOP_CLASS = "0008|0016"
    ACQUISITION_TIME = "0008|0032"
    CONTENT_TIME = "0008|0033"
    MODALITY = "0008|0060"
    SERIES_DESCRIPTION = "0008|103e"
    CONVOLUTION_KERNEL = "0018|1210"
    SERIES_UID = "0020|000e"
    SERIES_NUMBER = "0020|0011"
    ACQUISITION_NUMBER = "0020|0012"
    TEMPORAL_POSITION = "0020|0100"
    POSITION = "0020|0032"
    ORIENTATION = "0020|0037"
    SAMPLES = "0028|0002"
    PHOTOMETRIC = "0028|0004"
    FRAMES = "0028|0008"
    ROWS = "0028|0010"
    COLUMNS = "0028|0011"
    PIXEL_SPACING = "0028|0030"
    BITS_ALLOCATED = "0028|0100"
    PADDING = "0028|0120"
    RESCALE_INTERCEPT = "0028|1052"
    RESCALE_SLOPE = "0028|1053"
    RESCALE_TYPE = "0028|1054"


@dataclass(frozen=True)
class Header:
    """What a DICOM file says of itself.

    Args:
        path: The file.
        values: The text of the elements that it has.
    """

    path: Path
    values: Mapping[Tag, str]

    def text(self, tag: Tag) -> str:
        """An element's text; empty where it is missing."""
        return self.values.get(tag, "")

    def parts(self, tag: Tag) -> tuple[str, ...]:
        """The values of an element that may hold several."""
        return tuple(part.strip() for part in self.text(tag).split("\\"))

    def numbers(self, tag: Tag, count: int) -> NDArray[np.float64] | None:
        """An element's numbers; None unless there are as many as expected, all of them finite."""
        try:
            values = np.array([float(part) for part in self.parts(tag)])
        except ValueError:
            return None
        return values if values.size == count and np.isfinite(values).all() else None

    def number(self, tag: Tag) -> float | None:
        """An element's only number; None where there is none."""
        values = self.numbers(tag, 1)
        return None if values is None else float(values[0])


def is_dicom(path: Path, name: str) -> bool:
    """Whether a file means to be DICOM: by its suffix, or by the mark in its 129th byte.

    Raises:
        InputError: It cannot be read.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    with open_file(path, f"{name}: {path.name}") as file:
        return file.read(MAGIC_END)[-4:] == b"DICM"


def read_header(path: Path, name: str) -> Header:
    """Reads a DICOM image's header, without its pixels.

    Args:
        path: The file.
        name: How messages name the scan.

    Raises:
        InputError: It is unreadable, cut off, or no image.
    """
    with open_file(path, f"{name}: {path.name}"):
        pass  # the system's own word where it refuses; SimpleITK's is the same for every failure
    reader = slice_reader(path)
    try:
        with silent():
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(
            f"{name}: {path.name} is no readable DICOM image (cut off, damaged, or without pixels); copy it"
            " again, or take it out of the folder"
        ) from error
    return Header(path, {tag: _text(reader, tag) for tag in Tag if reader.HasMetaDataKey(tag.value)})


def slice_reader(path: Path) -> sitk.ImageFileReader:
    """SimpleITK's reader of one DICOM file."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.LoadPrivateTagsOff()
    reader.SetFileName(str(path))
    return reader


def _text(reader: sitk.ImageFileReader, tag: Tag) -> str:
    """An element's text; what a wrong character set left unreadable becomes question marks."""
    text = str(reader.GetMetaData(tag.value))
    return "".join(letter if letter.isprintable() else "?" for letter in text.strip(" \0"))
