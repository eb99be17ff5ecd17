"""MetaImages: .mha, or .mhd with its voxels in a file beside it (itk.org/Wiki/ITK/MetaIO/Documentation)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpfnl.errors import InputError
from mpfnl.volumes.fileio import check_file, check_shape, numbers
from mpfnl.volumes.formats import Format, StoredArray
from mpfnl.volumes.grid import CONVERT, SPACING_TOLERANCE, Affine, Grid, check_affine
from mpfnl.volumes.payload import Payload, detached, floats, read_header, sizes

SUFFIXES = (".mha", ".mhd")

_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_SYNONYMS = {
    "position": "offset",
    "origin": "offset",
    "rotation": "transformmatrix",
    "orientation": "transformmatrix",
    "elementbyteordermsb": "binarydatabyteordermsb",
}
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class _Header:
    fields: Mapping[str, str]
    end: int

    def get(self, key: str) -> str:
        return self.fields.get(key.lower(), "")

    def flag(self, key: str) -> bool:
        return self.get(key).lower() in ("true", "1")


def read_metaimage(path: Path, name: str) -> StoredArray:
    """Reads a MetaImage of scalars; raw or zlib-compressed.

    Args:
        path: The .mha or .mhd file.
        name: How messages name it.

    Raises:
        InputError: It is missing, no MetaImage, cut off, damaged, not one scalar 3-D image, or has no place
            in the world (`ElementSpacing`, `TransformMatrix` and `Offset`).
    """
    check_file(path, name)
    header = _parse(path, name)
    payload = _payload(path, header, name)
    affine = _affine(header, name)
    return StoredArray(payload.read(name), Grid(payload.shape, affine))


def metaimage_files(path: Path, name: str) -> list[Path]:
    """The header and, where it is detached, the file of the voxels.

    Raises:
        InputError: It is no MetaImage.
    """
    check_file(path, name)
    return list(dict.fromkeys([path, _payload(path, _parse(path, name), name).file]))


def _parse(path: Path, name: str) -> _Header:
    block = read_header(path, name)
    fields: dict[str, str] = {}
    end = 0
    while "elementdatafile" not in fields:
        stop = block.find(b"\n", end)
        key, equals, value = block[end : stop if stop >= 0 else None].decode("latin-1").partition("=")
        if not equals:
            what = "is cut off in its header" if "ndims" in fields else "is not a MetaImage"
            raise InputError(f"{name}: {what}; copy or convert it again")
        key = key.strip().lower()
        fields[_SYNONYMS.get(key, key)] = value.strip()
        end = stop + 1 if stop >= 0 else len(block)
    return _Header(fields, end)


def _payload(path: Path, header: _Header, name: str) -> Payload:
    shape = check_shape(sizes(header.get("DimSize")), name)
    kind = header.get("ElementType").upper()
    channels = header.get("ElementNumberOfChannels") or "1"
    if channels != "1" or kind not in _TYPES:
        what = f"{channels} channels" if channels != "1" else f"values of type {kind!r}"
        raise InputError(f"{name}: holds {what}; give one real number a voxel, in HU")
    if not header.flag("BinaryData"):
        raise InputError(f"{name}: holds its voxels as text; save it again in binary")
    if header.get("HeaderSize") not in ("", "0"):
        raise InputError(f"{name}: its voxels start after a skip; save it again without one")
    scaling = floats(
        f"{header.get('ElementToIntensityFunctionSlope') or 1}"
        f" {header.get('ElementToIntensityFunctionOffset') or 0}",
        2,
    )
    if scaling is None or tuple(scaling) != (1.0, 0.0):
        raise InputError(f"{name}: its values have a slope or an offset; save it again in HU")
    dtype = np.dtype((">" if header.flag("BinaryDataByteOrderMSB") else "<") + _TYPES[kind])
    named = header.get("ElementDataFile")
    local = named.upper() == "LOCAL"
    file, offset = (path, header.end) if local else (detached(path, named, name), 0)
    return Payload(file, offset, shape, dtype, header.flag("CompressedData"))


def _affine(header: _Header, name: str) -> Affine:
    spacing = floats(header.get("ElementSpacing"), 3)
    rows = floats(header.get("TransformMatrix"), 9)
    offset = floats(header.get("Offset"), 3)
    if spacing is None or rows is None or offset is None:
        raise InputError(
            f"{name}: has no orientation (ElementSpacing, TransformMatrix and Offset must be set); {CONVERT}"
        )
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise InputError(f"{name}: its voxel spacing is {numbers(spacing)} mm, not positive; {CONVERT}")
    if header.get("DistanceUnits").lower() not in ("", "?", "mm"):
        raise InputError(f"{name}: its lengths are not in mm; give a scan with its spacing in mm")
    directions = rows.reshape(3, 3).T  # the header lists one axis after the other
    lengths = np.linalg.norm(directions, axis=0)
    if (np.abs(lengths - 1) > SPACING_TOLERANCE).any():
        raise InputError(f"{name}: the axes of its TransformMatrix are not of length 1; {CONVERT}")
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = offset
    affine = _LPS_TO_RAS @ affine
    check_affine(affine, name)
    return np.asarray(affine, dtype=np.float64)


class MetaImageFormat(Format):
    """metaimage."""

    def matches(self, path: Path) -> bool:
        """Whether the suffix is the format's."""
        return path.suffix.lower() in SUFFIXES and path.is_file()

    def open(self, path: Path, name: str) -> StoredArray:
        """Reads it."""
        return read_metaimage(path, name)

    def files(self, path: Path, name: str) -> list[Path]:
        """Its files."""
        return metaimage_files(path, name)
