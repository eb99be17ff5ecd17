"""The single-phase baseline of the paper, and its multiphase variant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Adam

from mpfnl.models.enhancement import EnhancementModule, Interval, OptimizerFactory, SchedulerFactory
from mpfnl.networks import RCAN3DNet
from mpfnl.phases import Phase, PhaseName, resolve_phases


class RCAN3D(EnhancementModule):
    """3D residual channel attention (Zhang et al., ECCV 2018; Chen et al., Nature Methods 2021).

    By default it sees the portal venous phase only, as in the paper; `phases=3` gives a baseline that
    sees what PFNL3D sees.

    Args:
        phases: The phases, or how many (1: the target; 3: the paper's; 4: all).
        target: The phase to restore.
        channels: Channels of the features.
        groups: Number of residual groups.
        blocks: Number of attention blocks a group.
        reduction: Of the channel attention.
        scale: 1, 2 or 4: how many times finer the output grid is.
        loss: Of (prediction, target); L1 + 0.7 L1-Sobel (eq. 1) if None.
        optimizer: Makes the optimiser from the parameters.
        lr_scheduler: Makes a schedule from the optimiser; None: a constant rate.
        lr_interval: When the schedule moves on: each epoch or each step.
        lr_factors: Part of the network to what its learning rate is multiplied by; other parts have factor 1.
        channels_last: Keep the weights in the layout that is fast in mixed precision.
        activation_checkpointing: Train in less memory and a third more time: what is inside a residual group
            is not kept for the backward pass but computed again.
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
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory = Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_interval: Interval = "epoch",
        lr_factors: Mapping[str, float] | None = None,
        channels_last: bool = True,
        activation_checkpointing: bool = False,
    ) -> None:
        taken = resolve_phases(phases, target)
        self._config = {
            "phases": [str(phase) for phase in taken],
            "target": str(target),
            "channels": channels,
            "groups": groups,
            "blocks": blocks,
            "reduction": reduction,
            "scale": scale,
        }
        network = RCAN3DNet(len(taken), channels, groups, blocks, reduction, scale, activation_checkpointing)
        super().__init__(
            network,
            taken,
            Phase(target),
            loss,
            optimizer,
            lr_scheduler,
            lr_interval,
            lr_factors,
            channels_last,
        )

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments that define the network, as JSON values."""
        return dict(self._config)
