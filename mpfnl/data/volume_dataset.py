"""Whole degraded volumes, for testing and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from mpfnl.data.degradation import Sample, SampleSettings, degrade_study, to_float32
from mpfnl.data.studies import StudyCache
from mpfnl.networks.coverage import normalize_covered


@dataclass
class VolumeDataset(Dataset[Sample]):
    """Whole degraded volumes, the same for equal seeds.

    Args:
        cache: Loads the studies.
        settings: Degradation and window.
    """

    cache: StudyCache
    settings: SampleSettings

    def __len__(self) -> int:
        return len(self.cache.studies)

    def __getitem__(self, index: int) -> Sample:
        """The volume of a study: `(P, x, y, z)` and `(1, x, y, z)`.

        Where the phases' grid is coarser, the target ends with its last whole voxel.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        study = self.cache[index]
        degraded = degrade_study(study, self.settings)
        target = to_float32(study.read(self.settings.loaded.index(self.settings.target)))
        x, y, z = (side - side % self.settings.scale for side in target.shape)
        window, phases = self.settings.window, self.settings.phases
        hu = torch.stack([torch.from_numpy(degraded[phase]).float() for phase in phases])
        return {
            "phases": normalize_covered(hu, window, phases.index(self.settings.target)),
            "target": window.normalize(target[:x, :y, :z]).unsqueeze(0),
            "study_id": study.study_id,
        }
