"""NIfTI files: an unrepaired header, and every voxel read at once.

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
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.volumes.bytefile import by, check_file, check_shape, cut_off, one_line, open_file
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
    check_file(path, name)
    with _reading(path, name) as stream:
        header = _read_header(stream, name)
        _check_kind(header, name)
        stored = _read_stored(stream, header, path, name)
    affine, space = header_affine(header, name)
    slope, intercept = _scaling(header, name)
    return StoredImage(stored, affine, space, slope, intercept)


def _scaling(header: Header, name: str) -> tuple[float, float]:
    """The slope and the intercept; a slope of 0 means none (NIfTI-1, scl_slope)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise InputError(f"{name}: its rescale intercept is {intercept}; convert it again")
    return slope, intercept


@contextmanager
def _reading(path: Path, name: str) -> Iterator[IO[bytes]]:
    with open_file(path, name) as file:
        try:
            packed = file.read(2) == GZIP_MAGIC
            file.seek(0)
            yield cast("IO[bytes]", gzip.GzipFile(fileobj=file)) if packed else file
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputError(
                f"{name}: is cut off or damaged ({one_line(error)}); copy or convert it again"
            ) from error


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


def _read_stored(stream: IO[bytes], header: Header, path: Path, name: str) -> NDArray[Any]:
    dtype = header.get_data_dtype()
    shape = tuple(int(size) for size in header["dim"][1:4])
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    offset = max(int(header["vox_offset"]), header.sizeof_hdr + 4)
    ratio = GZIP_LARGEST_RATIO if isinstance(stream, gzip.GzipFile) else 1
    if offset + size > path.stat().st_size * ratio:
        raise cut_off(shape, dtype.itemsize, name)
    _skip(stream, offset - header.sizeof_hdr)
    stored = np.empty(size // dtype.itemsize, dtype=dtype)
    view = memoryview(cast("Any", stored.view(np.uint8)))
    while view:
        count = cast("Any", stream).readinto(view[:CHUNK])
        if not count:
            raise cut_off(shape, dtype.itemsize, name)
        view = view[count:]
    while stream.read(CHUNK):  # to the end: only there does gzip compare its checksum
        pass
    return stored.reshape(shape, order="F")


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0 and (skipped := len(stream.read(min(count, CHUNK)))):
        count -= skipped
