"""File formats of scans: what a format must provide, and the list of those that are known."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mpfnl.volumes.fileio import check_file
from mpfnl.volumes.grid import Box, Grid


class StoredValues(Protocol):
    """The values that a file stores for each voxel, before slope and intercept."""

    @property
    def grid(self) -> Grid:
        """Shape and place, checked."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type in the file; a real one."""

    @property
    def slope(self) -> float:
        """Rescale slope; not 0."""

    @property
    def intercept(self) -> float:
        """Rescale intercept."""

    @property
    def states_hu(self) -> bool:
        """Whether the file states that the rescaled values are HU, as DICOM does."""

    @property
    def in_memory(self) -> bool:
        """Whether all values are in memory."""

    @property
    def random_access(self) -> bool:
        """Whether a box is read without the values before it."""

    def read(self, box: Box) -> NDArray[Any]:
        """The values in a box, (x, y, z).

        Raises:
            DamagedError: The file is cut off or damaged before their end, or cannot be read any more.
        """

    def finish(self) -> None:
        """Reads to the end of the file, where it may have a checksum.

        Raises:
            DamagedError: The file is cut off or damaged.
        """

    def close(self) -> None:
        """Closes the file; a later `read` opens it again."""


@dataclass(frozen=True, eq=False)
class StoredArray:
    """Stored values in memory.

    Args:
        array: Values (x, y, z) of a real number type.
        grid: Shape and place.
        slope: Rescale slope; not 0.
        intercept: Rescale intercept.
        states_hu: Whether the file states that the rescaled values are HU.
    """

    array: NDArray[Any]
    grid: Grid
    slope: float = 1.0
    intercept: float = 0.0
    states_hu: bool = False
    in_memory: ClassVar[bool] = True
    random_access: ClassVar[bool] = True

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the values."""
        dtype: np.dtype[Any] = self.array.dtype
        return dtype

    def read(self, box: Box) -> NDArray[Any]:
        """The values in a box, not copied."""
        return self.array[box]

    def finish(self) -> None:
        """Does nothing: the file was read to its end."""

    def close(self) -> None:
        """Does nothing: no file is open."""


class Format(ABC):
    """A file format: one instance a format, given to `register_format`."""

    random_access: ClassVar[bool] = False
    """Whether some files of the format allow to read a box without the values before it."""

    @abstractmethod
    def matches(self, path: Path) -> bool:
        """Whether a path stands for a scan of this format; False where nothing lies there."""

    @abstractmethod
    def open(self, path: Path, name: str) -> StoredValues:
        """Opens a scan.

        Args:
            path: A path that `matches`.
            name: Name of the scan in messages.

        Raises:
            InputError: The scan cannot be read, or is no 3-D image of real numbers with a place in the world.
        """

    def exists(self, path: Path) -> bool:
        """Whether something lies where a path points."""
        return os.path.exists(path)

    def files(self, path: Path, name: str) -> list[Path]:
        """The files that make up a scan.

        Args:
            path: A path that `matches`.
            name: Name of the scan in messages.

        Raises:
            InputError: There is no such scan.
        """
        check_file(path, name)
        return [path]


REGISTERED: list[Format] = []
"""Formats that were added to those of the package; the newest first."""


def register_format(file_format: Format) -> Format:
    """Adds a file format; of several that match a path the newest reads it.

    Args:
        file_format: An instance of a subclass of `Format`.

    Returns:
        The format.

    >>> from mpfnl.volumes import Grid
    >>> from mpfnl.volumes.scan import find_format
    >>> class Npz(Format):
    ...     def matches(self, path):
    ...         return path.suffix == ".npz"
    ...
    ...     def open(self, path, name):
    ...         content = np.load(path)
    ...         return StoredArray(content["hu"], Grid(content["hu"].shape, content["affine"]))
    >>> npz = register_format(Npz())
    >>> find_format(Path("scan.npz")) is npz
    True
    >>> REGISTERED.remove(npz)
    """
    REGISTERED.insert(0, file_format)
    return file_format
