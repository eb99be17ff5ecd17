"""Studies in memory: all phases of one study on one grid, and a cache of bounded size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpfnl.data.manifest import Study
from mpfnl.phases import Phase
from mpfnl.volumes import Affine, Voxels, check_same_grid, read_volume


@dataclass(frozen=True, eq=False)
class LoadedStudy:
    """The phases of one study.

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
