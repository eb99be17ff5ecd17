"""Scans that are read slab by slab, so that a long one is never in memory whole."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from mpfnl.phases import Phase
from mpfnl.volumes import metaimage, nrrd
from mpfnl.volumes.dicom import split_selector
from mpfnl.volumes.dicom.headers import is_dicom
from mpfnl.volumes.nifti import NiftiSlices
from mpfnl.volumes.reading import check_bits, check_hu, read_volume
from mpfnl.volumes.stored import check_none_bad, count_bad
from mpfnl.volumes.volume import Affine, Placed, Volume, Voxels, describe

Visit: TypeAlias = Callable[[int, Voxels, int], None]
"""Is shown each slab of a scan in their order: its first slice, HU `(x, y, slices)`, and how many slices the
scan has."""

SURVEY_BYTES = 1 << 24
"""What is looked at in one go before the start."""

READ_SLICES = 8
"""Slices that are converted in one go."""


class SlabScan(Placed, Protocol):
    """A scan of which a moving slab can be read: forward, and back to what was not dropped."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number type of the voxels, as `read_volume` chooses it."""

    @property
    def in_memory(self) -> bool:
        """Whether the whole scan is in memory anyway."""

    def read(self, start: int, stop: int) -> Voxels:
        """HU `(x, y, stop - start)`; not to be changed, and good until the next call.

        Raises:
            InputError: The file cannot be read there any more.
            ValueError: Slices before `start` were dropped.
        """

    def drop(self, before: int) -> None:
        """Forgets the slices before this one."""

    def close(self) -> None:
        """Closes the file, if one is open."""


def open_scan(
    source: str | Path | Volume, phase: Phase | None = None, visit: Visit | None = None
) -> SlabScan:
    """Checks a scan as `read_volume` does, and makes it ready to be read in slabs.

    A NIfTI file is gone through once for that, slab by slab, and never held whole. Scans in other formats
    are read whole.

    Args:
        source: What `read_volume` takes; or a volume in memory, which is not checked.
        phase: Its contrast phase, which messages then name.
        visit: Is shown the whole scan, slab by slab.

    Raises:
        InputError: As for `read_volume`.

    Warns:
        InputWarning: As for `read_volume`.
    """
    if isinstance(source, Volume):
        return _in_memory(source, visit)
    path = Path(source)
    name = describe(path, phase)
    if not _is_nifti(path, name):
        return _in_memory(read_volume(path, phase), visit)
    return NiftiScan(path, phase, visit)


@dataclass(frozen=True, eq=False)
class VolumeScan:
    """A volume in memory as a scan that is read in slabs.

    Args:
        volume: The volume.
    """

    volume: Volume

    @property
    def path(self) -> Path:
        """The file it comes from."""
        return self.volume.path

    @property
    def phase(self) -> Phase | None:
        """Its contrast phase, where it has one."""
        return self.volume.phase

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""
        return self.volume.shape

    @property
    def affine(self) -> Affine:
        """Voxel indices to world positions in mm, (4, 4)."""
        return self.volume.affine

    @property
    def space(self) -> int:
        """The NIfTI code of the world's coordinates."""
        return self.volume.space

    @property
    def storage(self) -> np.dtype[Any]:
        """The number type in which it is written again."""
        return self.volume.storage

    @property
    def name(self) -> str:
        """The file and the phase, as messages name it."""
        return self.volume.name

    @property
    def dtype(self) -> np.dtype[Any]:
        """The number type of the voxels."""
        dtype: np.dtype[Any] = self.volume.data.dtype
        return dtype

    @property
    def in_memory(self) -> bool:
        """Yes."""
        return True

    def read(self, start: int, stop: int) -> Voxels:
        """HU `(x, y, stop - start)`, not copied."""
        return self.volume.data[:, :, start:stop]

    def drop(self, before: int) -> None:
        """Nothing: the volume is the caller's."""

    def close(self) -> None:
        """Nothing."""


class NiftiScan:
    """A NIfTI file that was checked whole, and is read again slab by slab.

    Args:
        path: The file.
        phase: Its contrast phase, where it has one.
        visit: Is shown the whole scan, slab by slab.

    Raises:
        InputError: As for `read_volume`.
    """

    in_memory = False

    def __init__(self, path: Path, phase: Phase | None = None, visit: Visit | None = None) -> None:
        self.path = path
        self.phase = phase
        self.name = describe(path, phase)
        self._slices: NiftiSlices | None = None
        self._first = self._position = 0  # the first slice that is held, and the next that is read
        with NiftiSlices(path, self.name) as slices:
            self.shape = slices.shape
            self.affine, self.space = slices.affine, slices.space
            self.dtype, self.storage = _survey(slices, self.name, visit)
        self._held = self._empty(0)

    def read(self, start: int, stop: int) -> Voxels:
        """HU `(x, y, stop - start)`; a view, good until the next call."""
        if start < self._first:
            raise ValueError(f"slice {start} was dropped; the first that is held is {self._first}")
        while self._position < self._first:  # dropped before they were read
            self._next(min(READ_SLICES, self._first - self._position))
        if stop > self._position:
            held = self._empty(stop - self._first)
            held[:, :, : self._held.shape[2]] = self._held
            while self._position < stop:
                place = self._position - self._first
                slab = self._next(min(READ_SLICES, stop - self._position))
                held[:, :, place : place + slab.shape[2]] = slab
            self._held = held
        return self._held[:, :, start - self._first : stop - self._first]

    def drop(self, before: int) -> None:
        """Forgets the slices before this one; their memory is free after the next reading."""
        before = max(before, self._first)
        self._held = self._held[:, :, before - self._first :]
        self._first = before

    def close(self) -> None:
        """Closes the file and forgets what was read."""
        if self._slices is not None:
            self._slices.close()
        self._slices = None
        self._held, self._first, self._position = self._empty(0), 0, 0

    def _next(self, count: int) -> Voxels:
        if self._slices is None:
            self._slices = NiftiSlices(self.path, self.name)
        self._position += count
        return self._slices.read(count).voxels(self.name)

    def _empty(self, slices: int) -> Voxels:
        return np.empty((*self.shape[:2], slices), self.dtype, order="F")


def _survey(slices: NiftiSlices, name: str, visit: Visit | None) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Goes through a file to its end; returns the number types of its voxels in memory and on disk.

    A slab's type holds its values as they are, so the widest of all holds all, as it would for the whole.
    """
    x, y, depth = slices.shape
    step = max(1, SURVEY_BYTES // (x * y * slices.dtype.itemsize))
    dtypes: set[np.dtype[Any]] = set()
    low, high, bad = np.inf, -np.inf, 0
    for start in range(0, depth, step):
        image = slices.read(min(step, depth - start))
        check_bits(image, name)
        bad += count_bad(image.stored) if image.stored.dtype.kind == "f" else 0
        if not bad:
            voxels = image.voxels(name)
            dtypes.add(voxels.dtype)
            low, high = min(low, float(voxels.min())), max(high, float(voxels.max()))
            if visit is not None:
                visit(start, voxels, depth)
    slices.finish()
    check_none_bad(bad, name)
    check_hu(low, high, name)
    dtype = np.result_type(*dtypes)
    return dtype, image.storage(dtype)


def _in_memory(volume: Volume, visit: Visit | None) -> VolumeScan:
    x, y, depth = volume.shape
    step = max(1, SURVEY_BYTES // (x * y * volume.data.itemsize))
    if visit is not None:
        for start in range(0, depth, step):
            visit(start, volume.data[:, :, start : start + step], depth)
    return VolumeScan(volume)


def _is_nifti(path: Path, name: str) -> bool:
    """Whether `read_volume` would read it as NIfTI; False also for what it would refuse."""
    _, uid = split_selector(path)
    if uid is not None or not os.path.isfile(path):
        return False
    others = (*nrrd.SUFFIXES, *metaimage.SUFFIXES)
    return path.suffix.lower() not in others and not is_dicom(path, name)
