"""Studies to take voxels from: in memory with a cache of bounded size, or on disk, read in parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpfnl.data.manifest import Study
from mpfnl.data.scans import Index, OpenFiles, ScanFile, check_unwindowed, find_scan
from mpfnl.phases import Phase
from mpfnl.volumes import Affine, Voxels, check_same_grid, read_volume


class PatchSource(Protocol):
    """A study of which boxes of voxels can be had."""

    @property
    def study_id(self) -> str:
        """Its name in the manifest."""

    @property
    def affine(self) -> Affine:
        """Voxel indices to world positions in mm, (4, 4)."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing in mm along x, y and z."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""

    def box(self, place: int, start: Index, stop: Index) -> NDArray[np.int16]:
        """The voxels of one phase from `start` to before `stop`, within the volume, in HU.

        Args:
            place: Of the phase among those of the study.
            start: The first voxel.
            stop: The voxel after the last, along each axis.
        """


class PatchSources(Protocol):
    """The studies that patches come from, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> PatchSource: ...


@dataclass(frozen=True, eq=False)
class LoadedStudy:
    """The phases of one study, in memory.

    Args:
        study_id: Its name in the manifest.
        hu: `(phase, x, y, z)`, int16, in HU.
        affine: Voxel indices to world positions in mm, (4, 4).
    """

    study_id: str
    hu: NDArray[np.int16]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing in mm along x, y and z."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""
        _, x, y, z = self.hu.shape
        return x, y, z

    def box(self, place: int, start: Index, stop: Index) -> NDArray[np.int16]:
        """A view of the voxels of one phase; see `PatchSource`."""
        return self.hu[place][tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]


@dataclass(frozen=True, eq=False)
class StudyOnDisk:
    """The phases of one study, read in parts.

    Args:
        study_id: Its name in the manifest.
        scans: Its phases, all on one grid.
        files: Where they are kept open.
    """

    study_id: str
    scans: tuple[ScanFile, ...]
    files: OpenFiles

    @property
    def affine(self) -> Affine:
        """Voxel indices to world positions in mm, (4, 4)."""
        return self.scans[-1].grid.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing in mm along x, y and z."""
        return self.scans[-1].grid.spacing

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""
        return self.scans[-1].grid.shape

    def box(self, place: int, start: Index, stop: Index) -> NDArray[np.int16]:
        """Reads the voxels of one phase; see `PatchSource`."""
        return self.files.read_box(self.scans[place], start, stop)


def load_study(study: Study, phases: Sequence[Phase]) -> LoadedStudy:
    """Reads phases of a study and checks that they lie on one grid.

    Args:
        study: A row of the manifest.
        phases: Which phases, in stacking order; the last one is the reference in messages.

    Raises:
        InputError: If a file cannot be used, or the grids differ, naming the file and the phase.
    """
    *others, last = phases
    reference = read_volume(study.file(last), last)
    hu = np.empty((len(phases), *reference.shape), np.int16)
    hu[-1] = as_int16(reference.data)
    for place, phase in enumerate(others):
        volume = read_volume(study.file(phase), phase)
        check_same_grid(reference, [volume])
        hu[place] = as_int16(volume.data)
    return LoadedStudy(study.study_id, hu, reference.affine)


def open_study(study: Study, phases: Sequence[Phase], files: OpenFiles) -> StudyOnDisk | None:
    """Looks whether phases of a study can be read in parts, and checks them as `load_study` does.

    Reads the headers and a slice of each phase.

    Args:
        study: A row of the manifest.
        phases: Which phases, in stacking order; the last one is the reference in messages.
        files: Where the files are kept open.

    Returns:
        None if a phase cannot be read in parts; `load_study` then reads the study, or says what is wrong.

    Raises:
        InputError: As for `load_study`.
    """
    found = [find_scan(study.file(phase), phase) for phase in phases]
    scans = tuple(scan for scan in found if scan is not None)
    if len(scans) < len(found):
        return None
    check_same_grid(scans[-1].grid, [scan.grid for scan in scans[:-1]])
    for scan in scans:
        check_unwindowed(scan, files)
    return StudyOnDisk(study.study_id, scans, files)


def as_int16(hu: Voxels) -> NDArray[np.int16]:
    """HU as they are kept: rounded, and limited to the type's range."""
    if hu.dtype == np.int16:
        return hu
    limits = np.iinfo(np.int16)
    return np.rint(hu).clip(limits.min, limits.max).astype(np.int16)


class StudyCache:
    """Keeps the studies that were used last, up to a number of bytes.

    A study larger than the budget is loaded anew each time. While a study is loaded, its voxels and those of
    one more of its phases are in memory beside the cache.

    Args:
        studies: The studies that may be asked for.
        phases: Which phases to load.
        budget: Bytes that the cached voxels may take.
    """

    def __init__(self, studies: Sequence[Study], phases: Sequence[Phase], budget: int) -> None:
        self.studies = list(studies)
        self.phases = list(phases)
        self.budget = budget
        self._loaded: OrderedDict[int, LoadedStudy] = OrderedDict()

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, index: int) -> LoadedStudy:
        if index in self._loaded:
            self._loaded.move_to_end(index)
            return self._loaded[index]
        loaded = load_study(self.studies[index], self.phases)
        self._loaded[index] = loaded
        while self.nbytes > self.budget:
            self._loaded.popitem(last=False)
        return loaded

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels in the cache."""
        return sum(study.hu.nbytes for study in self._loaded.values())


class StudyReader:
    """Studies to take patches from, each read as its files allow.

    Studies whose phases are uncompressed int16 are read in parts, and take no memory; others are loaded whole
    and cached.

    Args:
        cache: The studies; loads those that are not read in parts.
    """

    def __init__(self, cache: StudyCache) -> None:
        self.cache = cache
        self.files = OpenFiles()
        self._on_disk: dict[int, StudyOnDisk | None] = {}

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> PatchSource:
        if index not in self._on_disk:
            self._on_disk[index] = open_study(self.cache.studies[index], self.cache.phases, self.files)
        return self._on_disk[index] or self.cache[index]
