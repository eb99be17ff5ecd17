"""The multiphase model of the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.rates import TrainingOptions
from mpfnl.networks import PFNL3DNet
from mpfnl.networks.nonlocal_block import NonLocalModeName
from mpfnl.phases import PhaseName
from mpfnl.window import ABDOMEN, Window


class PFNL3D(EnhancementModule, network="PFNL3D"):
    """3D progressive fusion of the phases with a non-local block (arXiv 2501.14013, section II.D).

    The defaults are the paper's: three phases, the portal venous one restored, Adam at 1e-3.

    Args:
        phases: Input phases, or their number (1: the target; 3: the paper's).
        target: Phase that the model restores.
        features: Channels of each phase in the trunk.
        blocks: Number of progressive fusion blocks.
        nonlocal_mode: Similarity of positions in the non-local block; None omits the block.
        nonlocal_factor: Edge of the non-local block's folded cube in voxels.
        scale: Refinement of the output grid along each axis: 1, 2 or 4.
        phase_dropout: Probability with which each phase but the target is left out of a training step, so
            that the model learns to do without it. The draw depends on the seed and the step alone.
        window: HU window that is mapped to [0, 1].
        **training: Options of the training (`TrainingOptions`): loss, optimiser, learning rate, memory.

    >>> model = PFNL3D(features=8, blocks=1)
    >>> model.phases[-1] is model.target
    True
    """

    network: PFNL3DNet

    def __init__(
        self,
        phases: int | Sequence[PhaseName] = 3,
        target: PhaseName = "portal_venous",
        features: int = 64,
        blocks: int = 20,
        nonlocal_mode: NonLocalModeName | None = "gaussian",
        nonlocal_factor: int = 2,
        scale: int = 1,
        phase_dropout: float = 0.0,
        window: Window = ABDOMEN,
        **training: Unpack[TrainingOptions],
    ) -> None:
        options = {
            "features": features,
            "blocks": blocks,
            "nonlocal_mode": nonlocal_mode,
            "nonlocal_factor": nonlocal_factor,
            "scale": scale,
        }
        super().__init__("PFNL3D", phases, target, options, window, phase_dropout, **training)
