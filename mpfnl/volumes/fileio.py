"""Files as every reader sees them: opening, unpacking, sizes, and the words of their errors."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import DamagedError, FormatError, GridError, NotFoundError
from mpfnl.phases import Phase

GZIP_MAGIC = b"\x1f\x8b"

_MEMBER = b"\x1f\x8b\x08"  # the magic of gzip and its only method
_PACKED = 1 << 18  # bytes that are read from a packed file at once
_GZIP, _ZLIB = 31, 15  # window bits by which zlib takes the one or the other, checksums included


def scan_name(path: Path, phase: Phase | None = None) -> str:
    """The name of a scan in messages: its path, and its phase where it has one."""
    return str(path) if phase is None else f"{path} ({phase.label} phase)"


def check_file(path: Path, name: str) -> None:
    """Refuses a path that names no file.

    Raises:
        FormatError: The path is a folder.
        NotFoundError: Nothing lies there.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, no error where a folder may not be entered
        raise FormatError(f"{name}: is a folder; give a file")
    if not os.path.exists(path):
        raise NotFoundError(f"{name}: there is no such file; check the path")


@contextmanager
def open_file(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Opens a file for bytes; the system's errors, there and inside, become one line.

    Raises:
        DamagedError: The file system refuses.
    """
    with readable(name), path.open("rb") as file:
        yield file


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turns the system's errors inside into one line.

    Raises:
        DamagedError: The file system refuses.
    """
    try:
        yield
    except OSError as error:
        raise DamagedError(f"{name}: cannot be read ({one_line(error)}); check the file") from error


class Unpacked:
    """The bytes in a file that gzip or zlib packed.

    A gzip file is a series of members (RFC 1952, section 2.2). What follows the last one and begins no other
    is passed over, as gzip does. Checksums are compared; that of the last bytes when the end is read.

    Args:
        file: The packed file, at the beginning of its packed bytes.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._rest = file.read(_PACKED)
        self._is_gzip = self._rest.startswith(GZIP_MAGIC)
        self._member = zlib.decompressobj(_GZIP if self._is_gzip else _ZLIB)
        self._ended = False

    def read(self, size: int) -> bytes:
        """The next bytes, as many as asked for unless the stream ends.

        Raises:
            EOFError: The stream is cut off.
            zlib.error: The stream is damaged.
        """
        parts: list[bytes] = []
        while size > 0 and (part := self._read_some(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def readinto(self, view: memoryview) -> int:
        """Fills a view of bytes; returns how many there were, as `read`."""
        done = 0
        while done < len(view) and (part := self._read_some(len(view) - done)):
            view[done : done + len(part)] = part
            done += len(part)
        return done

    def _read_some(self, most: int) -> bytes:
        while not self._ended:
            if self._member.eof:
                self._begin_member()
                continue
            packed = self._rest or self._file.read(_PACKED)
            unpacked = self._member.decompress(packed, most)
            self._rest = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
            if unpacked:
                return unpacked
            if not packed and not self._member.eof:
                raise EOFError("its packed bytes end too early")
        return b""

    def _begin_member(self) -> None:
        """Goes to the next member of a gzip file, over zeros in between; else ends."""
        rest = self._rest.lstrip(b"\0")
        while len(rest) < len(_MEMBER) and (more := self._file.read(_PACKED)):
            rest = (rest + more).lstrip(b"\0")
        self._rest, self._ended = rest, not (self._is_gzip and rest.startswith(_MEMBER))
        if not self._ended:
            self._member = zlib.decompressobj(_GZIP)


def guess_content(block: bytes) -> str:
    """What a file that is no image is, and what to do; empty where unknown.

    Args:
        block: First bytes of the file.
    """
    begin = block.lstrip()[:100].lower()
    if begin.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself; fetch the file with git lfs pull"
    if begin.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, perhaps of a failed download; download the file again"
    if begin.startswith(b"pk\3\4"):
        return "is a ZIP archive; unpack it"
    return ""


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def by(shape: Sequence[int]) -> str:
    """A size in a message: "512 by 512 by 60"."""
    return " by ".join(str(size) for size in shape)


def numbers(values: Sequence[float] | NDArray[Any]) -> str:
    """A few numbers in a message: "(0.8, 0.8, 5)"."""
    return "(" + ", ".join(f"{value:.6g}" for value in np.asarray(values).ravel().tolist()) + ")"


def check_shape(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    """The size of a 3-D volume, checked; further axes of one voxel, as for one time point, are left out.

    Raises:
        GridError: The size has not three axes, or fewer than 2 voxels along one.
    """
    shape = list(shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if not shape or min(shape) < 1:
        raise GridError(f"{name}: its header gives an impossible size ({by(shape)}); convert it again")
    if len(shape) > 3:
        count = int(np.prod(shape[3:]))
        raise GridError(f"{name}: holds {count} volumes ({by(shape)}); split it and give one of them")
    if len(shape) < 3:
        raise GridError(f"{name}: is {len(shape)}-D ({by(shape)}); give one 3-D volume")
    if min(shape) < 2:
        raise GridError(f"{name}: has fewer than 2 voxels along an axis ({by(shape)}); give a 3-D volume")
    x, y, z = shape
    return x, y, z


def cut_off(shape: Sequence[int], itemsize: int, name: str) -> DamagedError:
    """The error for a file that holds fewer bytes than its voxels take."""
    return DamagedError(
        f"{name}: is cut off: {by(shape)} voxels of {itemsize} bytes do not fit in it; copy or convert it"
        " again"
    )
