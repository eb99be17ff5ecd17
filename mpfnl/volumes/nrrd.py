"""NRRD images: .nrrd, or .nhdr with its voxels in a file beside it.

The format: teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mpfnl.errors import InputError
from mpfnl.volumes.fileio import check_file, check_shape
from mpfnl.volumes.formats import Format, StoredArray
from mpfnl.volumes.grid import CONVERT, Affine, Grid, check_affine
from mpfnl.volumes.payload import Payload, detached, floats, read_header, sizes

SUFFIXES = (".nrrd", ".nhdr")

_LONG = ("longlong", "long long", "long long int", "signed long long", "signed long long int")
_INTEGERS = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": (*_LONG, "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
}
_TYPES = {word: code for code, words in _INTEGERS.items() for word in words} | {"float": "f4", "double": "f8"}

_TO_RAS = {
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_SYNONYMS = {"datafile": "data file", "byteskip": "byte skip", "lineskip": "line skip"}


@dataclass(frozen=True)
class _Header:
    fields: Mapping[str, str]
    end: int

    def get(self, key: str) -> str:
        return self.fields.get(key, "")


def read_nrrd(path: Path, name: str) -> StoredArray:
    """Reads a NRRD image of scalars; raw or gzip encoding.

    Args:
        path: The .nrrd or .nhdr file.
        name: How messages name it.

    Raises:
        InputError: It is missing, no NRRD, cut off, damaged, not one scalar 3-D image, or has no place in the
            world (`space`, `space directions` and `space origin`).
    """
    check_file(path, name)
    header = _parse(path, name)
    payload = _payload(path, header, name)
    affine = _affine(header, name)
    return StoredArray(payload.read(name), Grid(payload.shape, affine))


def nrrd_files(path: Path, name: str) -> list[Path]:
    """The header and, where it is detached, the file of the voxels.

    Raises:
        InputError: It is no NRRD image.
    """
    check_file(path, name)
    return list(dict.fromkeys([path, _payload(path, _parse(path, name), name).file]))


def _parse(path: Path, name: str) -> _Header:
    block = read_header(path, name)
    if not re.match(rb"NRRD000\d\r?\n", block):
        raise InputError(f"{name}: is not a NRRD image; give a scan in HU")
    blank = re.search(rb"\n\r?\n", block)
    text = (block[: blank.start()] if blank else block).decode("latin-1")
    fields = {}
    for line in text.splitlines()[1:]:
        key, colon, value = line.partition(": ")
        if colon and not line.startswith("#"):
            key = key.strip().lower()
            fields[_SYNONYMS.get(key, key)] = value.strip()
    if not blank and "data file" not in fields:
        raise InputError(f"{name}: is cut off in its header; copy or convert it again")
    return _Header(fields, blank.end() if blank else len(block))


def _payload(path: Path, header: _Header, name: str) -> Payload:
    shape = check_shape(sizes(header.get("sizes")), name)
    code = _TYPES.get(header.get("type").lower())
    if code is None:
        raise InputError(
            f"{name}: holds values of type {header.get('type')!r}; give one real number a voxel, in HU"
        )
    encoding = header.get("encoding").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(f"{name}: its encoding is {encoding!r}; save it again as raw or gzip")
    if any(header.get(skip) not in ("", "0") for skip in ("byte skip", "line skip")):
        raise InputError(f"{name}: its voxels start after a skip; save it again without one")
    order = {"little": "<", "big": ">"}.get(header.get("endian").lower())
    if order is None and not code.endswith("1"):
        raise InputError(f"{name}: its header does not tell the byte order (endian); save it again")
    dtype = np.dtype((order or "") + code)
    named = header.get("data file")
    file, offset = (detached(path, named, name), 0) if named else (path, header.end)
    return Payload(file, offset, shape, dtype, packed=encoding != "raw")


def _affine(header: _Header, name: str) -> Affine:
    signs = _TO_RAS.get(header.get("space").lower())
    vectors = [floats(vector, 3) for vector in re.findall(r"\(([^)]*)\)", header.get("space directions"))]
    origin = floats(header.get("space origin").strip("()"), 3)
    directions = [vector for vector in vectors if vector is not None]
    if signs is None or len(directions) != 3 or origin is None:
        raise InputError(
            f"{name}: has no orientation (space, space directions and space origin must be set); {CONVERT}"
        )
    if set(re.findall(r'"([^"]*)"', header.get("space units"))) - {"mm", ""}:
        raise InputError(f"{name}: its lengths are not in mm; give a scan with its spacing in mm")
    affine = np.eye(4)
    affine[:3, :3] = np.stack(directions, axis=1)
    affine[:3, 3] = origin
    affine[:3] *= np.array(signs, dtype=np.float64)[:, None]
    check_affine(affine, name)
    return affine


class NrrdFormat(Format):
    """nrrd."""

    def matches(self, path: Path) -> bool:
        """Whether the suffix is the format's."""
        return path.suffix.lower() in SUFFIXES and path.is_file()

    def open(self, path: Path, name: str) -> StoredArray:
        """Reads it."""
        return read_nrrd(path, name)

    def files(self, path: Path, name: str) -> list[Path]:
        """Its files."""
        return nrrd_files(path, name)
