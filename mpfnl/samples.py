"""Batches of the data module, and the facts that a data module states about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypedDict, runtime_checkable

from mpfnl.phases import Phase
from mpfnl.shapes import PhaseBatch, TargetBatch
from mpfnl.window import Window


@runtime_checkable
class PhaseSource(Protocol):
    """A data module that states the phases, the grid and the window of its batches."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The stacked phases."""

    @property
    def target(self) -> Phase:
        """The phase to restore."""

    @property
    def scale(self) -> int:
        """Refinement of the target's grid along each axis."""

    @property
    def window(self) -> Window:
        """The HU window that is mapped to [0, 1]."""


@dataclass(frozen=True)
class TrainingData:
    """The training set of a model, as the data module states it.

    Args:
        studies: Number of training studies.
        phantoms: Whether the training studies include phantoms.
        degradation: Name of the degradation preset; `none` where the phases are not degraded.
        window: HU window of the samples.
        patch_size: Edge of a training patch in voxels.
        batch_size: Patches per batch and process.
        val_patches: Number of validation patches.
        seed: Seed of patches and degradation.
    """

    studies: int
    phantoms: bool
    degradation: str
    window: Window
    patch_size: int
    batch_size: int
    val_patches: int
    seed: int


@runtime_checkable
class TrainingSource(Protocol):
    """A data module that states its training set."""

    @property
    def training_data(self) -> TrainingData:
        """The training set; known once the data module is set up."""


class StudyBatch(TypedDict):
    """A batch as the data module yields it and the models take it."""

    phases: PhaseBatch
    """The degraded phases, `(batch, P, x, y, z)` in [0, 1]; NaN where a phase but the target has no voxel."""
    target: TargetBatch
    """The clean target phase, `(batch, 1, x, y, z)` in [0, 1]."""
    study_id: list[str]
