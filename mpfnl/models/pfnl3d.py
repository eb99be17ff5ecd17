"""The multiphase model of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import Adam

from mpfnl.models.enhancement import EnhancementModule, Interval, OptimizerFactory, SchedulerFactory
from mpfnl.networks import PFNL3DNet
from mpfnl.networks.nonlocal_block import NonLocalMode, NonLocalModeName
from mpfnl.phases import Phase, PhaseName, resolve_phases
from mpfnl.shapes import PhaseBatch, TargetBatch


class PFNL3D(EnhancementModule):
    """3D progressive fusion of the phases with a non-local block (arXiv 2501.14013, section II.D).

    The defaults are the paper's: all three phases, the portal venous one restored, Adam at 1e-3.

    Args:
        phases: The phases, or how many (1: the target; 3: the paper's; 4: all).
        target: The phase to restore.
        features: Channels of each phase in the trunk.
        blocks: Number of progressive fusion blocks.
        nonlocal_mode: How positions are compared; None leaves the non-local block out.
        nonlocal_factor: Edge of the non-local block's folded cube in voxels.
        scale: 1, 2 or 4: how many times finer the output grid is.
        phase_dropout: Probability with which each phase but the target is left out of a training step, so
            that the model learns to do without it. The draw depends on the seed and the step alone.
        loss: Of (prediction, target); L1 + 0.7 L1-Sobel (eq. 1) if None.
        optimizer: Makes the optimiser from the parameters.
        lr_scheduler: Makes a schedule from the optimiser; None: a constant rate.
        lr_interval: When the schedule moves on: each epoch or each step.
        lr_factors: Part of the network to what its learning rate is multiplied by; other parts have factor 1.
        channels_last: Keep the weights in the layout that is fast in mixed precision.
        activation_checkpointing: Train in less memory and a third more time: what is inside a fusion block is
            not kept for the backward pass but computed again.
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
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory = Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_interval: Interval = "epoch",
        lr_factors: Mapping[str, float] | None = None,
        channels_last: bool = True,
        activation_checkpointing: bool = False,
    ) -> None:
        taken = resolve_phases(phases, target)
        mode = None if nonlocal_mode is None else NonLocalMode(nonlocal_mode)
        if not 0 <= phase_dropout < 1:
            raise ValueError(f"phase_dropout is {phase_dropout}; it must lie in [0, 1)")
        self._config = {
            "phases": [str(phase) for phase in taken],
            "target": str(target),
            "features": features,
            "blocks": blocks,
            "nonlocal_mode": None if mode is None else str(mode),
            "nonlocal_factor": nonlocal_factor,
            "scale": scale,
        }
        network = PFNL3DNet(
            phases=len(taken),
            target=taken.index(Phase(target)),
            features=features,
            blocks=blocks,
            nonlocal_mode=mode,
            nonlocal_factor=nonlocal_factor,
            scale=scale,
            activation_checkpointing=activation_checkpointing,
        )
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
        self.phase_dropout = phase_dropout

    @property
    def optional_phases(self) -> tuple[Phase, ...]:
        """Every phase but the target: the fusion is made of those that are there."""
        return tuple(phase for phase in self.phases if phase is not self.target)

    def forward(self, phases: PhaseBatch, present: Sequence[int] | None = None) -> TargetBatch:
        """Enhances a batch; see `PFNL3DNet`."""
        return self.network(phases, present)

    def training_forward(self, phases: PhaseBatch) -> TargetBatch:
        """The network over the phases that phase dropout leaves."""
        present = self.drawn_phases(self.global_step)
        return self(phases[:, present], present) if len(present) < phases.shape[1] else self(phases)

    def drawn_phases(self, step: int) -> list[int]:
        """The phases of a training step, as indices: the target, and what phase dropout leaves.

        Args:
            step: Of the training; all processes of a training draw alike.
        """
        places = range(len(self.phases))
        if not self.phase_dropout:
            return list(places)
        kept = np.random.default_rng([torch.initial_seed(), step]).random(len(places)) >= self.phase_dropout
        kept[self.network.target] = True
        return [place for place in places if kept[place]]

    @property
    def config(self) -> dict[str, Any]:
        """The constructor arguments that define the network, as JSON values."""
        return dict(self._config)
