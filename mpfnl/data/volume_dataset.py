"""Whole degraded volumes, for testing and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.data import Dataset

from mpfnl.data.recipe import Recipe, Sample, as_float, degrade_study
from mpfnl.data.studies import StudyCache


@dataclass
class VolumeDataset(Dataset[Sample]):
    """Whole degraded volumes; always the same for a seed.

    Args:
        cache: Loads the studies.
        recipe: How a volume is degraded and windowed.
    """

    cache: StudyCache
    recipe: Recipe

    def __len__(self) -> int:
        return len(self.cache.studies)

    def __getitem__(self, index: int) -> Sample:
        """The volume of a study: `(P, x, y, z)` and `(1, x, y, z)`.

        Where the phases' grid is coarser, the target ends with its last whole voxel.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        study = self.cache[index]
        degraded = degrade_study(study, self.recipe)
        target = as_float(study.read(self.recipe.loaded.index(self.recipe.target)))
        x, y, z = (side - side % self.recipe.scale for side in target.shape)
        window = self.recipe.window
        return {
            "phases": torch.stack(
                [window.normalize(torch.from_numpy(degraded[phase]).float()) for phase in self.recipe.phases]
            ),
            "target": window.normalize(target[:x, :y, :z]).unsqueeze(0),
            "study_id": study.study_id,
        }
