"""NIfTI files: an unrepaired header, and voxels read whole or slice by slice.

nibabel repairs a bad header silently and reads voxels lazily, and neither notices a file that was cut off in
its last bytes. Here the header is taken as it stands, and the file is read to its end.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import nibabel as nib
import numpy as np

from mpfnl.errors import InputError
from mpfnl.volumes.bytefile import by, check_file, check_shape, cut_off, one_line
from mpfnl.volumes.grid import header_affine
from mpfnl.volumes.stored import StoredImage

Header: TypeAlias = Any
"""A nibabel NIfTI-1 or NIfTI-2 header; nibabel's headers are untyped."""

GZIP_MAGIC = b"\x1f\x8b"
GZIP_LARGEST_RATIO = 1100  # deflate cannot pack tighter than 1032 to 1
CHUNK = 1 << 24


def read_nifti(path: Path, name: str) -> StoredImage:
    """Reads a whole NIfTI file (.nii or .nii.gz; the content decides).

    Args:
        path: The file.
        name: How messages name it.

    Raises:
        InputError: It is missing, a folder, not NIfTI, cut off, not one scalar 3-D image, or has no place in
            the world.
    """
    with NiftiSlices(path, name) as slices:
        image = slices.read(slices.shape[2])
        slices.finish()
    return image


class NiftiSlices:
    """The slices of a NIfTI file, read one after the other; a context manager that closes the file.

    Args:
        path: The file.
        name: How messages name it.

    Raises:
        InputError: As for `read_nifti`; what lies in later slices is seen when they are read.
    """

    def __init__(self, path: Path, name: str) -> None:
        check_file(path, name)
        self._name = name
        with _told(name):
            self._file = path.open("rb")
        try:
            with _told(name):
                packed = self._file.read(2) == GZIP_MAGIC
                self._file.seek(0)
                self._stream = cast("IO[bytes]", gzip.GzipFile(fileobj=self._file)) if packed else self._file
                header = _read_header(self._stream, name)
                _check_kind(header, name)
                self.dtype: np.dtype[Any] = header.get_data_dtype()
                x, y, z = (int(size) for size in header["dim"][1:4])
                self.shape = (x, y, z)
                self._skip_to_voxels(header, path.stat().st_size * (GZIP_LARGEST_RATIO if packed else 1))
            self.affine, self.space = header_affine(header, name)
            self._slope, self._intercept = _scaling(header, name)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> NiftiSlices:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def read(self, count: int) -> StoredImage:
        """The next slices, `(x, y, count)`.

        Raises:
            InputError: The file is cut off or damaged before their end.
        """
        x, y, _ = self.shape
        stored = np.empty(x * y * count, dtype=self.dtype)
        view = memoryview(cast("Any", stored.view(np.uint8)))
        with _told(self._name):
            while view:
                got = cast("Any", self._stream).readinto(view[:CHUNK])
                if not got:
                    raise cut_off(self.shape, self.dtype.itemsize, self._name)
                view = view[got:]
        voxels = stored.reshape((x, y, count), order="F")
        return StoredImage(voxels, self.affine, self.space, self._slope, self._intercept)

    def finish(self) -> None:
        """Reads to the end of the file: only there does gzip compare its checksum.

        Raises:
            InputError: The file is cut off or damaged.
        """
        with _told(self._name):
            while self._stream.read(CHUNK):
                pass

    def _skip_to_voxels(self, header: Header, most_bytes: int) -> None:
        size = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        offset = max(int(header["vox_offset"]), header.sizeof_hdr + 4)
        if offset + size > most_bytes:
            raise cut_off(self.shape, self.dtype.itemsize, self._name)
        _skip(self._stream, offset - header.sizeof_hdr)


def _scaling(header: Header, name: str) -> tuple[float, float]:
    """The slope and the intercept; a slope of 0 means none (NIfTI-1, scl_slope)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise InputError(f"{name}: its rescale intercept is {intercept}; convert it again")
    return slope, intercept


@contextmanager
def _told(name: str) -> Iterator[None]:
    """What goes wrong while a file is read comes out as one line.

    Raises:
        InputError: The file is damaged, or the file system refuses.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{name}: is cut off or damaged ({one_line(error)}); copy or convert it again"
        ) from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({one_line(error)}); check the file") from error


def _read_header(stream: IO[bytes], name: str) -> Header:
    block = stream.read(348)
    if not block:
        raise InputError(f"{name}: is empty; copy or convert it again")
    size = _header_size(block)
    block += stream.read(size - 348) if size > 348 else b""
    if size and len(block) < size:
        raise InputError(f"{name}: is cut off in its header; copy or convert it again")
    if size == 348 and block[344:348] == b"n+1\0":
        return _parse(nib.Nifti1Header, block)
    if size == 540 and block[4:8] == b"n+2\0":
        return _parse(nib.Nifti2Header, block)
    if size == 348 and block[344:348] == b"ni1\0":
        raise InputError(f"{name}: is one half of a .hdr/.img pair; convert it to one .nii.gz file")
    raise InputError(f"{name}: is not a NIfTI image; give a .nii or .nii.gz file in HU")


def _parse(kind: Any, block: bytes) -> Header:
    return kind(block, check=False)


def _header_size(block: bytes) -> int:
    if len(block) < 4:
        return 0
    either = (struct.unpack("<i", block[:4])[0], struct.unpack(">i", block[:4])[0])
    return next((size for size in (348, 540) if size in either), 0)


def _check_kind(header: Header, name: str) -> None:
    axes = int(header["dim"][0])
    shape = [int(size) for size in header["dim"][1 : 1 + max(axes, 0)]]
    check_shape(shape if 1 <= axes <= 7 else [], name)
    try:
        dtype = header.get_data_dtype()
    except (KeyError, nib.spatialimages.HeaderDataError) as error:
        raise InputError(f"{name}: its number type is unknown; convert it again") from error
    if dtype.kind not in "iuf":
        kind = {"c": "complex", "V": "colour (RGB)"}.get(dtype.kind, str(dtype))
        raise InputError(f"{name}: holds {kind} values ({by(shape)}); give one real number a voxel, in HU")


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0 and (skipped := len(stream.read(min(count, CHUNK)))):
        count -= skipped
