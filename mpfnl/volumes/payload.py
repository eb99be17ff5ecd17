"""The voxels that a text header describes (NRRD, MetaImage), read whole and to the last byte.

SimpleITK reads these formats too, but takes a damaged compressed MetaImage without a word, does not compare a
NRRD's gzip checksum, and invents a place for a header without one. So the few lines of it stand here, and
SimpleITK is what the tests compare them with.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.volumes.fileio import cut_off, open_file

LONGEST_HEADER = 1 << 20
"""Bytes within which a text header must end."""

EITHER_DEFLATE = 47
"""zlib's window bits that accept its own format and gzip."""


@dataclass(frozen=True)
class Payload:
    """Where voxels are stored, and how.

    Args:
        file: The file that holds them: the image itself, or a detached one.
        offset: The byte at which they start.
        shape: How many there are along x, y and z; x runs fastest.
        dtype: Their number type, with its byte order.
        packed: Whether they are deflated (gzip or zlib).
    """

    file: Path
    offset: int
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    packed: bool

    def read(self, name: str) -> NDArray[Any]:
        """The voxels (x, y, z).

        Args:
            name: How messages name the image.

        Raises:
            InputError: The file is missing or unreadable, or holds another number of bytes, or a damaged
                stream of them.
        """
        if not os.path.isfile(self.file):
            raise InputError(
                f"{name}: its voxels should lie in {self.file}, which is missing; copy both files"
            )
        size = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        with open_file(self.file, name) as file:
            file.seek(self.offset)
            content = self._unpack(file.read(), size, name) if self.packed else file.read(size + 1)
        if len(content) < size:
            raise cut_off(self.shape, self.dtype.itemsize, name)
        if len(content) > size:
            raise InputError(f"{name}: holds more voxels than its header says; convert it again")
        return np.frombuffer(bytearray(content), self.dtype).reshape(self.shape, order="F")

    def _unpack(self, stored: bytes, size: int, name: str) -> bytes:
        stream = zlib.decompressobj(EITHER_DEFLATE)
        try:
            content = stream.decompress(stored, size + 1)
        except zlib.error as error:
            raise InputError(f"{name}: is damaged ({error}); copy or convert it again") from error
        if len(content) <= size and not stream.eof:  # the checksum stands at the stream's end
            raise cut_off(self.shape, self.dtype.itemsize, name)
        return content


def read_header(path: Path, name: str) -> bytes:
    """The first bytes of an image with a text header; at most `LONGEST_HEADER`.

    Raises:
        InputError: It is empty or cannot be read.
    """
    with open_file(path, name) as file:
        block = file.read(LONGEST_HEADER)
    if not block:
        raise InputError(f"{name}: is empty; copy or convert it again")
    return block


def detached(path: Path, named: str, name: str) -> Path:
    """The one file in which a header says that its voxels lie; relative to the header.

    Raises:
        InputError: The header lists several.
    """
    if named.upper().startswith("LIST") or "%" in named:
        raise InputError(f"{name}: its voxels lie in several files; save it again as one file")
    return path.parent / named


def floats(text: str, count: int) -> NDArray[np.float64] | None:
    """As many numbers as expected, separated by spaces or commas; None for anything else."""
    try:
        values = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        return None
    return np.array(values) if len(values) == count else None


def sizes(text: str) -> list[int]:
    """The whole numbers of a header's line of sizes; none where it holds anything else."""
    words = text.split()
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else []
