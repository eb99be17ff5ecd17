"""Writing a scan: the whole file or none of it, and the same bytes for the same voxels."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import ConflictError, OutputError
from mpfnl.files import atomic_file
from mpfnl.volumes.grid import Grid
from mpfnl.volumes.intensity import Voxels, cast_hu
from mpfnl.volumes.orientation import SlabWriter, in_stored_order
from mpfnl.volumes.scan import Scan

SUFFIXES = (".nii.gz", ".nii")
COMPRESSION = 4  # gzip level


def write_volume(path: str | Path, hu: Voxels, like: Scan, dtype: np.dtype[Any] | None = None) -> None:
    """Writes voxels in HU as NIfTI-1 on the grid of another volume.

    A volume whose axes were turned on reading is written in the order of its file. The file has slope 1 and
    intercept 0, sform equal to qform, lengths in mm, and nothing else of the input's
    header (no text that could name a patient). It appears at once and whole; the same voxels give the same
    bytes.

    Args:
        path: The .nii or .nii.gz file; replaced if it exists.
        hu: Voxels (x, y, z) in HU; rounded and limited to the range of an integer type.
        like: The volume whose affine, space code and (by default) number type are taken.
        dtype: Another number type: int16, int32, float32, float64, or uint8 for masks and label maps.

    Raises:
        InputError: The name does not end in .nii or .nii.gz, or the file cannot be written there.
        ValueError: The shape is not `like`'s, or a voxel is NaN or infinite.

    >>> from tempfile import TemporaryDirectory
    >>> from mpfnl.volumes import Volume, read_volume
    >>> scan = Volume.from_array(np.full((4, 4, 3), 40, np.int16), np.diag([0.8, 0.8, 5, 1]))
    >>> with TemporaryDirectory() as folder:
    ...     write_volume(f"{folder}/darker.nii.gz", scan.data - 10.4, like=scan)
    ...     read_volume(f"{folder}/darker.nii.gz").data.max()
    np.int16(30)
    """
    if hu.shape != like.grid.shape:
        raise ValueError(f"the voxels have the shape {hu.shape}, the volume to be like {like.grid.shape}")
    with volume_writer(path, like.grid, like.storage if dtype is None else dtype) as writer:
        writer.write(hu)


class VolumeWriter:
    """Receives the slabs of a volume in their order; see `volume_writer`.

    Args:
        stream: Stream of the file.
        shape: Shape of the whole volume.
        dtype: Number type in the file.
    """

    def __init__(self, stream: IO[bytes], shape: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
        self._stream = stream
        self._shape = shape
        self._dtype = dtype
        self._written = 0

    def write(self, slab: Voxels) -> None:
        """Writes the next slices.

        Args:
            slab: HU `(x, y, slices)`; rounded and limited to the range of an integer type.

        Raises:
            ValueError: The slices do not fit the volume, or a voxel is NaN or infinite.
        """
        self._written += slab.shape[2]
        if slab.shape[:2] != self._shape[:2] or self._written > self._shape[2]:
            raise ValueError(f"a slab of {slab.shape} does not fit a volume of {self._shape}")
        for z in range(slab.shape[2]):
            self._stream.write(_store(slab[:, :, z], self._dtype).tobytes(order="F"))

    def check_complete(self) -> None:
        """Raises ValueError where slices are missing."""
        if self._written != self._shape[2]:
            raise ValueError(f"{self._written} of {self._shape[2]} slices were written")


@contextmanager
def volume_writer(path: str | Path, grid: Grid, dtype: np.dtype[Any]) -> Iterator[SlabWriter]:
    """Writes a volume slab by slab, as `write_volume` does at once; the same bytes, however it is cut.

    The file appears at the end of the block, if all slices were written and nothing was raised.

    Args:
        path: The .nii or .nii.gz file; replaced if it exists.
        grid: Shape and place of the slabs; the file has the order of its `stored` grid, where it has one.
        dtype: Number type in the file, as for `write_volume`.

    Raises:
        InputError: The same errors as from `write_volume`.
        ValueError: Slices are missing at the end.
    """
    path = Path(path)
    dtype = np.dtype(dtype).newbyteorder("<")
    check_output(path)
    stored = grid.stored or grid
    header = _header(stored, dtype)
    with atomic_file(path) as file, _packed(file, path) as stream:
        stream.write(header)
        writer = VolumeWriter(stream, stored.shape, dtype)
        yield in_stored_order(writer, grid)
        writer.check_complete()


def _packed(file: IO[bytes], path: Path) -> AbstractContextManager[IO[bytes]]:
    if not path.name.lower().endswith(".gz"):
        return nullcontext(file)
    return cast("AbstractContextManager[IO[bytes]]", gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0))


def check_output(path: str | Path, inputs: Iterable[str | Path] = ()) -> None:
    """Refuses a place to write to before any work is done.

    Args:
        path: The output.
        inputs: Files that must not be overwritten, under whatever name they are reached.

    Raises:
        InputError: The name does not end in .nii or .nii.gz; its folder is missing or read-only; it is a
            folder; or it is one of the inputs.
    """
    path = Path(path)
    if not path.name.lower().endswith(SUFFIXES):
        raise OutputError(f"{path}: the output's name must end in .nii.gz or .nii; choose another name")
    if path.is_dir():
        raise OutputError(f"{path}: the output is a folder; give the name of a file in it")
    for other in inputs:
        if _same_file(path, Path(other)):
            raise ConflictError(f"{path}: the output is an input ({other}); choose another output")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the folder {path.parent} is read-only; choose another output")


def _same_file(a: Path, b: Path) -> bool:
    if a.exists() and b.exists():
        return a.samefile(b)  # also through hard links, and on file systems that ignore case
    return a.resolve() == b.resolve()


def _header(grid: Grid, dtype: np.dtype[Any]) -> bytes:
    kind: Any = nib.Nifti1Header  # untyped
    header = kind(endianness="<")
    header.set_data_shape(grid.shape)
    header.set_data_dtype(dtype)
    header.set_slope_inter(1.0, 0.0)
    header.set_qform(grid.affine, code=grid.space, strip_shears=True)
    header.set_sform(grid.affine, code=grid.space)
    header.set_xyzt_units("mm")
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return bytes(header.binaryblock) + b"\0\0\0\0"  # the last four: no header extensions


def _store(hu: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if not np.isfinite(hu).all():
        raise ValueError("a voxel to be written is NaN or infinite")
    return cast_hu(hu, dtype)
