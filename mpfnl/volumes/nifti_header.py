"""Headers of NIfTI files, read as nifti1.h explains them, or refused.

nibabel, which knows their fields, repairs a bad header silently. The format: nifti.nimh.nih.gov, nifti1.h,
and nifti1_io.c where that leaves a question.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, TypeAlias

import nibabel as nib
import numpy as np

from mpfnl.errors import DamagedError, FormatError, GridError, IntensityError
from mpfnl.volumes.fileio import GZIP_MAGIC, Unpacked, by, check_shape, cut_off, guess_content, numbers
from mpfnl.volumes.grid import (
    CONVERT,
    ROUNDED_PRODUCT,
    SPACING_TOLERANCE,
    SPACING_TOLERANCE_MM,
    Affine,
    Grid,
    check_affine,
)

RawHeader: TypeAlias = Any
"""A nibabel NIfTI-1 or NIfTI-2 header; nibabel's headers are untyped."""

SPACES = range(1, 6)
"""The codes of coordinates that nifti1.h and nifti2.h name."""

OTHER_SPACE = 2
"""The code that stands for codes without a name (NIFTI_XFORM_ALIGNED_ANAT, "or to anatomical truth")."""

OTHER_TYPES = {0: "unknown", 1: "binary", 128: "colour (RGB)", 1536: "128-bit", 2304: "colour (RGBA)"}
"""Types of values in nifti1.h that are no numbers of a scan, besides complex ones."""


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


def read_header(
    stream: IO[bytes] | Unpacked, most_bytes: int, count_bytes: Callable[[], int], name: str
) -> NiftiHeader:
    """Reads a header from the beginning of an unpacked file, and checks it.

    Args:
        stream: The file.
        most_bytes: Largest size that the unpacked file can have.
        count_bytes: Function that gives the size that it has.
        name: Name of the scan in messages.

    Raises:
        InputError: The file is not NIfTI, cut off, not one scalar 3-D image, or has no place in the world.
    """
    header = _parse(stream, name)
    dtype = _dtype(header, name)
    x, y, z = (int(size) for size in header["dim"][1:4])
    size = x * y * z * dtype.itemsize
    offset = _offset(header, size, count_bytes, name)
    if offset + size > most_bytes:
        raise cut_off((x, y, z), dtype.itemsize, name)
    affine, space = _affine(header, name)
    slope, intercept = _scaling(header, name)
    return NiftiHeader(Grid((x, y, z), affine, space), dtype, slope, intercept, offset, header.sizeof_hdr)


def _parse(stream: IO[bytes] | Unpacked, name: str) -> RawHeader:
    block = stream.read(348)
    if not block:
        raise DamagedError(f"{name}: is empty; copy or convert it again")
    if block.startswith(GZIP_MAGIC):
        raise FormatError(f"{name}: is packed twice by gzip; unpack it once with gunzip")
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
    elif size == 348 and block[344:348] == bytes(4):
        raise FormatError(f"{name}: is in ANALYZE format, which does not tell left from right; {CONVERT}")
    else:
        what = guess_content(block) or "is not a NIfTI image; give a .nii or .nii.gz file in HU"
        raise FormatError(f"{name}: {what}")
    return kind(block, check=False)


def _header_size(block: bytes) -> int:
    if len(block) < 4:
        return 0
    either = (struct.unpack("<i", block[:4])[0], struct.unpack(">i", block[:4])[0])
    return next((size for size in (348, 540) if size in either), 0)


def _offset(header: RawHeader, size: int, count_bytes: Callable[[], int], name: str) -> int:
    """Position of the first voxel.

    After the header come four bytes that tell of extensions. Some writers leave them out and `vox_offset` too
    small; the size of the file tells which.
    """
    offset = float(header["vox_offset"])
    if not np.isfinite(offset):
        raise FormatError(f"{name}: its vox_offset is {offset}; convert it again")
    least: int = header.sizeof_hdr + 4
    if offset >= least:
        return int(offset)
    return header.sizeof_hdr if count_bytes() == header.sizeof_hdr + size else least


def _dtype(header: RawHeader, name: str) -> np.dtype[Any]:
    axes = int(header["dim"][0])
    if not 1 <= axes <= 7:
        raise GridError(
            f"{name}: its header gives an impossible number of axes (dim[0] {axes}); convert it again"
        )
    shape = [int(size) for size in header["dim"][1 : 1 + axes]]
    shape[3:] = [size or 1 for size in shape[3:]]  # as nifti1_io.c
    check_shape(shape, name)
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (KeyError, nib.spatialimages.HeaderDataError) as error:
        code = int(header["datatype"])
        raise FormatError(
            f"{name}: its number type (datatype {code}) is unknown; convert it again"
        ) from error
    if dtype.kind not in "iuf":
        kind = OTHER_TYPES.get(int(header["datatype"]), "complex")
        raise FormatError(f"{name}: holds {kind} values ({by(shape)}); give one real number a voxel, in HU")
    return dtype


def _affine(header: RawHeader, name: str) -> tuple[Affine, int]:
    """The affine, checked, and the code of its space.

    The sform counts where it is set and gives each voxel a place of its own, else the qform. A file with
    neither is refused: its voxels have no place in the patient, and readers disagree about which
    one to invent.
    """
    unit = {1: "metres", 3: "micrometres"}.get(int(header["xyzt_units"]) & 7)
    if unit:
        raise GridError(f"{name}: its lengths are in {unit}; give a scan with its spacing in mm")
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(pixdim).all() and (pixdim > 0).all()):
        raise GridError(
            f"{name}: its voxel spacing is {numbers(pixdim)} mm (pixdim), not positive; {CONVERT}"
        )
    space, other = int(header["sform_code"]), int(header["qform_code"])
    affine, field = np.asarray(header.get_sform(), dtype=np.float64), "sform"
    if space <= 0 and other <= 0:
        raise GridError(f"{name}: has no orientation (neither sform nor qform is set); {CONVERT}")
    if other > 0 and (space <= 0 or not _gives_a_place(affine)):
        affine, space, field = _qform(header, name), other, "qform"
    if not affine[:3].any():
        raise GridError(f"{name}: has no orientation (its sform is empty, its qform not set); {CONVERT}")
    check_affine(affine, name, field)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (np.abs(spacing - pixdim) > SPACING_TOLERANCE_MM + SPACING_TOLERANCE * pixdim).any():
        raise GridError(
            f"{name}: its header gives two voxel spacings, {numbers(pixdim)} mm (pixdim) and"
            f" {numbers(spacing)} mm ({field}); {CONVERT}"
        )
    return affine, space if space in SPACES else OTHER_SPACE


def _gives_a_place(affine: Affine) -> bool:
    """Whether each voxel has a place of its own."""
    return bool(np.isfinite(affine).all()) and np.linalg.matrix_rank(affine[:3, :3]) == 3


def _qform(header: RawHeader, name: str) -> Affine:
    """The affine of the quaternion.

    nifti1.h: `pixdim[0]` is -1, or else counts as 1. nifti1_io.c makes a quaternion that is too long one of
    length 1; here only one that three digits explain (see `ROUNDED_PRODUCT`).
    """
    parts = ["quatern_b", "quatern_c", "quatern_d"]
    quaternion = np.array([header[part] for part in parts], dtype=np.float64)
    if not np.isfinite(quaternion).all():
        raise GridError(f"{name}: its orientation (qform) has values that are not finite; {CONVERT}")
    square = float(quaternion @ quaternion)
    if square > 1 + ROUNDED_PRODUCT:
        raise GridError(f"{name}: its orientation (qform) is no rotation; {CONVERT}")
    header = header.copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    if square > 1:
        for part, value in zip(parts, quaternion / np.sqrt(square), strict=True):
            header[part] = value
    return np.asarray(header.get_qform(), dtype=np.float64)


def _scaling(header: RawHeader, name: str) -> tuple[float, float]:
    """The slope and the intercept; a slope of 0 means none (NIfTI-1, scl_slope)."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    if not np.isfinite(intercept):
        raise IntensityError(f"{name}: its rescale intercept (scl_inter) is {intercept}; convert it again")
    return slope, intercept
