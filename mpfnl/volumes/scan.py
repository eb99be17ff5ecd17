"""Scans on disk and in memory: one protocol, and the functions that open what a path stands for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np

from mpfnl.errors import FormatError
from mpfnl.phases import Phase
from mpfnl.volumes.dicom.series import DicomFormat, split_selector
from mpfnl.volumes.fileio import check_file, check_shape, scan_name
from mpfnl.volumes.formats import REGISTERED, Format, StoredArray, StoredValues
from mpfnl.volumes.grid import Box, Grid, OnGrid, check_affine
from mpfnl.volumes.hu_check import HuSample, hu_fault
from mpfnl.volumes.intensity import (
    Voxels,
    check_bits,
    check_finite,
    count_not_finite,
    rescale,
    storage_dtype,
)
from mpfnl.volumes.itk import MetaImageFormat, NrrdFormat
from mpfnl.volumes.nifti import NiftiFormat
from mpfnl.volumes.orientation import canonical_boxes, canonical_slabs
from mpfnl.volumes.volume import Volume

Visit: TypeAlias = Callable[[int, Voxels, int], None]
"""Receives each slab of a scan in their order: its first slice, HU `(x, y, slices)`, and the number of slices
of the scan."""

SURVEY_BYTES = 1 << 24
"""Size of the slabs in which a scan is checked."""

READ_SLICES = 8
"""Slices that a moving slab reads and converts in one go."""

BUILT_IN: tuple[Format, ...] = (DicomFormat(), NrrdFormat(), MetaImageFormat(), NiftiFormat())
"""The formats of the package, in the order in which they are asked."""


class Scan(OnGrid, Protocol):
    """A scan in HU whose voxels are read box by box: a file, or a `Volume` in memory.

    >>> scan: Scan = Volume.from_array(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.eye(4))
    >>> scan.grid.shape, scan.dtype
    ((5, 4, 3), dtype('int16'))
    >>> scan.read(scan.grid.slab(1, 2)).shape
    (5, 4, 1)
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the voxels, as `read_volume` chooses it."""

    @property
    def storage(self) -> np.dtype[Any]:
        """Number type in which the scan is written again."""

    @property
    def in_memory(self) -> bool:
        """Whether all voxels are in memory."""

    def read(self, box: Box) -> Voxels:
        """HU in a box, (x, y, z); not to be changed.

        Args:
            box: Slices with a start and a stop within the grid. A compressed file is read forward; a box
                before the last one costs a reading from the beginning.

        Raises:
            InputError: The file cannot be read there any more.
        """

    def close(self) -> None:
        """Closes the file, if one is open; a later `read` opens it again."""


def open_scan(
    source: str | Path | Volume,
    phase: Phase | None = None,
    visit: Visit | None = None,
    *,
    canonical: bool = False,
) -> Scan:
    """Opens a scan and checks it as `read_volume` does.

    A NIfTI file is read once for that, slab by slab, and never held whole. Scans in other formats are read
    into memory.

    Args:
        source: A path as for `read_volume`; or a volume in memory, whose values are checked too.
        phase: Contrast phase, named in messages.
        visit: Function that receives the whole scan, slab by slab.
        canonical: Whether axes are turned to right, anterior and superior (RAS+); a file whose slices run
            otherwise is then read into memory.

    Raises:
        InputError: The same errors as from `read_volume`.

    Warns:
        InputWarning: The same warnings as from `read_volume`.

    >>> from tempfile import TemporaryDirectory
    >>> from mpfnl.volumes import write_volume
    >>> volume = Volume.from_array(np.full((4, 4, 3), 40, np.int16), np.eye(4))
    >>> with TemporaryDirectory() as folder:
    ...     write_volume(f"{folder}/scan.nii.gz", volume.data, like=volume)
    ...     scan = open_scan(f"{folder}/scan.nii.gz", Phase.ARTERIAL)
    ...     print(scan.grid.shape, scan.dtype, scan.read(scan.grid.slab(1, 2)).max())
    ...     scan.close()
    (4, 4, 3) int16 40
    """
    if isinstance(source, Volume):
        name = scan_name(source.path, phase or source.phase)
        _check_geometry(source, name)
        volume = source.canonical() if canonical else source
        _survey(StoredArray(volume.data, volume.grid), name, visit)
        return volume
    path = Path(source)
    name = scan_name(path, phase)
    values = open_values(path, name)
    if canonical:
        values = canonical_slabs(values)
    if values.in_memory:
        volume = load_scan(values, path, phase)
        _show(volume, visit)
        return volume
    try:
        dtype = _survey(values, name, visit)
    finally:
        values.close()
    return FileScan(values, path, phase, dtype)


def open_random_access(path: Path, phase: Phase | None = None) -> Scan | None:
    """Opens a scan, in canonical order, of which boxes are read without the rest of its file.

    The header and the middle slice are checked, and the whole scan only where that slice is not HU.

    Args:
        path: A path as for `read_volume`.
        phase: Contrast phase, named in messages.

    Returns:
        The scan; None if it must be read whole: its file does not store int16 in HU, or is compressed or of a
        format without random access.

    Raises:
        InputError: The file cannot be used; as for `read_volume`.
    """
    file_format = find_format(path)
    name = scan_name(path, phase)
    if file_format is not None and not file_format.random_access:
        return None
    values = canonical_boxes(open_values(path, name))
    is_hu = values.dtype.newbyteorder("=") == np.int16 and not _rescaled(values)
    if not (values.random_access and is_hu):
        values.close()
        return None
    scan = FileScan(values, path, phase, np.dtype(np.int16))
    z = scan.grid.shape[2] // 2
    try:
        middle = scan.read(scan.grid.slab(z, z + 1))
        if hu_fault(middle):
            _survey(values, name, None)
    finally:
        scan.close()
    return scan


class FileScan:
    """A scan in a file that is read box by box; see `Scan`.

    Args:
        values: The stored values.
        path: File or folder.
        phase: Contrast phase, where there is one.
        dtype: Number type that holds all voxels.
    """

    in_memory: ClassVar[bool] = False

    def __init__(self, values: StoredValues, path: Path, phase: Phase | None, dtype: np.dtype[Any]) -> None:
        self.path, self.phase, self.dtype = path, phase, dtype
        self.name = scan_name(path, phase)
        self.grid: Grid = values.grid
        self.storage = storage_dtype(values.dtype, _rescaled(values), dtype)
        self._values = values

    def read(self, box: Box) -> Voxels:
        """HU in a box."""
        values = self._values
        voxels = rescale(values.read(box), values.slope, values.intercept, self.name)
        return voxels.astype(self.dtype, order="K", copy=False)

    def close(self) -> None:
        """Closes the file; the next reading opens it again."""
        self._values.close()


class MovingSlab:
    """Reads a scan forward, and keeps the slices that were not dropped; a long scan is never held whole.

    Args:
        scan: The scan. One in memory is read as it is; nothing is kept of it.
    """

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self._first = self._position = 0  # the first slice that is kept, and the next that is read
        self._slices = self._empty(0)

    def read(self, start: int, stop: int) -> Voxels:
        """HU `(x, y, stop - start)`; a view, good until the next call, not to be changed.

        Args:
            start: First slice.
            stop: The slice after the last.

        Raises:
            InputError: The file cannot be read there any more.
            ValueError: Slices before `start` were dropped.
        """
        if self.scan.in_memory:
            return self._of_scan(start, stop)
        if start < self._first:
            raise ValueError(f"slice {start} was dropped; the first that is kept is {self._first}")
        self._position = max(self._position, self._first)  # dropped before they were read
        if stop > self._position:
            slices = self._empty(stop - self._first)
            slices[:, :, : self._slices.shape[2]] = self._slices
            for begin in range(self._position, stop, READ_SLICES):
                end = min(begin + READ_SLICES, stop)
                slices[:, :, begin - self._first : end - self._first] = self._of_scan(begin, end)
            self._slices, self._position = slices, stop
        return self._slices[:, :, start - self._first : stop - self._first]

    def drop(self, before: int) -> None:
        """Forgets the slices before this one; their memory is free after the next reading."""
        before = max(before, self._first)
        self._slices = self._slices[:, :, before - self._first :]
        self._first = before

    def close(self) -> None:
        """Closes the scan's file and forgets its slices; the next reading may begin anywhere."""
        self.scan.close()
        self._slices, self._first, self._position = self._empty(0), 0, 0

    def _of_scan(self, start: int, stop: int) -> Voxels:
        return self.scan.read(self.scan.grid.slab(start, stop))

    def _empty(self, slices: int) -> Voxels:
        return np.empty((*self.scan.grid.shape[:2], slices), self.scan.dtype, order="F")


def find_format(path: Path) -> Format | None:
    """The format that reads a path; None where none does, since nothing lies there."""
    return next((each for each in (*REGISTERED, *BUILT_IN) if each.matches(path)), None)


def open_values(path: Path, name: str) -> StoredValues:
    """Opens the stored values of a scan, a mask or a label map.

    Args:
        path: A path as for `read_volume`.
        name: Name in messages.

    Raises:
        InputError: The file cannot be read, or is no 3-D image of real numbers with a place in the world.
    """
    file, selector = split_selector(path)
    if selector is not None and os.path.isfile(file):
        raise FormatError(f"{name}: names a label, and only masks have labels; give the scan as {file}")
    file_format = find_format(path)
    if file_format is None:
        check_file(path, name)
        raise FormatError(f"{name}: is neither a file nor a folder; check the path")
    return file_format.open(path, name)


def load_scan(values: StoredValues, path: Path, phase: Phase | None) -> Volume:
    """A whole scan in memory, checked to be HU.

    Args:
        values: The stored values; their file is closed.
        path: File or folder.
        phase: Contrast phase, where there is one.

    Raises:
        InputError: The file is damaged; a voxel is NaN or infinite; the values are not HU.
    """
    volume = load_values(values, path, phase)
    check_bits(values.dtype, _rescaled(values), volume.name)
    sample = HuSample(volume.shape, values.states_hu)
    sample.add(0, volume.data)
    sample.check(volume.name)
    return volume


def load_values(values: StoredValues, path: Path, phase: Phase | None) -> Volume:
    """The whole of a scan, mask or label map in memory; as `load_scan`, but whatever its values mean."""
    try:
        stored = values.read(values.grid.box)
        values.finish()
    finally:
        values.close()
    data = rescale(stored, values.slope, values.intercept, scan_name(path, phase))
    storage = storage_dtype(stored.dtype, _rescaled(values), data.dtype)
    return Volume(data, values.grid, path, phase, storage)


def scan_exists(path: str | Path) -> bool:
    """Whether something lies where a path points, without reading it.

    Args:
        path: A file, a folder, or `FOLDER#UID` or `FOLDER#UID@ACQUISITION` for one DICOM scan of a folder.
            Whether the folder holds that scan is checked when it is read.
    """
    path = Path(path)
    file_format = find_format(path)
    return os.path.exists(path) if file_format is None else file_format.exists(path)


def content_files(path: str | Path) -> list[Path]:
    """The files that make up a scan or mask, for instance to tell whether it changed.

    Args:
        path: A path as for `read_volume`.

    Returns:
        The one file; a header and the file of its voxels; or the slices of the DICOM series in the order of
        their positions, whatever the files are called.

    Raises:
        InputError: There is nothing, or no single DICOM series.
    """
    path = Path(path)
    file_format = find_format(path)
    if file_format is None:
        check_file(path, scan_name(path))
        return [path]
    return file_format.files(path, scan_name(path))


def _rescaled(values: StoredValues) -> bool:
    return (values.slope, values.intercept) != (1.0, 0.0)


def _slabs(grid: Grid, itemsize: int) -> list[tuple[int, int]]:
    x, y, depth = grid.shape
    step = max(1, SURVEY_BYTES // (x * y * itemsize))
    return [(start, min(start + step, depth)) for start in range(0, depth, step)]


def _survey(values: StoredValues, name: str, visit: Visit | None) -> np.dtype[Any]:
    """Checks a scan in one pass; returns the number type that holds all voxels.

    Each slab's type holds its values as they are, so the widest of all holds all, as it would for the whole.
    """
    dtypes: set[np.dtype[Any]] = set()
    sample, bad = HuSample(values.grid.shape, values.states_hu), 0
    for start, stop in _slabs(values.grid, values.dtype.itemsize):
        stored = values.read(values.grid.slab(start, stop))
        check_bits(stored.dtype, _rescaled(values), name)
        bad += count_not_finite(stored) if stored.dtype.kind == "f" else 0
        if not bad:
            voxels = rescale(stored, values.slope, values.intercept, name)
            dtypes.add(voxels.dtype)
            sample.add(start, voxels)
            if visit is not None:
                visit(start, voxels, values.grid.shape[2])
    values.finish()
    check_finite(bad, name)
    sample.check(name)
    return np.result_type(*dtypes)


def _check_geometry(volume: Volume, name: str) -> None:
    """Checks the number type, shape and affine of a volume in memory as those of a file."""
    if volume.dtype.kind not in "iufb":
        raise FormatError(f"{name}: holds values of type {volume.dtype}; give one real number a voxel, in HU")
    check_shape(volume.shape, name)
    check_affine(volume.affine, name)


def _show(volume: Volume, visit: Visit | None) -> None:
    if visit is not None:
        for start, stop in _slabs(volume.grid, volume.dtype.itemsize):
            visit(start, volume.read(volume.grid.slab(start, stop)), volume.shape[2])
