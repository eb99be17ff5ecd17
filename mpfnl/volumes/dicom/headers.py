"""The header of one DICOM file: the elements that are asked for, and nothing else that names a patient."""

from __future__ import annotations

import os
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray
from pydicom import config, dcmread
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.tag import Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, TEXT_VR_DELIMS

from mpfnl.errors import DamagedError
from mpfnl.volumes.fileio import open_file

SUFFIXES = (".dcm", ".dicom", ".ima")
MAGIC_END = 132  # the preamble of 128 bytes and "DICM" (PS3.10, 7.1)
UNDEFINED_LENGTH = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_PIXEL_DATA = 0x7FE00010
_LAST_FIRST = 0x18  # the last element with which a file begins: (0008,0018), SOPInstanceUID

ELEMENTS = (
    "MediaStorageSOPClassUID",
    "ImageType",
    "SOPClassUID",
    "AcquisitionTime",
    "ContentTime",
    "Modality",
    "SeriesDescription",
    "PatientID",
    "SliceThickness",
    "KVP",
    "SpacingBetweenSlices",
    "ConvolutionKernel",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "AcquisitionNumber",
    "InstanceNumber",
    "FrameOfReferenceUID",
    "TemporalPositionIdentifier",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "PixelRepresentation",
    "PixelPaddingValue",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
)
"""Keywords of the elements that reading a scan needs."""

_one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class Header:
    """Elements of a DICOM file.

    Args:
        path: The file.
        values: Text of each value of the elements that the file has, by keyword.
        pixel_bytes: Length of the pixel data; None where they are encapsulated (compressed), 0 where there
            are none.
        whole: Whether the pixel data are there to their end.
    """

    path: Path
    values: Mapping[str, tuple[str, ...]] = field(repr=False)
    pixel_bytes: int | None
    whole: bool = True

    def text(self, keyword: str) -> str:
        """The text of an element; empty where the element is missing."""
        return "\\".join(self.parts(keyword))

    def parts(self, keyword: str) -> tuple[str, ...]:
        """The values of an element that may hold several."""
        return self.values.get(keyword, ())

    def numbers(self, keyword: str, count: int) -> NDArray[np.float64] | None:
        """The numbers of an element; None unless there are as many as expected, all of them finite."""
        try:
            values = np.array([float(part) for part in self.parts(keyword)])
        except ValueError:
            return None
        return values if values.size == count and np.isfinite(values).all() else None

    def number(self, keyword: str) -> float | None:
        """The only number of an element; None where there is none."""
        values = self.numbers(keyword, 1)
        return None if values is None else float(values[0])


def is_dicom(path: Path, name: str) -> bool:
    """Whether a file is meant to be DICOM: by its suffix, the mark in its 129th byte, or its first element.

    Raises:
        DamagedError: The file cannot be read.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    with open_file(path, f"{name}: {path.name}") as file:
        start = file.read(MAGIC_END)
    return start[-4:] == b"DICM" or _is_bare(start)


def _is_bare(start: bytes) -> bool:
    """Whether a file begins with an element of group 0002 or 0008: DICOM without its preamble."""
    if len(start) < MAGIC_END:
        return False
    group, element, vr, length = struct.unpack("<HH2sH", start[:8])
    explicit = vr in (b"UL", b"CS", b"UI", b"DA", b"TM", b"OB", b"SH")
    implicit = length == vr[1] == 0 and (element > 0 or vr[0] == 4)  # the length of a group takes 4 bytes
    return group in (2, 8) and element <= _LAST_FIRST and (explicit or implicit)


def read_header(path: Path, name: str, keywords: Sequence[str] = ELEMENTS) -> Header:
    """Reads elements of a DICOM image, and sees whether its pixel data are there to their end.

    Args:
        path: The file.
        name: Name of the scan in messages.
        keywords: Elements to read, of the file meta information too.

    Raises:
        DamagedError: The file is unreadable, cut off, or no image.
    """
    header = read_any_header(path, name, keywords)
    check_whole(header, name)
    return header


def read_any_header(path: Path, name: str, keywords: Sequence[str] = ELEMENTS) -> Header:
    """Reads elements of a DICOM file, with pixel data or without.

    Args:
        path: The file.
        name: Name of the scan in messages.
        keywords: Elements to read, of the file meta information too.

    Raises:
        DamagedError: The file is unreadable.
    """
    with open_file(path, f"{name}: {path.name}") as file:
        try:
            with tolerant():
                data = dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(keywords))
                values = {keyword: _values(data, keyword) for keyword in keywords}
        except OSError:
            raise
        except Exception as error:  # pydicom raises errors of many kinds on damaged bytes
            raise _damaged(path, name) from error
        values = {keyword: parts for keyword, parts in values.items() if parts}
        try:
            return Header(path, values, _pixel_bytes(file, data))
        except ValueError:
            return Header(path, values, 0, whole=False)


def check_whole(header: Header, name: str) -> None:
    """Refuses a file without pixel data, or one that ends before they do.

    Args:
        header: Its header.
        name: Name of the scan in messages.

    Raises:
        DamagedError: The file is cut off, or no image.
    """
    if not header.whole:
        raise _damaged(header.path, name)


def _damaged(path: Path, name: str) -> DamagedError:
    return DamagedError(
        f"{name}: {path.name} is no readable DICOM image (cut off, damaged, or without pixels); copy it"
        " again, or take it out of the folder"
    )


@contextmanager
def tolerant() -> Iterator[None]:
    """Keeps pydicom from refusing or warning of values that break a rule; one thread at a time."""
    with _one_at_a_time, warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def _values(data: FileDataset, keyword: str) -> tuple[str, ...]:
    tag = Tag(tag_for_keyword(keyword) or 0)
    element = (data.file_meta if tag.group == 2 else data).get_item(tag)
    if element is None or element.value is None:
        return ()
    if not isinstance(element, RawDataElement):
        value = element.value
        return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value).strip(),)
    vr = element.VR or dictionary_VR(tag)
    if vr in ("US", "SS", "US or SS"):
        kind = "i2" if vr == "SS" or (vr != "US" and _is_signed(data)) else "u2"
        order = "<" if element.is_little_endian else ">"
        return tuple(str(number) for number in np.frombuffer(element.value, order + kind))
    charset = convert_encodings(data.get("SpecificCharacterSet"))
    text = decode_bytes(element.value, charset, TEXT_VR_DELIMS)
    parts = tuple(part.strip(" \0") for part in text.split("\\"))
    return () if parts == ("",) else tuple(map(_printable, parts))


def _is_signed(data: FileDataset) -> bool:
    return bool(data.get("PixelRepresentation"))


def _printable(text: str) -> str:
    """A text in which question marks stand for what a wrong character set left unreadable."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _pixel_bytes(file: IO[bytes], data: FileDataset) -> int | None:
    """The length of the pixel data, at which the file stands; None where they are encapsulated.

    Raises:
        ValueError: There are no pixel data, or the file ends before they do.
    """
    implicit, little = data.original_encoding
    order = "<" if little else ">"
    group, element, vr, length = struct.unpack(f"{order}HH2sH", _exactly(file, 8))
    if group << 16 | element != _PIXEL_DATA:
        raise ValueError("no pixel data")
    if implicit:
        file.seek(-4, os.SEEK_CUR)
    if implicit or vr.decode("latin-1") in EXPLICIT_VR_LENGTH_32:
        (length,) = struct.unpack(f"{order}I", _exactly(file, 4))
    size = os.fstat(file.fileno()).st_size
    if length == UNDEFINED_LENGTH:
        _check_fragments(file, size)
        return None
    if file.tell() + length > size:
        raise ValueError("cut off in its pixel data")
    return int(length)


def _check_fragments(file: IO[bytes], size: int) -> None:
    """Walks over the items of encapsulated pixel data (PS3.5, A.4)."""
    while len(start := file.read(8)) == 8:
        group, element, length = struct.unpack("<HHI", start)
        if group << 16 | element != _ITEM:
            return
        if file.tell() + length > size:
            raise ValueError("cut off in its pixel data")
        file.seek(length, os.SEEK_CUR)


def _exactly(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise ValueError("no pixel data")
    return content
