"""The scans of studies for training: read in parts from disk, or in memory with a cache of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpfnl.data.manifest import Study
from mpfnl.phases import Phase
from mpfnl.volumes import Grid, Scan, Volume, read_volume
from mpfnl.volumes.grid import Box, check_same_grid
from mpfnl.volumes.intensity import as_int16
from mpfnl.volumes.scan import open_random_access
from mpfnl.window import UNCOVERED_HU

MOST_OPEN_FILES = 64  # a process may have 256 on macOS, 1024 on most Linux systems


class OpenScans:
    """Keeps the files of the scans that were read last open; of those in memory it keeps nothing.

    Args:
        limit: Largest number of open files, at least 1.
    """

    def __init__(self, limit: int = MOST_OPEN_FILES) -> None:
        self.limit = limit
        self._open: OrderedDict[Scan, None] = OrderedDict()

    def __reduce__(self) -> tuple[type[OpenScans], tuple[int]]:
        return OpenScans, (self.limit,)  # a copy for another process opens its own files

    def __del__(self) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._open)

    def read(self, scan: Scan, box: Box) -> NDArray[np.int16]:
        """HU in a box of a scan, (x, y, z).

        Args:
            scan: A scan of int16.
            box: Slices with a start and a stop within the scan.

        Raises:
            InputError: The file cannot be read, or was cut off since it was opened.
        """
        if not scan.in_memory:
            self._open[scan] = None
            self._open.move_to_end(scan)
            while len(self._open) > self.limit:
                self._open.popitem(last=False)[0].close()
        return scan.read(box)

    def close(self) -> None:
        """Closes all files; the next reading opens what it needs."""
        while self._open:
            self._open.popitem()[0].close()


@dataclass(frozen=True, eq=False)
class StudyScans:
    """Phases of one study, on one grid.

    Args:
        study_id: Name of the study in the manifest.
        scans: The phases, int16 in HU: files that are read in parts, or volumes in memory; None for a phase
            that the study lacks, which covers nothing. The study has the last one.
        files: Files that stay open.
    """

    study_id: str
    scans: tuple[Scan | None, ...]
    files: OpenScans = field(default_factory=OpenScans)

    @property
    def grid(self) -> Grid:
        """Shape and place of all phases."""
        last = self.scans[-1]
        assert last is not None
        return last.grid

    def read(self, place: int, box: Box | None = None) -> NDArray[np.int16]:
        """HU of one phase, (x, y, z); not to be changed.

        Args:
            place: Number of the phase among those of the study.
            box: Slices with a start and a stop within the grid; the whole grid if None.
        """
        scan, box = self.scans[place], box or self.grid.box
        if scan is None:
            return np.full([side.stop - side.start for side in box], UNCOVERED_HU, np.int16)
        return self.files.read(scan, box)

    def read_all(self) -> list[NDArray[np.int16]]:
        """HU of all phases, (x, y, z) each; not to be changed."""
        return [self.read(place) for place in range(len(self.scans))]


class Studies(Protocol):
    """Studies by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> StudyScans: ...


def load_study(study: Study, phases: Sequence[Phase]) -> StudyScans:
    """Reads phases of a study into memory, in canonical order, and checks that they lie on one grid.

    A phase that the study lacks covers nothing.

    Args:
        study: A row of the manifest.
        phases: Phases in stacking order; the last one, which the study has, is the reference in messages.

    Raises:
        InputError: A file cannot be used, or the grids differ; the message names the file and the phase.
    """
    *others, last = phases
    reference = read_volume(study.file(last), last).canonical()
    scans: list[Scan | None] = []
    for phase in others:
        if phase not in study.phases:
            scans.append(None)
            continue
        volume = read_volume(study.file(phase), phase).canonical()
        check_same_grid(reference, [volume])
        scans.append(_int16(volume))
    return StudyScans(study.study_id, (*scans, _int16(reference)))


def _int16(volume: Volume) -> Volume:
    """The volume as patches need it: int16, z running fastest."""
    return replace(volume, data=np.ascontiguousarray(as_int16(volume.data)))


def open_study(study: Study, phases: Sequence[Phase], files: OpenScans) -> StudyScans | None:
    """Opens phases of a study of which parts can be read; in the order and with the checks of `load_study`.

    Reads the headers and a slice of each phase.

    Args:
        study: A row of the manifest.
        phases: Phases in stacking order; the last one, which the study has, is the reference in messages.
        files: Files that stay open.

    Returns:
        None if a phase must be read whole, by `load_study`.

    Raises:
        InputError: A file cannot be used, or the grids differ; see `load_study`.
    """
    last = phases[-1]
    opened: dict[Phase, Scan] = {}
    for phase in phases:
        if phase in study.phases or phase is last:
            scan = open_random_access(study.file(phase), phase)
            if scan is None:
                return None
            opened[phase] = scan
    check_same_grid(opened[last], [scan for phase, scan in opened.items() if phase is not last])
    return StudyScans(study.study_id, tuple(map(opened.get, phases)), files)


class StudyCache:
    """Keeps the studies that were used last, up to a number of bytes.

    A study larger than the budget is loaded anew each time. While a study is loaded, its voxels are in memory
    beside the cache.

    Args:
        studies: Rows of the manifest.
        phases: Phases to load.
        budget: Bytes that the cached voxels may take.
    """

    def __init__(self, studies: Sequence[Study], phases: Sequence[Phase], budget: int) -> None:
        self.studies = list(studies)
        self.phases = list(phases)
        self.budget = budget
        self._loaded: OrderedDict[int, StudyScans] = OrderedDict()

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, index: int) -> StudyScans:
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
        return sum(
            scan.data.nbytes
            for study in self._loaded.values()
            for scan in study.scans
            if isinstance(scan, Volume)
        )


class StudyReader:
    """Studies to take patches from, each read as its files allow.

    Studies whose phases are uncompressed int16 are read in parts, and take no memory; others are loaded whole
    and cached.

    Args:
        cache: The studies; it loads those that are not read in parts.
    """

    def __init__(self, cache: StudyCache) -> None:
        self.cache = cache
        self.files = OpenScans()
        self._in_parts: dict[int, StudyScans | None] = {}

    def __len__(self) -> int:
        return len(self.cache)

    def __getitem__(self, index: int) -> StudyScans:
        if index not in self._in_parts:
            self._in_parts[index] = open_study(self.cache.studies[index], self.cache.phases, self.files)
        return self._in_parts[index] or self.cache[index]
