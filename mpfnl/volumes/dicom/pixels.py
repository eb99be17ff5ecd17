"""The pixels of slices in HU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import RLELossless, UncompressedTransferSyntaxes
from scipy.ndimage import label as label_regions

from mpfnl.errors import DamagedError, FormatError
from mpfnl.volumes.dicom.headers import ITEM, PixelPlace, read_pixel_data
from mpfnl.volumes.dicom.slices import Slice
from mpfnl.volumes.dicom.stored import WORDS
from mpfnl.volumes.dicom.streams import PLUGINS, StreamFrame, decode_stream, describe_stream, first_frame
from mpfnl.volumes.fileio import by
from mpfnl.volumes.quiet import quiet_errors
from mpfnl.window import AIR_HU

HIGHEST_HU = 3071
"""The end of the usual 12-bit scale. A padding value within it could be tissue and is left alone; at its
end it could be metal, unless it reaches the border of the slice."""

BEYOND_ANY_HU = 32767
"""No scanner tells more: extended scales end at 30710 HU or 31743 HU."""


def read_stack(
    slices: Sequence[Slice], name: str, known: Mapping[Slice, NDArray[Any]] | None = None
) -> NDArray[Any]:
    """The pixels of slices of one size in HU; each is written into the volume as soon as it is read.

    Args:
        slices: The slices, at least one.
        name: Name of the scan in messages.
        known: Pixels that were read already.

    Returns:
        Voxels (x, y, z), at least -1024: int16 or int32 where they are whole numbers, else float32, or
        float64 where float32 would change one.

    Raises:
        InputError: The pixels of a slice cannot be read.
    """
    known = known or {}
    hu = np.empty((*slices[0].shape, len(slices)), np.int16, order="F")
    space = np.empty(hu[:, :, 0].size * max(WORDS) // 8, np.uint8)
    for index, each in enumerate(slices):
        out = hu[:, :, index] if hu.dtype == np.int16 else None
        plane = known[each] if each in known else read_pixels(each, name, space, out)
        dtype = np.result_type(hu, plane)
        if dtype != hu.dtype:
            wider = np.empty(hu.shape, dtype, order="F")
            wider[:, :, :index] = hu[:, :, :index]
            hu = wider
        if not np.may_share_memory(hu, plane):
            hu[:, :, index] = plane
    return hu


def read_pixels(
    each: Slice,
    name: str,
    space: NDArray[np.uint8] | None = None,
    out: NDArray[np.int16] | None = None,
) -> NDArray[Any]:
    """The pixels of a slice in HU.

    Args:
        each: The slice.
        name: Name of the scan in messages.
        space: Memory for the pixel data of the file.
        out: Memory for the result, (x, y), where int16 holds it.

    Returns:
        Pixels (x, y): columns, then rows; number types as in `read_stack`.

    Raises:
        DamagedError: The pixels are cut off, damaged, or not as many as the header says.
        FormatError: They are packed in a way that cannot be read, or contradict the header.
    """
    label = f"{name}: {each.path.name}"
    words = _words(each, read_pixel_data(each.header, name, space), label)
    numbers = each.stored.numbers(words, label)
    hu = _rescaled(numbers, each.slope, each.intercept, None if out is None else out.T)
    highest = hu.max()
    if highest > HIGHEST_HU or each.stored.padding_is_apart:
        hu[each.stored.is_padding(words, numbers, hu > HIGHEST_HU)] = AIR_HU
    for at_end in _padding_at_end(each, numbers):
        hu[_reaching_border(at_end)] = AIR_HU
    if highest > BEYOND_ANY_HU:
        hu[_surround(hu)] = AIR_HU
    return _narrowed(np.maximum(hu, AIR_HU, out=hu)).T


def _rescaled(
    numbers: NDArray[Any], slope: float, intercept: float, out: NDArray[np.int16] | None
) -> NDArray[Any]:
    """Numbers times the slope plus the intercept; int16, int32 or float64, which holds each step."""
    if slope.is_integer() and intercept.is_integer():
        factor, term = int(slope), int(intercept)
        ends = [int(numbers.min()), int(numbers.max())]
        products = [end * factor for end in ends]
        steps = [*ends, *products, term, *(product + term for product in products)]
        for dtype in (np.int16, np.int32):
            if np.iinfo(dtype).min <= min(steps) and max(steps) <= np.iinfo(dtype).max:
                hu = out if out is not None and dtype == np.int16 else np.empty(numbers.shape, dtype)
                np.copyto(hu, numbers, casting="unsafe")
                if factor != 1:
                    hu *= factor
                hu += term
                return hu
    return numbers * slope + intercept  # float64 holds each number of 32 bits


def _padding_at_end(each: Slice, numbers: NDArray[Any]) -> Iterator[NDArray[np.bool_]]:
    """Pixels of a number that the header names as padding, and that ends the scale of HU or of the bits."""
    if each.stored.padding is None:
        return
    top = max(each.stored.ends, key=lambda end: end * each.slope)
    last = (HIGHEST_HU - each.intercept) / each.slope
    for end in {float(top), last}:
        if each.stored.names_padding(np.array(end)).any() and (at_end := numbers == end).any():
            yield at_end


def _reaching_border(pixels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Those of the pixels (rows, columns) from which a way over others leads to the border of the slice."""
    regions, _ = label_regions(pixels)
    outer = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return np.asarray(pixels & np.isin(regions, outer[outer > 0]))


def _surround(hu: NDArray[Any]) -> NDArray[np.bool_]:
    """The pixels around the field of view that no header names as padding.

    They are beyond any HU, hold one and the same number, and reach the border of the slice, as where -2000
    was written as 63536. Metal does not reach it, and does not hold one number.

    Args:
        hu: Pixels (rows, columns).
    """
    beyond = hu > BEYOND_ANY_HU
    border = np.concatenate([hu[0], hu[-1], hu[1:-1, 0], hu[1:-1, -1]])
    border = border[border > BEYOND_ANY_HU]
    if border.size < 2 or (hu[beyond] != border[0]).any():
        return np.zeros_like(beyond)
    return beyond


def _narrowed(hu: NDArray[Any]) -> NDArray[Any]:
    """The same HU in the number type of `read_stack`."""
    if hu.dtype == np.int16:
        return hu
    if hu.dtype.kind == "f":
        rounded = np.rint(hu)
        if not np.array_equal(rounded, hu) or rounded.max() > np.iinfo(np.int32).max:
            single = hu.astype(np.float32)
            return single if np.array_equal(single, hu) else hu
        hu = rounded
    fits = hu.max() <= np.iinfo(np.int16).max  # they are at least -1024
    return hu.astype(np.int16 if fits else np.int32)


def _words(each: Slice, content: memoryview, label: str) -> NDArray[Any]:
    """The words of a slice (rows, columns)."""
    place = each.header.pixels
    if place is None:
        raise DamagedError(f"{label} has no pixels; copy the series again")
    packed = place.syntax in PLUGINS
    if content[: len(ITEM)] == ITEM and (packed or place.length is None):
        return _unpacked(each, bytes(content), place, label)
    if packed:
        raise FormatError(
            f"{label} has pixels that are not packed, but says that they are ({place.syntax.name}); export"
            " the series again"
        )
    if place.syntax not in UncompressedTransferSyntaxes:
        raise _cannot_unpack(place, label)
    return _plain(each, content, place, label)


def _plain(each: Slice, content: memoryview, place: PixelPlace, label: str) -> NDArray[Any]:
    """Words that are not packed.

    Bytes after the last word are padding (PS3.5, 8.1.1, note) where they are too few for another row and
    another column, or zeros that are not whole columns; else the header's number of rows or columns is wrong.
    Zeros that are whole rows are no patient, and move no pixel; with a column too few every pixel is moved.
    """
    columns, rows = each.shape
    word = each.stored.word.newbyteorder("<" if place.syntax.is_little_endian else ">")
    needed = columns * rows * word.itemsize
    rest = content[needed:]
    fewest = min(each.shape) * word.itemsize
    whole = len(rest) % (rows * word.itemsize) == 0
    if len(content) < needed or (len(rest) >= fewest and (whole or any(rest))):
        raise DamagedError(
            f"{label} holds {len(content)} bytes of pixels, not the {needed} that its header asks for"
            f" ({by((columns, rows))} pixels); copy the file again"
        )
    words = np.frombuffer(content, word, columns * rows).reshape(rows, columns)
    return words if word.isnative else words.astype(each.stored.word)


def _unpacked(each: Slice, content: bytes, place: PixelPlace, label: str) -> NDArray[Any]:
    """Words that were packed."""
    if place.syntax in UncompressedTransferSyntaxes:
        raise FormatError(
            f"{label} has packed pixels, but says that they are not packed ({place.syntax.name}); export the"
            " series again"
        )
    if place.syntax not in PLUGINS:
        raise _cannot_unpack(place, label)
    columns, rows = each.shape
    try:
        stream = first_frame(content)
        if place.syntax == RLELossless:  # does not describe itself
            frame = StreamFrame(rows, columns, 1, each.stored.allocated, each.stored.signed)
        else:
            frame = describe_stream(stream)
        _check_frame(frame, each, label)
        with quiet_errors():
            words = decode_stream(stream, place.syntax, rows, columns, frame)
    except FormatError:
        raise
    except Exception as error:  # each decoder raises errors of its own on damaged bytes
        raise DamagedError(
            f"{label} has damaged pixels ({place.syntax.name}); copy the file again"
        ) from error
    return _as_words(words, frame, each, label)


def _check_frame(frame: StreamFrame, each: Slice, label: str) -> None:
    columns, rows = each.shape
    if (frame.columns, frame.rows, frame.samples) != (columns, rows, 1) and frame.rows:
        colours = f" of {frame.samples} colours" if frame.samples != 1 else ""
        raise FormatError(
            f"{label} packs {by((frame.columns, frame.rows))} pixels{colours}, but its header says"
            f" {by((columns, rows))}; export the series again"
        )
    if frame.bits > each.stored.allocated:
        raise FormatError(
            f"{label} packs pixels of {frame.bits} bits, but its header says {each.stored.allocated}; export"
            " the series again"
        )


def _as_words(values: NDArray[Any], frame: StreamFrame, each: Slice, label: str) -> NDArray[Any]:
    """The words that were packed.

    A stream says how many bits its values have, and JPEG 2000 whether they are signed. Where it says another
    sign than the header, the bits are still those of the header, unless it has too few of them.
    """
    signed = each.stored.signed
    if frame.signed != signed and frame.bits < each.stored.stored:
        unclear = values.min() < 0 if frame.signed else values.max() >> frame.bits - 1
        if unclear:
            kinds = ("signed", "unsigned") if frame.signed else ("unsigned", "signed")
            raise FormatError(
                f"{label} packs {kinds[0]} pixels of {frame.bits} bits, but its header says {kinds[1]} ones"
                f" of {each.stored.stored}; export the series again"
            )
    wide = f"{values.dtype.kind}{each.stored.allocated // 8}"
    return values.astype(wide).view(each.stored.word)


def _cannot_unpack(place: PixelPlace, label: str) -> FormatError:
    return FormatError(
        f"{label} packs its pixels as {place.syntax.name}, which cannot be read; unpack the series, e.g. with"
        " gdcmconv --raw"
    )
