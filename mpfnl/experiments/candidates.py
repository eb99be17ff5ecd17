"""Candidates of an experiment: the models that are trained, with their learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from torch.optim import Adam
from torch.optim.lr_scheduler import OneCycleLR

from mpfnl.errors import OptionError
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.muon import Muon
from mpfnl.models.rates import Interval, OptimizerFactory, SchedulerFactory
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

    options: Mapping[str, Any]
    rate: LearningRate


SMALL_NETWORKS = {
    "RCAN3D": SmallNetwork({"channels": 16, "groups": 2, "blocks": 2}, LearningRate(3e-3, warm_up=0.1)),
    "PFNL3D": SmallNetwork({"features": 16, "blocks": 3}, LearningRate(4e-3, warm_up=0.1, betas=(0.9, 0.99))),
}


def new_candidate(
    network: str,
    phases: int | Sequence[PhaseName],
    *,
    name: str = "",
    options: Mapping[str, Any] | None = None,
    small: bool = False,
) -> Candidate:
    """A candidate with a new network, trained as in the paper; or a small one.

    Args:
        network: Name of a registered network.
        phases: Input phases, or their number.
        name: Name of the candidate; that of the network by default.
        options: Options of the network.
        small: Whether to take the options and the learning rate of `SMALL_NETWORKS`.

    Raises:
        OptionError: The network has no small version.
    """
    make = partial(EnhancementModule, network, phases=phases)
    if not small:
        return Candidate(name or network, partial(make, options=options))
    if network not in SMALL_NETWORKS:
        raise OptionError(f"network {network}: has no small version; choose from {', '.join(SMALL_NETWORKS)}")
    version = SMALL_NETWORKS[network]
    make = partial(make, options={**version.options, **(options or {})})
    return Candidate(name or network, make, version.rate, SMALL_CLIP)


def fine_tuned(name: str, weights: str) -> Candidate:
    """A candidate that fine-tunes the weights of a small model at a lower learning rate.

    Args:
        name: Name of the candidate.
        weights: Weights folder, name of shipped weights, or `owner/name` on the Hugging Face Hub.
    """
    make = partial(EnhancementModule.from_pretrained, weights)
    return Candidate(name, make, LearningRate(FINE_TUNING_RATE, warm_up=0.1), SMALL_CLIP, weights)
