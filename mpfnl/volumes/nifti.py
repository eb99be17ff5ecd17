"""NIfTI files: boxes of plain ones, and slices of compressed ones.

nibabel reads voxels lazily and does not notice a file that is cut off in its last bytes. Here a compressed
file is read to its checksum.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import DamagedError
from mpfnl.volumes.fileio import GZIP_MAGIC, Unpacked, check_file, cut_off, one_line, readable
from mpfnl.volumes.formats import Format, StoredValues
from mpfnl.volumes.grid import Box
from mpfnl.volumes.nifti_header import read_header

GZIP_LARGEST_RATIO = 1100  # deflate cannot pack tighter than 1032 to 1
CHUNK = 1 << 24


class NiftiFormat(Format):
    """NIfTI-1 and NIfTI-2, .nii or .nii.gz. The content decides, so it is tried for files of any name."""

    random_access = True

    def matches(self, path: Path) -> bool:
        """Whether the path is a file."""
        return os.path.isfile(path)

    def open(self, path: Path, name: str) -> StoredValues:
        """Opens the file and checks its header.

        Raises:
            InputError: The file is missing, a folder, not NIfTI, cut off, not one scalar 3-D image, or has no
                place in the world.
        """
        check_file(path, name)
        with readable(name), path.open("rb") as file:
            packed = file.read(2) == GZIP_MAGIC
        return CompressedNifti(path, name) if packed else PlainNifti(path, name)


class PlainNifti:
    """An uncompressed NIfTI file, of which any box is read on its own.

    The file stays open until `close`. A copy for another process opens its own, and a process that was forked
    from this one closes what it inherited, since both would share one position in the file.

    Args:
        path: The file.
        name: Name of the scan in messages.

    Raises:
        InputError: The header cannot be used, or the file is too short for the voxels.
    """

    states_hu: ClassVar[bool] = False
    in_memory: ClassVar[bool] = False
    random_access: ClassVar[bool] = True

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file: IO[bytes] | None = None
        self._process = os.getpid()
        with readable(name), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = read_header(file, size, lambda: size, name)
        self.grid, self.dtype = header.grid, header.dtype
        self.slope, self.intercept, self._offset = header.slope, header.intercept, header.offset

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}

    def __del__(self) -> None:
        self.close()

    def read(self, box: Box) -> NDArray[Any]:
        """The stored values in a box, (x, y, z).

        In a file x runs fastest: the rows of a slice, from the box's first voxel to its last, lie in one
        range of bytes. No other bytes are read.
        """
        columns, rows, _ = self.grid.shape
        (x, nx), (y, ny), (z, nz) = ((part.start, part.stop - part.start) for part in box)
        stored = np.empty((nx, ny, nz), self.dtype, order="F")
        with readable(self.name):
            file = self._opened()
            if (nx, ny) == (columns, rows):
                self._fill(file, z * columns * rows, stored.reshape(-1, order="F"))
                return stored
            band = np.empty((ny, columns), self.dtype)
            wanted = band.reshape(-1)[: (ny - 1) * columns + nx]
            for k in range(nz):
                self._fill(file, x + columns * (y + rows * (z + k)), wanted)
                stored[:, :, k] = band[:, :nx].T
        return stored

    def finish(self) -> None:
        """Does nothing: a plain file has no checksum."""

    def close(self) -> None:
        """Closes the file; the next reading opens it again."""
        file, self._file = self.__dict__.get("_file"), None
        if file is not None:
            file.close()

    def _fill(self, file: IO[bytes], voxel: int, values: NDArray[Any]) -> None:
        """Reads consecutive values from the one of this number on."""
        view = memoryview(cast("Any", values.view(np.uint8)))
        file.seek(self._offset + voxel * self.dtype.itemsize)
        while view:
            count = cast("Any", file).readinto(view[:CHUNK])
            if not count:
                raise DamagedError(f"{self.name}: was cut off while it was in use; copy or convert it again")
            view = view[count:]

    def _opened(self) -> IO[bytes]:
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        if self._file is None:
            self._file = cast("IO[bytes]", self.path.open("rb", buffering=0))
        return self._file


class CompressedNifti:
    """A gzip-compressed NIfTI file, read from its first slice to its last.

    A box before the one that was read last is found by reading from the beginning again.

    Args:
        path: The file.
        name: Name of the scan in messages.

    Raises:
        InputError: The header cannot be used.
    """

    states_hu: ClassVar[bool] = False
    in_memory: ClassVar[bool] = False
    random_access: ClassVar[bool] = False

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._file: IO[bytes] | None = None
        self._stream: Unpacked | None = None
        self._position = 0  # the next byte of the unpacked file
        try:
            with _undamaged(name):
                most = path.stat().st_size * GZIP_LARGEST_RATIO
                header = read_header(self._opened(), most, self._count, name)
            self._position = header.length
        except BaseException:
            self.close()
            raise
        self.grid, self.dtype = header.grid, header.dtype
        self.slope, self.intercept, self._offset = header.slope, header.intercept, header.offset

    def __del__(self) -> None:
        self.close()

    def read(self, box: Box) -> NDArray[Any]:
        """The stored values in a box, (x, y, z); the slices before it are unpacked and passed over."""
        x, y, z = box
        columns, rows, _ = self.grid.shape
        stored = np.empty((columns, rows, z.stop - z.start), self.dtype, order="F")
        begin = self._offset + columns * rows * z.start * self.dtype.itemsize
        with _undamaged(self.name):
            if begin < self._position:
                self.close()
            stream = self._opened()
            while self._position < begin:
                wanted = min(CHUNK, begin - self._position)
                self._advance(len(stream.read(wanted)), wanted)
            view = memoryview(cast("Any", stored.reshape(-1, order="F").view(np.uint8)))
            self._advance(stream.readinto(view), len(view))
        return stored[x, y]

    def finish(self) -> None:
        """Reads to the end of the file: only there does gzip compare its checksum."""
        with _undamaged(self.name):
            stream = self._opened()
            while got := len(stream.read(CHUNK)):
                self._position += got

    def close(self) -> None:
        """Closes the file; the next reading opens it again."""
        file, self._file = self.__dict__.get("_file"), None
        self._stream, self._position = None, 0
        if file is not None:
            file.close()

    def _advance(self, count: int, wanted: int) -> None:
        if count < wanted:
            raise cut_off(self.grid.shape, self.dtype.itemsize, self.name)
        self._position += count

    def _opened(self) -> Unpacked:
        if self._stream is None:
            self._file = self.path.open("rb")
            self._stream = Unpacked(self._file)
        return self._stream

    def _count(self) -> int:
        """Bytes of the whole unpacked file."""
        with self.path.open("rb") as file:
            stream, count = Unpacked(file), 0
            while got := len(stream.read(CHUNK)):
                count += got
        return count


@contextmanager
def _undamaged(name: str) -> Iterator[None]:
    """Turns the errors of a damaged gzip stream, and the system's, into one line.

    Raises:
        DamagedError: The stream is damaged, or the file system refuses.
    """
    with readable(name):
        try:
            yield
        except (EOFError, zlib.error) as error:
            raise DamagedError(
                f"{name}: is cut off or damaged ({one_line(error)}); copy or convert it again"
            ) from error
