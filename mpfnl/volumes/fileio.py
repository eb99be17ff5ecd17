"""Files as every reader sees them: opening, sizes, and the words of their errors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import DamagedError, FormatError, GridError, NotFoundError
from mpfnl.phases import Phase


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
    """The size of a 3-D volume, checked.

    Raises:
        GridError: The size has not three axes, or fewer than 2 voxels along one.
    """
    if not shape or min(shape) < 1:
        raise GridError(f"{name}: its header gives an impossible size ({by(shape)}); convert it again")
    if len(shape) != 3:
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
