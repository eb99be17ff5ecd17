"""Packed pixel data: what the stream of a slice says of itself, and its values, decoded by pydicom."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

PLUGINS: dict[UID, str] = {
    **dict.fromkeys((*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes), "gdcm"),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), "pylibjpeg"),
    RLELossless: "pylibjpeg",
}
"""The plug-in of pydicom that decodes each transfer syntax, whatever others are installed."""

_AS_LOSSLESS = {JPEGExtended12Bit: JPEGLosslessSV1}
"""GDCM has one decoder for all processes of JPEG, which pydicom does not let it use for 12 lossy bits."""

_FRAME_MARKERS = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers that begin a frame: of JPEG (T.81, table B.1) and of JPEG-LS (T.87, C.1.1)."""

_LOSSLESS_MARKERS = frozenset((0xC3, 0xC7, 0xCB, 0xCF, 0xF7))
_LOSSY_BITS = 12  # the most that lossy JPEG packs (T.81, table B.2); GDCM writes 16 where it packs 12

_SIZE_MARKER = b"\xff\x4f\xff\x51"
"""How a JPEG 2000 stream begins, whether or not it lies in a JP2 file (T.800, A.4 and A.5)."""


@dataclass(frozen=True)
class StreamFrame:
    """What a JPEG, JPEG-LS or JPEG 2000 stream says of its image.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        samples: Number of samples for each pixel.
        bits: Number of bits of a sample.
        signed: Whether samples are signed, as JPEG 2000 can say.
    """

    rows: int
    columns: int
    samples: int
    bits: int
    signed: bool


def first_frame(content: bytes) -> bytes:
    """The stream of the only frame in packed pixel data, whatever number of items it lies in (PS3.5, A.4).

    Args:
        content: Pixel data, from their first item on.

    Raises:
        ValueError: There is no frame.
    """
    stream = next(generate_frames(content, number_of_frames=1), b"")
    if not stream:
        raise ValueError("no frame")
    return stream


def describe_stream(stream: bytes) -> StreamFrame:
    """What a stream says of its image.

    Args:
        stream: A stream of JPEG, JPEG-LS or JPEG 2000.

    Raises:
        ValueError: It is none of them, or damaged.
    """
    start = stream.find(_SIZE_MARKER, 0, 1024)
    frame = _jpeg_frame(stream) if start < 0 else _jpeg_2000_frame(stream, start)
    if frame is None or min(frame.columns, frame.samples, frame.bits) < 1:
        raise ValueError("no image in the stream")
    return frame


def _jpeg_2000_frame(stream: bytes, start: int) -> StreamFrame | None:
    if len(stream) < start + 43:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", stream, start + 8)
    samples, depth = struct.unpack_from(">HB", stream, start + 40)
    return StreamFrame(bottom - top, right - left, samples, (depth & 0x7F) + 1, bool(depth >> 7))


def _jpeg_frame(stream: bytes) -> StreamFrame | None:
    place = 2 if stream[:2] == b"\xff\xd8" else len(stream)
    while place + 10 <= len(stream):
        if stream[place] != 0xFF:
            return None
        marker = stream[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        length, bits, rows, columns, samples = struct.unpack_from(">HBHHB", stream, place + 2)
        if marker in _FRAME_MARKERS:
            lossy = marker not in _LOSSLESS_MARKERS
            return StreamFrame(rows, columns, samples, min(bits, _LOSSY_BITS) if lossy else bits, False)
        place += 2 + length
    return None


def decode_stream(stream: bytes, syntax: UID, rows: int, columns: int, frame: StreamFrame) -> NDArray[Any]:
    """The values of a stream, as it says that they are: not yet what the file's header says of them.

    Args:
        stream: The stream of one frame.
        syntax: Its transfer syntax, one of `PLUGINS`.
        rows: Number of rows.
        columns: Number of columns.
        frame: Bits and sign of the values.

    Returns:
        Whole numbers (rows, columns), of 8, 16 or 32 bits.

    Raises:
        ValueError: The plug-in finds the stream damaged.
        RuntimeError: As above.
    """
    known = _AS_LOSSLESS.get(syntax, syntax)
    allocated = next(size for size in (8, 16, 32) if frame.bits <= size)
    buffer, found = get_decoder(known).as_buffer(
        encapsulate([stream], has_bot=False),
        index=0,
        decoding_plugin=PLUGINS[syntax],
        rows=rows,
        columns=columns,
        number_of_frames=1,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=allocated,
        bits_stored=frame.bits,
        pixel_representation=int(frame.signed),
        pixel_keyword="PixelData",
    )
    dtype = np.dtype(f"<{'i' if frame.signed else 'u'}{int(found['bits_allocated']) // 8}")
    return np.frombuffer(buffer, dtype).reshape(rows, columns)
