"""Parts of scans read from disk: the bytes of a patch, not the volume around it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, describe, read_volume
from mpfnl.volumes.grid import header_affine
from mpfnl.volumes.reading import WINDOWED_LIMIT

HEADER_BYTES = 348  # of NIfTI-1
MOST_OPEN_FILES = 64  # a process may have 256 on macOS, 1024 on most Linux systems

Index = Sequence[int] | NDArray[np.integer[Any]]
"""A voxel: its place along x, y and z."""


@dataclass(frozen=True, eq=False)
class ScanFile:
    """A scan whose voxels can be read in parts: an uncompressed NIfTI-1 file of int16 in HU.

    Args:
        grid: The scan without its voxels: each of them reads as 0.
        dtype: int16 in the file's byte order.
        offset: The byte at which the voxels begin.
    """

    grid: Volume
    dtype: np.dtype[Any]
    offset: int


def find_scan(path: Path, phase: Phase) -> ScanFile | None:
    """Looks whether a scan can be read in parts.

    Args:
        path: The file or folder of the scan.
        phase: Its contrast phase, which messages name.

    Returns:
        None if the scan must be read whole, with `read_volume`: it is compressed, scaled, of another number
        type or format, cut off, or not there; or its middle slice looks windowed.

    Raises:
        InputError: It can be read in parts, and its grid has no orientation, no positive spacing, or is
            sheared.
    """
    header = _plain_header(path)
    if header is None:
        return None
    affine, space = header_affine(header, describe(path, phase))
    voxels = np.broadcast_to(np.int16(0), tuple(int(size) for size in header["dim"][1:4]))
    grid = Volume(voxels, affine, path, phase, space=space)
    return ScanFile(grid, header.get_data_dtype(), int(header["vox_offset"]))


def _plain_header(path: Path) -> Any | None:
    """The header (untyped in nibabel) of a file that can be read in parts."""
    try:
        with path.open("rb") as file:
            block = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return None
    if len(block) < HEADER_BYTES or block[344:] != b"n+1\0":
        return None
    kind: Any = nib.Nifti1Header
    header = kind(block, check=False)
    if int(header["sizeof_hdr"]) != HEADER_BYTES or int(header["datatype"]) != 4:  # 4: int16
        return None
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    offset = float(header["vox_offset"])
    shape = np.asarray(header["dim"][1:4], dtype=np.int64)
    plain = (
        header["dim"][0] == 3
        and shape.min() >= 2
        and ((slope, intercept) == (1, 0) or slope == 0 or not np.isfinite(slope))
        and offset.is_integer()
        and HEADER_BYTES + 4 <= offset <= size - 2 * int(shape.prod())
    )
    return header if plain else None


def check_unwindowed(scan: ScanFile, files: OpenFiles) -> None:
    """Refuses a scan that is mapped to [0, 1] or [-1, 1] already.

    One voxel beyond that says that it is not. So the middle slice is read, and the volume only if that slice
    says nothing.

    Raises:
        InputError: As for `read_volume`.
    """
    x, y, z = scan.grid.shape
    middle = files.read_box(scan, (0, 0, z // 2), (x, y, z // 2 + 1))
    if np.abs(middle.astype(np.int32)).max() <= WINDOWED_LIMIT:
        read_volume(scan.grid.path, scan.grid.phase)


class OpenFiles:
    """Keeps the files that were read last open.

    Each process opens its own: a copy sent to another process has none, and a process forked from this one
    closes what it inherited, since the two would share their places in the files.

    Args:
        limit: How many, at least 1.
    """

    def __init__(self, limit: int = MOST_OPEN_FILES) -> None:
        self.limit = limit
        self._process = os.getpid()
        self._open: OrderedDict[Path, Any] = OrderedDict()

    def __reduce__(self) -> tuple[type[OpenFiles], tuple[int]]:
        return OpenFiles, (self.limit,)

    def __del__(self) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._open)

    def close(self) -> None:
        """Closes them all; what is read next is opened anew."""
        while self._open:
            self._open.popitem()[1].close()

    def read_box(self, scan: ScanFile, start: Index, stop: Index) -> NDArray[np.int16]:
        """Reads a box of voxels.

        In a file x runs fastest, so each slice of the box lies in one range of bytes, `X` voxels a row; no
        other bytes are read.

        Args:
            scan: From `find_scan`.
            start: The box's first voxel.
            stop: The voxel after its last, along each axis; within the volume.

        Returns:
            HU `(x, y, z)`.

        Raises:
            InputError: The file cannot be read, or has been cut off since `find_scan`.
        """
        columns, rows, _ = scan.grid.shape
        (x, y, z), (nx, ny, nz) = map(int, start), np.subtract(stop, start).tolist()
        box = np.empty((nx, ny, nz), np.int16, order="F")
        band = np.empty((ny, columns), scan.dtype)  # a slice's rows, from the box's first voxel on
        bytes_wanted = memoryview(cast("Any", band.reshape(-1).view(np.uint8)))[
            : 2 * ((ny - 1) * columns + nx)
        ]
        name = scan.grid.name
        try:
            file = self._file(scan.grid.path)
            for k in range(nz):
                file.seek(scan.offset + 2 * (x + columns * (y + rows * (z + k))))
                _fill(file, bytes_wanted, name)
                box[:, :, k] = band[:, :nx].T
        except OSError as error:
            raise InputError(f"{name}: cannot be read ({error.strerror or error}); check the file") from error
        return box

    def _file(self, path: Path) -> Any:
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        while len(self._open) >= self.limit:
            self._open.popitem(last=False)[1].close()
        self._open[path] = path.open("rb", buffering=0)
        return self._open[path]


def _fill(file: Any, buffer: memoryview, name: str) -> None:
    while buffer:
        count = file.readinto(buffer)
        if not count:
            raise InputError(f"{name}: was cut off while it was in use; copy or convert it again")
        buffer = buffer[count:]
