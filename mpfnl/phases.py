"""Ground floor: the contrast phases, the HU window, and the tensor shapes by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, TypedDict, TypeVar, runtime_checkable

from torch import Tensor

if TYPE_CHECKING:
    from numpy import ndarray


class Phase(StrEnum):
    """A contrast phase of an abdominal CT study.

    The order of the members is the order in which phases are stacked, everywhere.
    """

    NONCONTRAST = "noncontrast"
    ARTERIAL = "arterial"
    PORTAL_VENOUS = "portal_venous"
    DELAYED = "delayed"


PHASES: tuple[Phase, ...] = (Phase.NONCONTRAST, Phase.ARTERIAL, Phase.PORTAL_VENOUS)
"""The paper's three phases, which every study has. A study may have the delayed phase, too."""


AIR_HU = -1024
"""What lies outside of every scan: the lowest value that CT scanners measure."""

BODY_HU = -300
"""Darker voxels are air or lung."""

PhaseName: TypeAlias = Phase | Literal["noncontrast", "arterial", "portal_venous", "delayed"]
"""A phase, or its name as it stands in configurations."""


def resolve_phases(phases: int | Sequence[Phase | str], target: Phase | str) -> tuple[Phase, ...]:
    """The phases that a model takes, in stacking order.

    Args:
        phases: The phases; or how many: 1 for the target alone, 3 for the paper's, 4 for all.
        target: The phase to enhance.

    Raises:
        ValueError: If a number is not 1, 3 or 4, a phase is named twice, or the target is missing.
    """
    target = Phase(target)
    counted: dict[int, tuple[Phase, ...]] = {1: (target,), len(PHASES): PHASES, len(Phase): tuple(Phase)}
    if isinstance(phases, str) or (isinstance(phases, int) and phases not in counted):
        raise ValueError(f"phases={phases!r}: give 1, 3, 4 or a list of phases")
    named = list(counted[phases]) if isinstance(phases, int) else [Phase(phase) for phase in phases]
    if len(set(named)) != len(named):
        raise ValueError(f"a phase is named twice: {', '.join(named)}")
    if target not in named:
        raise ValueError(f"the target {target} is not among the phases {', '.join(named)}")
    return tuple(phase for phase in Phase if phase in named)


Intensities = TypeVar("Intensities", "Tensor", "ndarray", float)


@dataclass(frozen=True)
class Window:
    """An HU window, mapped linearly to [0, 1] and clipped.

    Args:
        level: Centre of the window in HU.
        width: Width of the window in HU, positive.
    """

    level: float = 50.0
    width: float = 450.0

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"the window's width is {self.width} HU; it must be positive")

    @property
    def lower(self) -> float:
        """The HU that maps to 0."""
        return self.level - self.width / 2

    @property
    def upper(self) -> float:
        """The HU that maps to 1."""
        return self.level + self.width / 2

    def normalize(self, hu: Intensities) -> Intensities:
        """Maps HU to [0, 1], clipped; any shape, a tensor, an array or a number."""
        scaled = (hu - self.lower) / self.width
        if isinstance(scaled, (int, float)):
            return min(max(scaled, 0.0), 1.0)
        return scaled.clip(0.0, 1.0)

    def denormalize(self, unit: Intensities) -> Intensities:
        """Maps [0, 1] back to HU; the inverse of `normalize` inside the window."""
        return unit * self.width + self.lower


ABDOMEN = Window(level=50.0, width=450.0)
"""The paper's window, [-175, 275] HU (arXiv 2501.14013, section II.C)."""


# The names of the shapes. A test run checks them (jaxtyping and beartype, see tests/conftest.py);
# on a machine without jaxtyping they are plain tensors.
if TYPE_CHECKING:
    PhaseBatch: TypeAlias = Tensor
    TargetBatch: TypeAlias = Tensor
    PhaseVolume: TypeAlias = Tensor
    SpatialVolume: TypeAlias = Tensor
    Features: TypeAlias = Tensor
    Reshaped: TypeAlias = Tensor
    Positions: TypeAlias = Tensor
    KeyPositions: TypeAlias = Tensor
    ValuePositions: TypeAlias = Tensor
    AttendedPositions: TypeAlias = Tensor
    Scalar: TypeAlias = Tensor
else:
    try:
        from jaxtyping import Float
    except ImportError:
        PhaseBatch = TargetBatch = PhaseVolume = SpatialVolume = Tensor
        Features = Reshaped = Scalar = Tensor
        Positions = KeyPositions = ValuePositions = AttendedPositions = Tensor
    else:
        PhaseBatch = Float[Tensor, "batch phase x y z"]  # the phases of a batch of studies
        TargetBatch = Float[Tensor, "batch 1 sx sy sz"]  # one phase, perhaps on a finer grid
        PhaseVolume = Float[Tensor, "phase x y z"]  # the phases of one study
        SpatialVolume = Float[Tensor, "x y z"]  # one scan
        Features = Float[Tensor, "batch channel x y z"]  # feature maps of one phase or of all
        Reshaped = Float[Tensor, "batch_out channel_out x_out y_out z_out"]  # feature maps, another shape
        Positions = Float[Tensor, "batch position channel"]  # a volume as a list of positions
        KeyPositions = Float[Tensor, "batch key channel"]  # what they are compared with
        ValuePositions = Float[Tensor, "batch key value_channel"]  # what is summed over those
        AttendedPositions = Float[Tensor, "batch position value_channel"]  # the sums
        Scalar = Float[Tensor, ""]


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
