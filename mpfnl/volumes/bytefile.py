"""What every reader of a file shares: opening it, and refusing what cannot be a scan."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mpfnl.errors import InputError


def check_file(path: Path, name: str) -> None:
    """Refuses a path that names no file.

    Raises:
        InputError: It is a folder, or there is nothing.
    """
    if os.path.isdir(path):  # unlike Path.is_dir, no error where a folder may not be entered
        raise InputError(f"{name}: is a folder; give a file")
    if not os.path.exists(path):
        raise InputError(f"{name}: there is no such file; check the path")


@contextmanager
def open_file(path: Path, name: str) -> Iterator[IO[bytes]]:
    """Opens a file for bytes; the system's errors, there and inside, come out as one line.

    Raises:
        InputError: The file system refuses.
    """
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({one_line(error)}); check the file") from error


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def by(shape: Sequence[int]) -> str:
    """A size as messages show it: "512 by 512 by 60"."""
    return " by ".join(str(size) for size in shape)


def check_shape(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    """The size of a 3-D volume.

    Raises:
        InputError: It has not three axes, or fewer than 2 voxels along one.
    """
    if not shape or min(shape) < 1:
        raise InputError(f"{name}: its header gives an impossible size ({by(shape)}); convert it again")
    if len(shape) != 3:
        raise InputError(f"{name}: is {len(shape)}-D ({by(shape)}); give one 3-D volume")
    if min(shape) < 2:
        raise InputError(f"{name}: has fewer than 2 voxels along an axis ({by(shape)}); give a 3-D volume")
    x, y, z = shape
    return x, y, z


def cut_off(shape: Sequence[int], itemsize: int, name: str) -> InputError:
    """The error for a file that holds fewer bytes than its voxels take."""
    return InputError(
        f"{name}: is cut off: {by(shape)} voxels of {itemsize} bytes do not fit in it; copy or convert it"
        " again"
    )
