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


@dataclass(frozen=True)
class ReferenceNoise:
    """Noise of the references (targets) of a training, as a power of the voxel volume.

    Args:
        hu: Standard deviation in HU in voxels of 27 mm3, see `mpfnl.inference.hounsfield.noise_sd`.
        exponent: Exponent of the falling power; 0.5 for white noise.

    Raises:
        ValueError: The noise is not positive.

    >>> round(ReferenceNoise(16.0, 0.5).at(27 / 4), 1)
    32.0
    """

    hu: float
    exponent: float

    def __post_init__(self) -> None:
        if not self.hu > 0:
            raise ValueError(f"the noise of the references is {self.hu} HU; it must be positive")

    def at(self, voxel_mm3: float) -> float:
        """The standard deviation in HU in voxels of a volume in mm3."""
        return float(self.hu * (27.0 / voxel_mm3) ** self.exponent)


class StudyBatch(TypedDict):
    """A batch as the data module yields it and the models take it."""

    phases: PhaseBatch
    """The degraded phases, `(batch, P, x, y, z)` in [0, 1]; NaN where a phase but the target has no voxel."""
    target: TargetBatch
    """The clean target phase, `(batch, 1, x, y, z)` in [0, 1]."""
    study_id: list[str]
