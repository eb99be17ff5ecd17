"""The header of one DICOM file: the elements that are asked for, and nothing else that names a patient."""

from __future__ import annotations

import math
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import config
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, TEXT_VR_DELIMS

from mpfnl.errors import DamagedError
from mpfnl.volumes.fileio import open_file, readable

SUFFIXES = (".dcm", ".dicom", ".ima")
MAGIC_END = 132  # the preamble of 128 bytes and "DICM" (PS3.10, 7.1)
UNDEFINED_LENGTH = 0xFFFFFFFF
ITEM = b"\xfe\xff\x00\xe0"
"""The tag of an item, with which packed pixel data begin (PS3.5, A.4)."""

_PIXEL_DATA = 0x7FE00010
_LAST_FIRST = 0x18  # the last element with which a file begins: (0008,0018), SOPInstanceUID
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, _PIXEL_DATA))  # as floats, as doubles, as whole numbers
_BINARY = {"UL": "u4", "SL": "i4", "FL": "f4", "FD": "f8"}
_ESCAPE = b"\x1b"  # begins another character set within a text (PS3.5, 6.1.2.5.3)

ELEMENTS = (
    "MediaStorageSOPClassUID",
    "ImageType",
    "SOPClassUID",
    "AcquisitionDate",
    "AcquisitionDateTime",
    "AcquisitionTime",
    "ContentTime",
    "Modality",
    "SeriesDescription",
    "PatientName",
    "PatientID",
    "SliceThickness",
    "KVP",
    "SpacingBetweenSlices",
    "TriggerTime",
    "FilterType",
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
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "ModalityLUTSequence",
)
"""Keywords of the elements that reading a scan needs."""

_one_at_a_time = threading.RLock()


@dataclass(frozen=True)
class PixelPlace:
    """The place of the pixel data in a file.

    Args:
        offset: Position of the first byte; in a deflated file that of the inflated one.
        length: Number of bytes; None where it is undefined.
        syntax: The transfer syntax.
    """

    offset: int
    length: int | None
    syntax: UID


@dataclass(frozen=True)
class Header:
    """Elements of a DICOM file.

    Args:
        path: The file.
        values: Text of each value of the elements that the file has, by keyword. A sequence that has items
            has the value "items".
        pixels: The place of the pixel data; None where there are none, or not to their end.
        fault: What is wrong with the pixel data, in words; empty where nothing is.
    """

    path: Path
    values: Mapping[str, tuple[str, ...]] = field(repr=False)
    pixels: PixelPlace | None
    fault: str = ""

    @property
    def whole(self) -> bool:
        """Whether the pixel data are there to their end."""
        return self.pixels is not None

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
        try:
            (value,) = map(float, self.parts(keyword))
        except ValueError:
            return None
        return value if math.isfinite(value) else None


def is_dicom(path: Path, name: str) -> bool:
    """Whether a file is meant to be DICOM: by its suffix, the mark in its 129th byte, or its first element.

    Raises:
        DamagedError: The file cannot be read.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    with open_file(path, f"{name}: {path.name}") as file:
        start = file.read(MAGIC_END)
    return start[MAGIC_END - 4 :] == b"DICM" or _is_bare(start)


def _is_bare(start: bytes) -> bool:
    """Whether a file begins with an element of group 0002 or 0008: DICOM without its preamble."""
    if len(start) < MAGIC_END:
        return False
    group, element, vr, length = struct.unpack("<HH2sH", start[:8])
    explicit = vr in (b"UL", b"CS", b"UI", b"DA", b"TM", b"OB", b"SH")
    implicit = length == vr[1] == 0 and (element > 0 or vr[0] == 4)  # the length of a group takes 4 bytes
    return group in (2, 8) and element <= _LAST_FIRST and (explicit or implicit)


def read_header(path: Path, name: str, keywords: Sequence[str] = ELEMENTS) -> Header:
    """Reads elements of a DICOM file, and sees whether its pixel data are there to their end.

    Args:
        path: The file.
        name: Name of the scan in messages.
        keywords: Elements to read, of the file meta information too; `ELEMENTS` among them.

    Raises:
        DamagedError: The file is unreadable or cut off, or an image without pixel data.
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
    with readable(f"{name}: {path.name}"), path.open("rb") as file:
        try:
            with tolerant():
                data, pixels = _read_elements(file, keywords)
                values = {keyword: parts for keyword in keywords if (parts := _values(data, keyword))}
        except OSError:
            raise
        except Exception as error:  # pydicom raises errors of many kinds on damaged bytes
            raise _damaged(path, "cut off or damaged", name) from error
        try:
            place = _place(file, data, pixels)
        except ValueError as error:
            return Header(path, values, None, str(error))
        return Header(path, values, place)


def check_whole(header: Header, name: str) -> None:
    """Refuses a file without pixel data, or one that ends before they do.

    Args:
        header: Its header.
        name: Name of the scan in messages.

    Raises:
        DamagedError: The file is cut off, or no image.
    """
    if not header.whole:
        raise _damaged(header.path, header.fault, name)


def _damaged(path: Path, fault: str, name: str) -> DamagedError:
    return DamagedError(
        f"{name}: {path.name} is no readable DICOM image ({fault}); copy it again, or take it out of the"
        " folder"
    )


def read_pixel_data(header: Header, name: str, space: NDArray[np.uint8] | None = None) -> memoryview:
    """The pixel data of a file as they lie in it: packed ones with their items, to the end of the file.

    Args:
        header: Header of a file with pixel data.
        name: Name of the scan in messages.
        space: Memory for them, where they fit into it.

    Raises:
        DamagedError: The file cannot be read any more, or has become shorter.
    """
    place = header.pixels
    if place is None:
        raise ValueError(f"{header.path} has no pixel data")
    with readable(f"{name}: {header.path.name}"), header.path.open("rb") as file:
        if place.syntax == DeflatedExplicitVRLittleEndian:
            return memoryview(_inflated_pixels(file))
        file.seek(place.offset)
        if space is None or place.length is None or place.length > len(space):
            content = memoryview(file.read(-1 if place.length is None else place.length))
        else:
            content = memoryview(space.data)[: place.length]
            content = content[: file.readinto(content)]
    if len(content) < (place.length or 0):
        raise DamagedError(f"{name}: {header.path.name} is cut off in its pixels; copy it again")
    return content


@contextmanager
def tolerant() -> Iterator[None]:
    """Keeps pydicom from refusing or warning of values that break a rule; one thread at a time."""
    with _one_at_a_time, warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class _PixelElement:
    """How the element of the pixel data begins.

    Args:
        tag: Its tag: of whole numbers, floats or doubles.
        vr: The representation that is written there, whatever the transfer syntax says; None for implicit VR.
        length: The length that is written there.
    """

    tag: int
    vr: str | None
    length: int


def _read_elements(file: BinaryIO, keywords: Sequence[str]) -> tuple[FileDataset, _PixelElement | None]:
    """The elements before the pixel data, and how these begin, where the file then stands."""
    found: list[_PixelElement] = []

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if tag not in _PIXELS:
            return False
        found.append(_PixelElement(tag, vr, length))
        return True

    tags: list[BaseTag | int] = [_tag(keyword) for keyword in keywords]
    data = read_partial(file, at_pixels, force=True, specific_tags=tags)
    return data, found[-1] if found else None


def _place(file: BinaryIO, data: FileDataset, pixels: _PixelElement | None) -> PixelPlace:
    """The place of the pixel data, before whose element the file stands.

    Raises:
        ValueError: There are none, or the file ends before they do.
    """
    if pixels is None:
        raise ValueError("without PixelData, or cut off before them")
    if pixels.tag != _PIXEL_DATA:
        raise ValueError("its pixels are in floating point, which CT does not have")
    length = pixels.length
    implicit, little = data.original_encoding
    syntax = data.file_meta.get("TransferSyntaxUID") or _plain_syntax(bool(implicit), bool(little))
    size = os.fstat(file.fileno()).st_size
    if syntax == DeflatedExplicitVRLittleEndian:
        file.seek(0)
        return PixelPlace(0, len(_inflated_pixels(file)), syntax)
    offset = file.seek(12 if pixels.vr in EXPLICIT_VR_LENGTH_32 else 8, os.SEEK_CUR)
    if length == UNDEFINED_LENGTH:
        _check_fragments(file, size)
        return PixelPlace(offset, None, syntax)
    if offset + length > size:
        raise ValueError("cut off in its pixel data")
    return PixelPlace(offset, length, syntax)


def _plain_syntax(implicit: bool, little: bool) -> UID:
    """The transfer syntax of a file that states none, from the way in which its elements are written."""
    if not little:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _inflated_pixels(file: BinaryIO) -> bytes:
    """The pixel data of a deflated file (PS3.5, A.5).

    Raises:
        ValueError: The file is cut off.
    """
    try:
        element = read_partial(file, force=True, specific_tags=[_PIXEL_DATA]).get_item(_PIXEL_DATA)
    except zlib.error as error:
        raise ValueError("cut off or damaged") from error
    value = None if element is None else element.value
    if not isinstance(element, RawDataElement) or not isinstance(value, bytes) or len(value) < element.length:
        raise ValueError("cut off in its pixel data")
    return value


def _check_fragments(file: BinaryIO, size: int) -> None:
    """Walks over the items of packed pixel data (PS3.5, A.4)."""
    while len(start := file.read(8)) == 8 and start[:4] == ITEM:
        length = int.from_bytes(start[4:], "little")
        if file.tell() + length > size:
            raise ValueError("cut off in its pixel data")
        file.seek(length, os.SEEK_CUR)


@lru_cache(maxsize=256)
def _tag(keyword: str) -> BaseTag:
    return Tag(tag_for_keyword(keyword) or 0)


def _values(data: FileDataset, keyword: str) -> tuple[str, ...]:
    tag = _tag(keyword)
    element = (data.file_meta if tag.group == 2 else data).get_item(tag)
    if element is None or element.value is None:
        return ()
    vr = element.VR if element.VR not in (None, "UN") else dictionary_VR(tag)
    if vr == "SQ":
        return ("items",) if element.value else ()
    if not isinstance(element, RawDataElement):
        value = element.value
        return tuple(map(str, value)) if isinstance(value, list | tuple) else (str(value).strip(),)
    if vr in ("US", "SS", "US or SS"):
        kind = "i2" if vr == "SS" or (vr != "US" and _is_signed(data)) else "u2"
        order = "<" if element.is_little_endian else ">"
        return tuple(map(str, np.frombuffer(element.value, order + kind).tolist()))
    if vr in _BINARY:
        order = "<" if element.is_little_endian else ">"
        return tuple(map(str, np.frombuffer(element.value, order + _BINARY[vr]).tolist()))
    parts = tuple(_printable(part.strip(" \0")) for part in _text(element.value, data).split("\\"))
    return () if parts == ("",) else parts


def _is_signed(data: FileDataset) -> bool:
    return bool(data.get("PixelRepresentation"))


def _text(value: bytes, data: FileDataset) -> str:
    if value.isascii() and _ESCAPE not in value:
        return value.decode("ascii")
    return decode_bytes(value, convert_encodings(data.get("SpecificCharacterSet")), TEXT_VR_DELIMS)


def _printable(text: str) -> str:
    """A text in which question marks stand for what a wrong character set left unreadable."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else "?" for letter in text)
