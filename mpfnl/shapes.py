"""Tensor shapes by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from torch import Tensor

# The names of the shapes. A test run checks them (jaxtyping and beartype, see tests/conftest.py);
# on a machine without jaxtyping they are plain tensors.
if TYPE_CHECKING:
    PhaseBatch: TypeAlias = Tensor
    Coverage: TypeAlias = Tensor
    CoverageMaps: TypeAlias = Tensor
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
        from jaxtyping import Bool, Float
    except ImportError:
        PhaseBatch = Coverage = CoverageMaps = TargetBatch = PhaseVolume = SpatialVolume = Tensor
        Features = Reshaped = Scalar = Tensor
        Positions = KeyPositions = ValuePositions = AttendedPositions = Tensor
    else:
        PhaseBatch = Float[Tensor, "batch phase x y z"]  # the phases of a batch of studies
        Coverage = Bool[Tensor, "batch phase x y z"]  # where each phase has voxels
        CoverageMaps = Float[Tensor, "batch 1 x y z"]  # 1 where a phase has voxels, else 0
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
