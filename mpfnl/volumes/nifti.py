"""NIfTI files: headers as they stand, boxes of plain files, and slices of compressed ones.

nibabel repairs a bad header silently and reads voxels lazily, and neither notices a file that is cut off in
its last bytes. Here no header is repaired, and a compressed file is read to its checksum.

The format: nifti.nimh.nih.gov.
"""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, TypeAlias, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import DamagedError, FormatError, GridError, IntensityError
from mpfnl.volumes.fileio import by, check_file, check_shape, cut_off, numbers, one_line, readable
from mpfnl.volumes.formats import Format, StoredValues
from mpfnl.volumes.grid import CONVERT, SPACING_TOLERANCE, Affine, Box, Grid, check_affine

RawHeader: TypeAlias = Any
"""A nibabel NIfTI-1 or NIfTI-2 header; nibabel's headers are untyped."""

GZIP_MAGIC = b"\x1f\x8b"
GZIP_LARGEST_RATIO = 1100  # deflate cannot pack tighter than 1032 to 1
CHUNK = 1 << 24


class NiftiFormat(Format):
    """NIfTI-1 and NIfTI-2, .nii or .nii.gz. The content decides, so it is tried for files of any name."""

    random_access = True

    def matches(self, path: Path) -> bool:
        """Whether the path is a file."""
        return os.path.isfile(path)

    def open(self, path: Path, name: str) -> StoredValues:
        """Opens the file and checks its header.

        Raises:
            InputError: The file is missing, a folder, not NIfTI, cut off, not one scalar 3-D image, or has no
                place in the world.
        """
        check_file(path, name)
        with readable(name), path.open("rb") as file:
            packed = file.read(2) == GZIP_MAGIC
        return CompressedNifti(path, name) if packed else PlainNifti(path, name)


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """The fields of a NIfTI header that reading needs, checked.

    Args:
        grid: Shape and place.
        dtype: Number type of the stored values, with its byte order.
        slope: Rescale slope.
        intercept: Rescale intercept.
        offset: Position of the first voxel in bytes from the beginning of the (unpacked) file.
        length: Bytes of the header itself.
    """

    grid: Grid
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    offset: int
    length: int


class PlainNifti:
    """An uncompressed NIfTI file, of which any box is read on its own.

    The file stays open until `close`. A copy for another process opens its own, and a process that was forked
    from this one closes what it inherited, since both would share one position in the file.

    Args:
        path: The file.
        name: Name of the scan in messages.

    Raises:
        InputError: The header cannot be used, or the file is too short for the voxels.
    """

    in_memory: ClassVar[bool] = False
    random_access: ClassVar[bool] = True

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file: IO[bytes] | None = None
        self._process = os.getpid()
        with readable(name), path.open("rb") as file:
            header = read_header(file, os.fstat(file.fileno()).st_size, name)
        self.grid, self.dtype = header.grid, header.dtype
        self.slope, self.intercept, self._offset = header.slope, header.intercept, header.offset

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        self.close()

    def read(self, box: Box) -> NDArray[Any]:
        """The stored values in a box, (x, y, z).

        In a file x runs fastest: the rows of a slice, from the box's first voxel to its last, lie in one
        range of bytes. No other bytes are read.
        """
        columns, rows, _ = self.grid.shape
        (x, nx), (y, ny), (z, nz) = ((part.start, part.stop - part.start) for part in box)
        stored = np.empty((nx, ny, nz), self.dtype, order="F")
        with readable(self.name):
            file = self._opened()
            if (nx, ny) == (columns, rows):
                self._fill(file, z * columns * rows, stored.reshape(-1, order="F"))
                return stored
            band = np.empty((ny, columns), self.dtype)
            wanted = band.reshape(-1)[: (ny - 1) * columns + nx]
            for k in range(nz):
                self._fill(file, x + columns * (y + rows * (z + k)), wanted)
                stored[:, :, k] = band[:, :nx].T
        return stored

    def finish(self) -> None:
        """Does nothing: a plain file has no checksum."""

    def close(self) -> None:
        """Closes the file; the next reading opens it again."""
        file, self._file = self.__dict__.get("_file"), None
        if file is not None:
            file.close()

    def _fill(self, file: IO[bytes], voxel: int, values: NDArray[Any]) -> None:
        """Reads consecutive values from the one of this number on."""
        view = memoryview(cast("Any", values.view(np.uint8)))
        file.seek(self._offset + voxel * self.dtype.itemsize)
        while view:
            count = cast("Any", file).readinto(view[:CHUNK])
            if not count:
                raise DamagedError(f"{self.name}: was cut off while it was in use; copy or convert it again")
            view = view[count:]

    def _opened(self) -> IO[bytes]:
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        if self._file is None:
            self._file = cast("IO[bytes]", self.path.open("rb", buffering=0))
        return self._file


class CompressedNifti:
    """A gzip-compressed NIfTI file, read from its first slice to its last.

    A box before the one that was read last is found by reading from the beginning again.

    Args:
        path: The file.
        name: Name of the scan in messages.

    Raises:
        InputError: The header cannot be used.
    """

    in_memory: ClassVar[bool] = False
    random_access: ClassVar[bool] = False

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file: IO[bytes] | None = None
        self._stream: gzip.GzipFile | None = None
        self._position = 0  # the next byte of the unpacked file
        try:
            with _undamaged(name):
                most = path.stat().st_size * GZIP_LARGEST_RATIO
                header = read_header(cast("IO[bytes]", self._opened()), most, name)
            self._position = header.length
        except BaseException:
            self.close()
            raise
        self.grid, self.dtype = header.grid, header.dtype
        self.slope, self.intercept, self._offset = header.slope, header.intercept, header.offset

    def __del__(self) -> None:
        self.close()

    def read(self, box: Box) -> NDArray[Any]:
        """The stored values in a box, (x, y, z); the slices before it are unpacked and passed over."""
        x, y, z = box
        columns, rows, _ = self.grid.shape
        stored = np.empty((columns, rows, z.stop - z.start), self.dtype, order="F")
        begin = self._offset + columns * rows * z.start * self.dtype.itemsize
        with _undamaged(self.name):
            if begin < self._position:
                self.close()
            stream = self._opened()
            while self._position < begin:
                got = len(stream.read(min(CHUNK, begin - self._position)))
                self._advance(got)
            view = memoryview(cast("Any", stored.reshape(-1, order="F").view(np.uint8)))
            while view:
                got = stream.readinto(view[:CHUNK])
                self._advance(got)
                view = view[got:]
        return stored[x, y]

    def finish(self) -> None:
        """Reads to the end of the file: only there does gzip compare its checksum."""
        with _undamaged(self.name):
            stream = self._opened()
            while got := len(stream.read(CHUNK)):
                self._position += got

    def close(self) -> None:
        """Closes the file; the next reading opens it again."""
        file, self._file = self.__dict__.get("_file"), None
        self._stream, self._position = None, 0
        if file is not None:
            file.close()

    def _advance(self, count: int) -> None:
        if not count:
            raise cut_off(self.grid.shape, self.dtype.itemsize, self.name)
        self._position += count

    def _opened(self) -> gzip.GzipFile:
        if self._stream is None:
            self._file = self.path.open("rb")
            self._stream = gzip.GzipFile(fileobj=self._file)
        return self._stream


def read_header(stream: IO[bytes], most_bytes: int, name: str) -> NiftiHeader:
    """Reads a header from the beginning of an unpacked file, and checks it.

    Args:
        stream: The file.
        most_bytes: Largest size that the unpacked file can have.
        name: Name of the scan in messages.

    Raises:
        InputError: The file is not NIfTI, cut off, not one scalar 3-D image, or has no place in the world.
    """
    header = _parse(stream, name)
    dtype = _dtype(header, name)
    x, y, z = (int(size) for size in header["dim"][1:4])
    offset = max(int(header["vox_offset"]), header.sizeof_hdr + 4)
    if offset + x * y * z * dtype.itemsize > most_bytes:
        raise cut_off((x, y, z), dtype.itemsize, name)
    affine, space = _affine(header, name)
    slope, intercept = _scaling(header, name)
    return NiftiHeader(Grid((x, y, z), affine, space), dtype, slope, intercept, offset, header.sizeof_hdr)


def _parse(stream: IO[bytes], name: str) -> RawHeader:
    block = stream.read(348)
    if not block:
        raise DamagedError(f"{name}: is empty; copy or convert it again")
    size = _header_size(block)
    block += stream.read(size - 348) if size > 348 else b""
    if size and len(block) < size:
        raise DamagedError(f"{name}: is cut off in its header; copy or convert it again")
    kind: Any = None
    if size == 348 and block[344:348] == b"n+1\0":
        kind = nib.Nifti1Header
    elif size == 540 and block[4:8] == b"n+2\0":
        kind = nib.Nifti2Header
    elif size == 348 and block[344:348] == b"ni1\0":
        raise FormatError(f"{name}: is one half of a .hdr/.img pair; convert it to one .nii.gz file")
    else:
        raise FormatError(f"{name}: is not a NIfTI image; give a .nii or .nii.gz file in HU")
    return kind(block, check=False)


def _header_size(block: bytes) -> int:
    if len(block) < 4:
        return 0
    either = (struct.unpack("<i", block[:4])[0], struct.unpack(">i", block[:4])[0])
    return next((size for size in (348, 540) if size in either), 0)


def _dtype(header: RawHeader, name: str) -> np.dtype[Any]:
    axes = int(header["dim"][0])
    shape = [int(size) for size in header["dim"][1 : 1 + max(axes, 0)]]
    check_shape(shape if 1 <= axes <= 7 else [], name)
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (KeyError, nib.spatialimages.HeaderDataError) as error:
        raise FormatError(f"{name}: its number type is unknown; convert it again") from error
    if dtype.kind not in "iuf":
        kind = {"c": "complex", "V": "colour (RGB)"}.get(dtype.kind, str(dtype))
        raise FormatError(f"{name}: holds {kind} values ({by(shape)}); give one real number a voxel, in HU")
    return dtype


def _affine(header: RawHeader, name: str) -> tuple[Affine, int]:
    """The affine, checked, and the code of its space: of the sform where it is set, else of the qform.

    A file with neither is refused: its voxels have no place in the patient, and readers disagree about which
    one to invent.
    """
    unit = {1: "metres", 3: "micrometres"}.get(int(header["xyzt_units"]) & 7)
    if unit:
        raise GridError(f"{name}: its lengths are in {unit}; give a scan with its spacing in mm")
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(pixdim).all() and (pixdim > 0).all()):
        raise GridError(f"{name}: its voxel spacing is {numbers(pixdim)} mm, not positive; {CONVERT}")
    space = int(header["sform_code"]) or int(header["qform_code"])
    if space <= 0:
        raise GridError(f"{name}: has no orientation (neither sform nor qform is set); {CONVERT}")
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except ValueError as error:
        raise GridError(f"{name}: its orientation (qform) is no rotation; {CONVERT}") from error
    check_affine(affine, name)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (np.abs(spacing - pixdim) > SPACING_TOLERANCE * pixdim).any():
        raise GridError(
            f"{name}: its header gives two voxel spacings, {numbers(pixdim)} mm (pixdim) and"
            f" {numbers(spacing)} mm (affine); {CONVERT}"
        )
    return affine, space


def _scaling(header: RawHeader, name: str) -> tuple[float, float]:
    """The slope and the intercept; a slope of 0 means none (NIfTI-1, scl_slope)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise IntensityError(f"{name}: its rescale intercept is {intercept}; convert it again")
    return slope, intercept


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    """Turns the errors of a damaged gzip stream, and the system's, into one line.

    Raises:
        DamagedError: The stream is damaged, or the file system refuses.
    """
    with readable(name):
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DamagedError(
                f"{name}: is cut off or damaged ({one_line(error)}); copy or convert it again"
            ) from error
