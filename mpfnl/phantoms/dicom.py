"""CT slices as DICOM files, byte for byte the same for the same content. The standard library and NumPy only.

ITK's writer stores uncompressed slices with implicit value representations and puts its version into each
file, so the few elements that a CT slice needs are encoded here (DICOM PS3.5 section 7, PS3.10 section 7).
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
INTERCEPT_HU = -1024

_LONG = ("OB", "OW")  # value representations with a length of 32 bits
_Element = tuple[int, int, str, bytes]


@dataclass(frozen=True)
class SliceHeader:
    """What a slice says of itself.

    Args:
        patient: PatientID, and PatientName too.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        instance: SOPInstanceUID.
        frame: FrameOfReferenceUID.
        series_number: SeriesNumber.
        number: InstanceNumber, from 1.
        position: Centre of the first voxel in mm, LPS.
        spacing: Voxel size in x and y in mm.
        thickness: SliceThickness in mm.
        image_type: ImageType.
        kernel: ConvolutionKernel.
        orientation: Directions of the rows and the columns, LPS.
        modality: Modality.
    """

    patient: str
    study: str
    series: str
    instance: str
    frame: str
    series_number: int
    number: int
    position: tuple[float, float, float]
    spacing: tuple[float, float]
    thickness: float
    image_type: str = "ORIGINAL\\PRIMARY\\AXIAL"
    kernel: str = "SOFT"
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
    modality: str = "CT"


def make_uid(*parts: object) -> str:
    """A UID under the root 2.25 that depends on the parts alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def encode_slice(hu: NDArray[np.int16], header: SliceHeader) -> bytes:
    """A DICOM file: 16 bit signed, explicit little endian, dates of 2000-01-01.

    Args:
        hu: The slice (row, column) in HU.
        header: What it says of itself.
    """
    meta = [
        (2, 0x01, "OB", b"\0\1"),
        (2, 0x02, "UI", _text(CT_IMAGE_STORAGE)),
        (2, 0x03, "UI", _text(header.instance)),
        (2, 0x10, "UI", _text(EXPLICIT_LITTLE_ENDIAN)),
        (2, 0x12, "UI", _text(make_uid("mpfnl phantom"))),
    ]
    coded = b"".join(map(_encode, meta))
    length = _encode((2, 0, "UL", struct.pack("<I", len(coded))))
    body = b"".join(map(_encode, _elements(hu, header)))
    return b"\0" * 128 + b"DICM" + length + coded + body


def _elements(hu: NDArray[np.int16], header: SliceHeader) -> list[_Element]:
    date, time = _text("20000101"), _text("000000")
    stored = (hu.astype(np.int32) - INTERCEPT_HU).astype("<i2")
    rows, columns = stored.shape
    return [
        (0x08, 0x08, "CS", _text(header.image_type)),
        (0x08, 0x16, "UI", _text(CT_IMAGE_STORAGE)),
        (0x08, 0x18, "UI", _text(header.instance)),
        *((0x08, element, "DA", date) for element in (0x20, 0x21, 0x22, 0x23)),
        *((0x08, element, "TM", time) for element in (0x30, 0x31, 0x32, 0x33)),
        (0x08, 0x50, "SH", b""),
        (0x08, 0x60, "CS", _text(header.modality)),
        (0x08, 0x70, "LO", b""),
        (0x08, 0x90, "PN", b""),
        (0x10, 0x10, "PN", _text(header.patient)),
        (0x10, 0x20, "LO", _text(header.patient)),
        (0x10, 0x30, "DA", b""),
        (0x10, 0x40, "CS", b""),
        (0x18, 0x15, "CS", _text("ABDOMEN")),
        (0x18, 0x50, "DS", _decimals(header.thickness)),
        (0x18, 0x60, "DS", b""),
        (0x18, 0x1210, "SH", _text(header.kernel)),
        (0x18, 0x5100, "CS", _text("HFS")),
        (0x20, 0x0D, "UI", _text(header.study)),
        (0x20, 0x0E, "UI", _text(header.series)),
        (0x20, 0x10, "SH", b""),
        (0x20, 0x11, "IS", _text(str(header.series_number))),
        (0x20, 0x12, "IS", b""),
        (0x20, 0x13, "IS", _text(str(header.number))),
        (0x20, 0x32, "DS", _decimals(*header.position)),
        (0x20, 0x37, "DS", _decimals(*header.orientation)),
        (0x20, 0x52, "UI", _text(header.frame)),
        (0x20, 0x1040, "LO", b""),
        (0x28, 0x02, "US", _short(1)),
        (0x28, 0x04, "CS", _text("MONOCHROME2")),
        (0x28, 0x10, "US", _short(rows)),
        (0x28, 0x11, "US", _short(columns)),
        (0x28, 0x30, "DS", _decimals(header.spacing[1], header.spacing[0])),
        (0x28, 0x100, "US", _short(16)),
        (0x28, 0x101, "US", _short(16)),
        (0x28, 0x102, "US", _short(15)),
        (0x28, 0x103, "US", _short(1)),
        (0x28, 0x1052, "DS", _decimals(INTERCEPT_HU)),
        (0x28, 0x1053, "DS", _decimals(1)),
        (0x28, 0x1054, "LO", _text("HU")),
        (0x7FE0, 0x10, "OW", stored.tobytes()),
    ]


def _encode(element: _Element) -> bytes:
    group, number, kind, value = element
    value += (b"\0" if kind in ("UI", *_LONG) else b" ") * (len(value) % 2)
    tag = struct.pack("<HH", group, number) + kind.encode()
    size = struct.pack("<HI", 0, len(value)) if kind in _LONG else struct.pack("<H", len(value))
    return tag + size + value


def _text(value: str) -> bytes:
    return value.encode("ascii")


def _short(value: int) -> bytes:
    return struct.pack("<H", value)


def _decimals(*values: float) -> bytes:
    return _text("\\".join(f"{value:.6f}".rstrip("0").rstrip(".") for value in values))
