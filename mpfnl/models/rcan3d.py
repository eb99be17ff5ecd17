"""The single-phase baseline of the paper, and its multiphase variant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.rates import TrainingOptions
from mpfnl.networks import RCAN3DNet
from mpfnl.phases import PhaseName
from mpfnl.window import ABDOMEN, Window


class RCAN3D(EnhancementModule, network="RCAN3D"):
    """3D residual channel attention (Zhang et al., ECCV 2018; Chen et al., Nature Methods 2021).

    The default input is the portal venous phase alone, as in the paper; `phases=3` gives a baseline with the
    input of PFNL3D, and `presence=True` one that goes without a phase as well.

    Args:
        phases: Input phases, or their number (1: the target; 3: the paper's).
        target: Phase that the model restores.
        channels: Channels of the features.
        groups: Number of residual groups.
        blocks: Number of attention blocks a group.
        reduction: Reduction of the channel attention.
        scale: Refinement of the output grid along each axis: 1, 2 or 4.
        presence: Whether a mask of each phase is an input beside it: the model then goes without a phase, or
            a part of it, as PFNL3D does.
        phase_dropout: Probability with which each phase but the target is left out of a training step; for a
            model with `presence`.
        window: HU window that is mapped to [0, 1].
        **training: Options of the training (`TrainingOptions`): loss, optimiser, learning rate, memory.

    >>> model = RCAN3D(channels=8, groups=1, blocks=1)
    >>> [str(phase) for phase in model.phases]
    ['portal_venous']
    """

    network: RCAN3DNet

    def __init__(
        self,
        phases: int | Sequence[PhaseName] = 1,
        target: PhaseName = "portal_venous",
        channels: int = 32,
        groups: int = 5,
        blocks: int = 3,
        reduction: int = 8,
        scale: int = 1,
        presence: bool = False,
        phase_dropout: float = 0.0,
        window: Window = ABDOMEN,
        **training: Unpack[TrainingOptions],
    ) -> None:
        options = {
            "channels": channels,
            "groups": groups,
            "blocks": blocks,
            "reduction": reduction,
            "scale": scale,
            "presence": presence,
        }
        super().__init__("RCAN3D", phases, target, options, window, phase_dropout, **training)
