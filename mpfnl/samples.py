"""Batches of the data module, and what a data module states about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypedDict, runtime_checkable

from mpfnl.phases import Phase
from mpfnl.shapes import PhaseBatch, TargetBatch
from mpfnl.window import Window


@runtime_checkable
class PhaseSource(Protocol):
    """What a data module says of the batches it yields."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases that are stacked."""

    @property
    def target(self) -> Phase:
        """The phase to restore."""


@dataclass(frozen=True)
class TrainingData:
    """What a model is trained on, as the data module says it.

    Args:
        studies: Number of training studies.
        phantoms: Whether there are phantoms among them.
        degradation: Name of what the phases are degraded with; `none` where they are not.
        window: The HU window of the samples.
        patch_size: Edge of a training patch in voxels.
        batch_size: Patches a batch of one process.
        val_patches: Number of validation patches.
        seed: Of patches and degradation.
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
    """A data module that says what it trains on."""

    @property
    def training_data(self) -> TrainingData:
        """What the model is trained on; known once the data module is set up."""


class StudyBatch(TypedDict):
    """What the data module yields and the models take."""

    phases: PhaseBatch
    """The degraded phases, `(batch, P, x, y, z)` in [0, 1]."""
    target: TargetBatch
    """The clean target phase, `(batch, 1, x, y, z)` in [0, 1]."""
    study_id: list[str]
