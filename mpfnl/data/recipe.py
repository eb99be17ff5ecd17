"""How a sample is made from a study: its phases, its degradation, its window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool3d

from mpfnl.data.studies import StudyScans
from mpfnl.errors import InputError
from mpfnl.phases import Phase
from mpfnl.transforms.degradation import Preset, Record
from mpfnl.transforms.seeds import Sharing, checked_run_seed, phase_draws
from mpfnl.volumes.intensity import as_int16
from mpfnl.window import ABDOMEN, Window


class Sample(TypedDict):
    """One element of a batch; see `mpfnl.samples.StudyBatch`."""

    phases: Tensor
    target: Tensor
    study_id: str


@dataclass(frozen=True)
class Recipe:
    """How a sample is made from a study.

    Args:
        phases: The phases that the model takes, in stacking order.
        target: The phase that it restores.
        degradation: What the phases are degraded with; None leaves them.
        window: The HU window mapped to [0, 1].
        seed: Of all random draws.
        sharing: What the degraded phases of a study have in common.
        scale: How many times coarser the grid is on which the phases are given, along each axis.

    Raises:
        InputError: The seed is negative, or the scale not positive.
    """

    phases: tuple[Phase, ...]
    target: Phase
    degradation: Preset | None
    window: Window = ABDOMEN
    seed: int = 0
    sharing: Sharing = Sharing.NOTHING
    scale: int = 1

    def __post_init__(self) -> None:
        checked_run_seed(self.seed)
        if self.scale < 1:
            raise InputError(f"scale is {self.scale}: give 1, 2 or 4, as the model has")

    @property
    def loaded(self) -> tuple[Phase, ...]:
        """The phases to read: those of the model, and the target last."""
        return (*(phase for phase in self.phases if phase is not self.target), self.target)

    @property
    def whole_slices(self) -> bool:
        """Whether the degradation must see whole cross-sections, not patches alone."""
        return self.degradation is not None and self.degradation.whole_slices

    def parameters(self, study_id: str, epoch: int = 0, draw: int = 0) -> dict[Phase, Record]:
        """What the phases of a sample are degraded with, by (seed, epoch, study, phase, draw) alone.

        Args:
            study_id: The study's name.
            epoch: The training epoch; 0 for data that do not change.
            draw: The number of the sample within study and epoch.

        Returns:
            The record of each phase of the model; without a degradation, records of no operation.
        """
        if self.degradation is None:
            return dict.fromkeys(self.phases, Record())
        return {
            phase: self.degradation.sample(
                phase_draws(self.seed, epoch, study_id, phase, draw, self.sharing), self.window
            )
            for phase in self.phases
        }

    def degrade(
        self,
        hu: Sequence[NDArray[np.int16]],
        spacing: Sequence[float],
        parameters: Mapping[Phase, Record],
    ) -> dict[Phase, Tensor]:
        """Degrades each phase as recorded.

        Args:
            hu: `(x, y, z)` of each phase in the order of `loaded`.
            spacing: Voxel spacing in mm.
            parameters: See `parameters`.

        Returns:
            HU `(x, y, z)`, float32, of each phase of the model.
        """
        return {
            phase: parameters[phase].apply(as_float(hu[self.loaded.index(phase)]), spacing)
            for phase in self.phases
        }


def degrade_study(study: StudyScans, recipe: Recipe) -> dict[Phase, NDArray[np.int16]]:
    """Degrades the whole phases of a study, the same for a seed wherever it is done.

    Args:
        study: The phases of `recipe.loaded`.
        recipe: How.

    Returns:
        HU `(x, y, z)`, whole numbers as a scan on disk has, of each phase of the model; on the recipe's
        coarser grid, where it has one.
    """
    degraded = recipe.degrade(study.read_all(), study.grid.spacing, recipe.parameters(study.study_id))
    return {phase: as_int16(coarser(hu, recipe.scale).numpy()) for phase, hu in degraded.items()}


def coarser(hu: Tensor, scale: int) -> Tensor:
    """The mean over cubes of voxels, as thicker slices and larger pixels measure it.

    Args:
        hu: `(..., x, y, z)`; voxels at an axis' end that fill no cube are left out.
        scale: Edge of a cube in voxels.
    """
    if scale == 1:
        return hu
    return avg_pool3d(hu.reshape(-1, 1, *hu.shape[-3:]), scale).reshape(
        *hu.shape[:-3], *(side // scale for side in hu.shape[-3:])
    )


def as_float(hu: NDArray[np.int16]) -> Tensor:
    """HU as float32 in memory that NumPy allocates.

    What PyTorch allocates is aligned, and glibc before 2.38 seldom uses such memory again while other blocks
    lie between: workers that make batches of large patches would grow from epoch to epoch.
    """
    return torch.from_numpy(hu.astype(np.float32))
