"""NRRD and MetaImage files: ITK reads their headers, which are checked for what ITK lets pass.

ITK takes a damaged compressed MetaImage without a word, does not compare the gzip checksum of a NRRD, passes
over skips, units and slopes, and invents a place for a header without one. So the text header is searched for
these, and the stored bytes are read here, to their end.

The formats: teem.sourceforge.net/nrrd/format.html, itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import os
import re
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mpfnl.errors import DamagedError, FormatError, GridError, IntensityError, NotFoundError
from mpfnl.volumes.fileio import (
    Unpacked,
    check_file,
    check_shape,
    cut_off,
    guess_content,
    numbers,
    one_line,
    open_file,
)
from mpfnl.volumes.formats import Format, StoredArray
from mpfnl.volumes.grid import CONVERT, SPACING_TOLERANCE, Grid, affine_from_lps, check_affine
from mpfnl.volumes.quiet import quiet_errors

LONGEST_HEADER = 1 << 20
"""Bytes within which a text header must end."""

_TYPES = ("Int8", "UInt8", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float32", "Float64")
_DTYPES = {
    getattr(sitk, f"sitk{vector}{kind}"): np.dtype(kind.lower())
    for kind in _TYPES
    for vector in ("", "Vector")
}
_MM = {"", "mm", "millimeter", "millimeters", "millimetre", "millimetres"}
_ELEMENTS = "MET_(U?(CHAR|SHORT|INT|LONG|LONG_LONG)|FLOAT|DOUBLE)(_ARRAY)?"
_SPACES = "(right|left)-anterior-superior|left-posterior-superior|ras|las|lps"


@dataclass(frozen=True)
class TextHeader:
    """The fields of a text header, and where its voxels are stored.

    Args:
        fields: Values by their keys in lower case.
        file: File of the voxels: the image itself, or a detached one.
        offset: Position of the first voxel in bytes.
        packed: Whether the voxels are deflated (gzip or zlib).
        big_endian: Whether the first byte of a number is its highest.
    """

    fields: Mapping[str, str]
    file: Path
    offset: int
    packed: bool
    big_endian: bool


class ItkFormat(Format):
    """An image with a text header that ITK reads."""

    suffixes: ClassVar[tuple[str, ...]]
    image_io: ClassVar[str]
    """ITK's name of the reader."""

    @abstractmethod
    def parse(self, path: Path, block: bytes, name: str) -> TextHeader:
        """The text header at the beginning of a file.

        Args:
            path: The file.
            block: Its first bytes.
            name: Name of the scan in messages.

        Raises:
            InputError: The header is of another format, or cut off; or it says what ITK would pass over.
        """

    def matches(self, path: Path) -> bool:
        """Whether a file has a suffix of the format."""
        return path.suffix.lower() in self.suffixes and os.path.isfile(path)

    def files(self, path: Path, name: str) -> list[Path]:
        """The header and, where it is detached, the file of the voxels."""
        return list(dict.fromkeys([path, self._header(path, name).file]))

    def open(self, path: Path, name: str) -> StoredArray:
        """Reads the image.

        Raises:
            InputError: The file is missing, of another format, cut off, damaged, not one scalar 3-D image, or
                has no place in the world.
        """
        header = self._header(path, name)
        if not os.path.isfile(header.file):
            raise NotFoundError(
                f"{name}: its voxels should lie in {header.file}, which is missing; copy both files"
            )
        reader = sitk.ImageFileReader()
        reader.SetImageIO(self.image_io)
        reader.SetFileName(str(path))
        try:
            with silent():
                reader.ReadImageInformation()
        except RuntimeError as error:
            reason = one_line(error).rpartition("ERROR: ")[2]
            raise FormatError(f"{name}: ITK cannot read it ({reason}); convert it again") from error
        grid, dtype = _grid(reader, name), _dtype(reader, name)
        return StoredArray(_read_voxels(header, grid.shape, dtype, name), grid)

    def _header(self, path: Path, name: str) -> TextHeader:
        check_file(path, name)
        with open_file(path, name) as file:
            block = file.read(LONGEST_HEADER)
        if not block:
            raise DamagedError(f"{name}: is empty; copy or convert it again")
        return self.parse(path, block, name)


class NrrdFormat(ItkFormat):
    """NRRD: .nrrd, or .nhdr with its voxels in a file beside it; raw or gzip encoding."""

    suffixes = (".nrrd", ".nhdr")
    image_io = "NrrdImageIO"

    def parse(self, path: Path, block: bytes, name: str) -> TextHeader:
        """The text header; see `ItkFormat.parse`."""
        if not re.match(rb"NRRD000\d\r?\n", block):
            what = guess_content(block) or "is not a NRRD image; give a scan in HU"
            raise FormatError(f"{name}: {what}")
        blank = re.search(rb"\n\r?\n", block)
        lines = (block[: blank.start()] if blank else block).decode("latin-1").splitlines()[1:]
        fields = _fields((line for line in lines if not line.startswith("#")), ": ")
        data_file = fields.get("data file", fields.get("datafile", ""))
        if not blank and not data_file:
            raise DamagedError(f"{name}: is cut off in its header; copy or convert it again")
        if not re.fullmatch(_SPACES, fields.get("space", "").lower()):
            raise _no_orientation(name, "space must be LPS, RAS or LAS")
        _check_there(fields, ("space directions", "space origin"), name)
        _check_mm(set(re.findall(r'"([^"]*)"', fields.get("space units", ""))), name)
        encoding = fields.get("encoding", "").lower()
        if encoding not in ("raw", "gzip", "gz"):
            raise FormatError(f"{name}: its encoding is {encoding!r}; save it again as raw or gzip")
        _check_no_skip(fields, ("byte skip", "byteskip", "line skip", "lineskip"), name)
        file, offset = _place(path, data_file, blank.end() if blank else len(block), name)
        return TextHeader(fields, file, offset, encoding != "raw", fields.get("endian", "").lower() == "big")


class MetaImageFormat(ItkFormat):
    """MetaImage: .mha, or .mhd with its voxels in a file beside it; raw or zlib-compressed."""

    suffixes = (".mha", ".mhd")
    image_io = "MetaImageIO"

    def parse(self, path: Path, block: bytes, name: str) -> TextHeader:
        """The text header; see `ItkFormat.parse`."""
        last = re.search(rb"^ElementDataFile\s*=[^\n]*(\n|\Z)", block, re.MULTILINE)
        text = (block[: last.end()] if last else block[:4096]).decode("latin-1")
        fields = _fields(text.splitlines(), "=")
        if last is None or "ndims" not in fields:
            if "ndims" in fields:
                raise DamagedError(f"{name}: is cut off in its header; copy or convert it again")
            what = guess_content(block) or "is not a MetaImage; copy or convert it again"
            raise FormatError(f"{name}: {what}")
        for keys in (("transformmatrix", "rotation", "orientation"), ("offset", "position", "origin")):
            _check_there(fields, (next((key for key in keys if key in fields), keys[0]),), name)
        _check_there(fields, ("elementspacing",), name)
        _check_mm({fields.get("distanceunits", "")} - {"?"}, name)
        kind = fields.get("elementtype", "")
        if not re.fullmatch(_ELEMENTS, kind):
            raise FormatError(f"{name}: its element type is {kind!r}; give one real number a voxel, in HU")
        if not _flag(fields.get("binarydata", "True")):
            raise FormatError(f"{name}: holds its voxels as text; save it again in binary")
        _check_no_skip(fields, ("headersize",), name)
        scaling = [fields.get(f"elementtointensityfunction{part}", "") for part in ("slope", "offset")]
        if not (_is(scaling[0], 1.0) and _is(scaling[1], 0.0)):
            raise IntensityError(f"{name}: its values have a slope or an offset; save it again in HU")
        named = fields["elementdatafile"]
        file, offset = _place(path, "" if named.upper() == "LOCAL" else named, last.end(), name)
        order = fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", ""))
        packed = fields.get("compresseddata", "")
        return TextHeader(fields, file, offset, _flag(packed), _flag(order))


@contextmanager
def silent() -> Iterator[None]:
    """Keeps ITK and the libraries under it from writing to the standard error; one thread at a time."""
    with quiet_errors():
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _fields(lines: Iterator[str] | list[str], separator: str) -> dict[str, str]:
    pairs = (line.partition(separator) for line in lines)
    return {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}


def _flag(value: str) -> bool:
    return value[:1] in ("T", "t", "1")  # as MetaIO


def _is(value: str, number: float) -> bool:
    """Whether a field is empty or holds this number."""
    try:
        return not value or float(value) == number
    except ValueError:
        return False


def _no_orientation(name: str, reason: str) -> GridError:
    return GridError(f"{name}: has no orientation ({reason}); {CONVERT}")


def _check_there(fields: Mapping[str, str], keys: tuple[str, ...], name: str) -> None:
    for key in keys:
        if not fields.get(key):
            raise _no_orientation(name, f"{key} must be set")


def _check_mm(units: set[str], name: str) -> None:
    if {unit.lower() for unit in units} - _MM:
        raise GridError(f"{name}: its lengths are not in mm; give a scan with its spacing in mm")


def _check_no_skip(fields: Mapping[str, str], keys: tuple[str, ...], name: str) -> None:
    if any(fields.get(key, "0") not in ("", "0") for key in keys):
        raise FormatError(f"{name}: its voxels start after a skip; save it again without one")


def _place(path: Path, data_file: str, header_end: int, name: str) -> tuple[Path, int]:
    """The file of the voxels and the position of the first; a detached file is relative to the header."""
    if data_file.upper().startswith("LIST") or "%" in data_file:
        raise FormatError(f"{name}: its voxels lie in several files; save it again as one file")
    return (path.parent / data_file, 0) if data_file else (path, header_end)


def _grid(reader: sitk.ImageFileReader, name: str) -> Grid:
    shape = check_shape(reader.GetSize(), name)
    axes = reader.GetDimension()  # more than three where the others hold one voxel
    spacing = np.array(reader.GetSpacing())[:3]
    directions = np.array(reader.GetDirection()).reshape(axes, axes)[:3, :3]
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise GridError(f"{name}: its voxel spacing is {numbers(spacing)} mm, not positive; {CONVERT}")
    if (np.abs(np.linalg.norm(directions, axis=0) - 1) > SPACING_TOLERANCE).any():
        raise GridError(f"{name}: its axes are not of length 1; {CONVERT}")
    affine = affine_from_lps(np.array(reader.GetOrigin())[:3], directions, spacing)
    check_affine(affine, name)
    return Grid(shape, affine)


def _dtype(reader: sitk.ImageFileReader, name: str) -> np.dtype[np.generic]:
    dtype = _DTYPES.get(reader.GetPixelID())
    if dtype is None or reader.GetNumberOfComponents() != 1:
        channels, kind = reader.GetNumberOfComponents(), sitk.GetPixelIDValueAsString(reader.GetPixelID())
        raise FormatError(
            f"{name}: holds {channels} channels of type {kind!r}; give one real number a voxel, in HU"
        )
    return dtype


def _read_voxels(
    header: TextHeader, shape: tuple[int, int, int], dtype: np.dtype[Any], name: str
) -> NDArray[Any]:
    """The voxels (x, y, z), which lie in the file with x running fastest.

    Bytes after the last voxel are passed over where they cannot be voxels: after a packed stream, and after
    an image in one file with its header where they are less than a slice.

    Raises:
        DamagedError: The bytes are not as many as the header says, or the stream is damaged.
    """
    stored = np.empty(shape, dtype.newbyteorder(">" if header.big_endian else "<"), order="F")
    view = memoryview(cast("Any", stored.reshape(-1, order="F").view(np.uint8)))
    with open_file(header.file, name) as file:
        length = os.fstat(file.fileno()).st_size - header.offset
        file.seek(header.offset)
        if header.packed:
            surplus = _unpack(file, view, shape, dtype.itemsize, name)
        elif length < len(view) or cast("Any", file).readinto(view) < len(view):
            raise cut_off(shape, dtype.itemsize, name)
        else:
            surplus = length - len(view)
            if header.offset and surplus < len(view) // shape[2]:
                surplus = 0
    if surplus:
        raise DamagedError(f"{name}: holds more bytes than the voxels of its header take; convert it again")
    return stored.astype(dtype, order="K", copy=False)


def _unpack(file: IO[bytes], view: memoryview, shape: tuple[int, int, int], itemsize: int, name: str) -> int:
    """Fills a view and reads the stream to its checksum; returns whether more follows."""
    try:
        stream = Unpacked(file)
        if stream.readinto(view) < len(view):
            raise cut_off(shape, itemsize, name)
        return len(stream.read(1))
    except EOFError as error:
        raise cut_off(shape, itemsize, name) from error
    except zlib.error as error:
        raise DamagedError(f"{name}: is damaged ({error}); copy or convert it again") from error
