"""Degradation of a study: the settings of a sample, and the degraded phases that follow from them."""

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
from mpfnl.errors import OptionError
from mpfnl.phases import Phase
from mpfnl.transforms.degradation import Preset, Record
from mpfnl.transforms.seeds import Sharing, checked_run_seed, phase_draws
from mpfnl.volumes.intensity import as_int16
from mpfnl.window import ABDOMEN, COVERED_FROM_HU, UNCOVERED_HU, Window


class Sample(TypedDict):
    """One element of a batch, in [0, 1]; see `mpfnl.samples.StudyBatch`."""

    phases: Tensor
    target: Tensor
    study_id: str


@dataclass(frozen=True)
class SampleSettings:
    """The settings by which a study becomes a sample.

    Args:
        phases: Input phases of the model, in stacking order.
        target: Phase that the model restores.
        degradation: Degradation preset; None leaves the phases clean.
        window: HU window mapped to [0, 1].
        seed: Seed of all random draws.
        sharing: Properties that the degraded phases of a study share.
        scale: Ratio of the phases' voxel spacing to the target's, along each axis.

    Raises:
        OptionError: The seed is negative, or the scale not positive.
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
            raise OptionError(f"scale is {self.scale}: give 1, 2 or 4, the scale of the model")

    @property
    def loaded(self) -> tuple[Phase, ...]:
        """The phases to read: the input phases, and the target last."""
        return (*(phase for phase in self.phases if phase is not self.target), self.target)

    @property
    def whole_slices(self) -> bool:
        """Whether the degradation needs whole cross-sections instead of patches."""
        return self.degradation is not None and self.degradation.whole_slices

    def parameters(self, study_id: str, epoch: int = 0, draw: int = 0) -> dict[Phase, Record]:
        """Degradation parameters of a sample; they depend on (seed, epoch, study, phase, draw) alone.

        Args:
            study_id: Study name.
            epoch: Training epoch; 0 for data that do not change.
            draw: Number of the sample within study and epoch.

        Returns:
            The record of each input phase; without a degradation, records without operations.
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
        """Degrades each phase by its record.

        Where a phase does not cover a voxel, the target's HU stand in for it while it is degraded, and the
        voxel remains uncovered.

        Args:
            hu: `(x, y, z)` of each phase in the order of `loaded`.
            spacing: Voxel spacing in mm.
            parameters: Records of the phases; see `parameters`.

        Returns:
            HU `(x, y, z)`, float32, of each input phase.
        """
        degraded = {}
        for phase in self.phases:
            scan = hu[self.loaded.index(phase)]
            uncovered = (scan < COVERED_FROM_HU) & (phase is not self.target)
            if uncovered.all():
                degraded[phase] = torch.from_numpy(np.full(scan.shape, UNCOVERED_HU, np.float32))
                continue
            filled = np.where(uncovered, hu[-1], scan) if uncovered.any() else scan
            degraded[phase] = parameters[phase].apply(to_float32(filled), spacing)
            if uncovered.any():
                degraded[phase][torch.from_numpy(uncovered)] = UNCOVERED_HU
        return degraded


def degrade_study(study: StudyScans, settings: SampleSettings) -> dict[Phase, NDArray[np.int16]]:
    """Degrades whole phases of a study; the result depends on the study and the settings alone.

    Args:
        study: The phases of `settings.loaded`.
        settings: Degradation, seed and scale.

    Returns:
        HU `(x, y, z)` of each input phase, int16; on the coarser grid if `settings.scale` exceeds 1.
    """
    degraded = settings.degrade(study.read_all(), study.grid.spacing, settings.parameters(study.study_id))
    return {phase: as_int16(block_mean(hu, settings.scale).numpy()) for phase, hu in degraded.items()}


def block_mean(hu: Tensor, scale: int) -> Tensor:
    """The mean over cubes of voxels, as a scan with thicker slices and larger pixels measures it.

    Args:
        hu: `(..., x, y, z)`; incomplete cubes at the end of an axis are left out. A cube with a voxel that
            the scan does not cover is not covered.
        scale: Edge of a cube in voxels.
    """
    if scale == 1:
        return hu
    cubes = hu.reshape(-1, 1, *hu.shape[-3:])
    uncovered = avg_pool3d((cubes < COVERED_FROM_HU).to(hu.dtype), scale) > 0
    return (
        avg_pool3d(cubes, scale)
        .masked_fill(uncovered, UNCOVERED_HU)
        .reshape(*hu.shape[:-3], *(side // scale for side in hu.shape[-3:]))
    )


def to_float32(hu: NDArray[np.int16]) -> Tensor:
    """HU as float32 in memory that NumPy allocates.

    PyTorch allocates aligned memory, which glibc before 2.38 seldom reuses while other blocks lie between:
    the memory of workers with large patches would grow from epoch to epoch.
    """
    return torch.from_numpy(hu.astype(np.float32))
