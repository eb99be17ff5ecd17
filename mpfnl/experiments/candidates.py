"""Candidates of an experiment: the models that are trained, with their learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.muon import Muon
from mpfnl.models.pfnl3d import PFNL3D
from mpfnl.models.rates import Interval, OptimizerFactory, SchedulerFactory
from mpfnl.models.rcan3d import RCAN3D
from mpfnl.phases import PhaseName

SMALL_CLIP = 0.1
"""Gradient norm of the small models, which most steps exceed: no patch outweighs the others."""

FINE_TUNING_RATE = 1e-3
"""Peak learning rate for fine-tuning a small model: a third of that for training a new one."""


@dataclass(frozen=True)
class LearningRate:
    """Optimiser and learning rate of a training. The default is the paper's (section II.D).

    Args:
        peak: Constant rate, or peak of a one-cycle schedule.
        warm_up: Share of the steps before the peak of a one-cycle schedule (Smith and Topin 2018); None for a
            constant rate.
        betas: Decay of the running mean and mean square of the gradients; a one-cycle schedule replaces the
            first.
        method: Optimiser: `adam`, or `muon`, which orthogonalises the steps of hidden convolutions.
    """

    peak: float = 1e-3
    warm_up: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    method: Literal["adam", "muon"] = "adam"

    @property
    def optimizer(self) -> OptimizerFactory:
        """Factory of the optimiser."""
        return partial(Muon if self.method == "muon" else Adam, lr=self.peak, betas=self.betas)

    def schedule(self, steps: int) -> SchedulerFactory | None:
        """Factory of the schedule over a number of steps; None for a constant rate."""
        if self.warm_up is None:
            return None
        share = self.warm_up
        if math.isclose(steps * share, 1.0):  # OneCycleLR divides by the steps of the warm-up minus one
            share /= 2
        return partial(OneCycleLR, max_lr=self.peak, total_steps=steps, pct_start=share)


class MakeModel(Protocol):
    """Function that makes a new model with an optimiser and a learning-rate schedule."""

    def __call__(
        self,
        *,
        optimizer: OptimizerFactory,
        lr_scheduler: SchedulerFactory | None,
        lr_interval: Interval,
    ) -> EnhancementModule:
        """Returns the model."""


@dataclass(frozen=True)
class Candidate:
    """Model that an experiment trains.

    Args:
        name: Name in tables and files: letters, digits, `+`, `-` and `_`.
        make: Function that makes the model.
        rate: Learning rate.
        clip_norm: Norm to which the gradients of all weights together are clipped; None for no clipping.
        start_from: Weights that `make` loads; None for a new network.
    """

    name: str
    make: MakeModel
    rate: LearningRate = LearningRate()
    clip_norm: float | None = None
    start_from: str | None = None

    def model(self, steps: int) -> EnhancementModule:
        """A new model, for a training of a number of steps."""
        return self.make(
            optimizer=self.rate.optimizer, lr_scheduler=self.rate.schedule(steps), lr_interval="step"
        )


@dataclass(frozen=True)
class SmallNetwork:
    """Options of a small network and its learning rate, tuned on phantoms (docs/demo.md)."""

    options: Mapping[str, int]
    rate: LearningRate


SMALL_NETWORKS: dict[type[EnhancementModule], SmallNetwork] = {
    RCAN3D: SmallNetwork({"channels": 16, "groups": 2, "blocks": 2}, LearningRate(3e-3, warm_up=0.1)),
    PFNL3D: SmallNetwork({"features": 16, "blocks": 3}, LearningRate(4e-3, warm_up=0.1, betas=(0.9, 0.99))),
}


def new_candidate(
    model: type[EnhancementModule], phases: int | Sequence[PhaseName], *, name: str = "", small: bool = False
) -> Candidate:
    """A candidate with a new network: as the paper trained it, or a small one.

    Args:
        model: Model class.
        phases: Input phases, or their number.
        name: Name of the candidate; that of the class by default.
        small: Whether to take the small network of `SMALL_NETWORKS`.
    """
    name = name or model.__name__
    if not small:
        return Candidate(name, partial(model, phases=phases))
    network = SMALL_NETWORKS[model]
    return Candidate(name, partial(model, phases=phases, **network.options), network.rate, SMALL_CLIP)


def fine_tuned(model: type[EnhancementModule], weights: str) -> Candidate:
    """A candidate that fine-tunes the weights of a small model at a lower learning rate.

    Args:
        model: Model class, which also names the candidate.
        weights: Weights folder, name of shipped weights, or `owner/name` on the Hugging Face Hub.
    """
    make = partial(model.from_pretrained, weights)
    return Candidate(model.__name__, make, LearningRate(FINE_TUNING_RATE, warm_up=0.1), SMALL_CLIP, weights)
