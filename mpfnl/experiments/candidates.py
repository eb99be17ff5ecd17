"""The models of a study that are trained: how each is made, and at which learning rate."""

from __future__ import annotations

import math
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

SMALL_CLIP = 0.1
"""Of the small models' gradients: a norm that most steps exceed, so that no patch outweighs the others."""

FINE_TUNING_RATE = 1e-3
"""The peak, where a small model goes on from weights that are there: a third of a new one's."""


@dataclass(frozen=True)
class LearningRate:
    """The optimiser and its learning rate over a training. The default is the paper's (section II.D).

    Args:
        peak: The rate, or the highest of a one-cycle schedule.
        warm_up: Share of the steps until the peak of a one-cycle schedule (Smith and Topin 2018); None: the
            rate is constant.
        betas: Decay of the mean and of the square of gradients. A one-cycle schedule replaces the first.
        method: `adam`, or `muon`, which makes the steps of hidden convolutions orthogonal.
    """

    peak: float = 1e-3
    warm_up: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    method: Literal["adam", "muon"] = "adam"

    @property
    def optimizer(self) -> OptimizerFactory:
        """The optimiser at this rate."""
        return partial(Muon if self.method == "muon" else Adam, lr=self.peak, betas=self.betas)

    def schedule(self, steps: int) -> SchedulerFactory | None:
        """The schedule over so many steps; None where the rate is constant."""
        if self.warm_up is None:
            return None
        share = self.warm_up
        if math.isclose(steps * share, 1.0):  # OneCycleLR divides by the steps of the warm-up less one
            share /= 2
        return partial(OneCycleLR, max_lr=self.peak, total_steps=steps, pct_start=share)


class MakeModel(Protocol):
    """Makes a new model that trains as told."""

    def __call__(
        self,
        *,
        optimizer: OptimizerFactory,
        lr_scheduler: SchedulerFactory | None,
        lr_interval: Interval,
    ) -> EnhancementModule:
        """The model."""


@dataclass(frozen=True)
class Candidate:
    """A model to be trained.

    Args:
        name: In tables and files: letters, digits, `+`, `-` and `_`.
        make: Makes it.
        rate: Its learning rate.
        clip_norm: Gradients are shortened to this norm, over all weights; None: they are not.
        start_from: The weights that `make` begins with; None: new ones.
    """

    name: str
    make: MakeModel
    rate: LearningRate = LearningRate()
    clip_norm: float | None = None
    start_from: str | None = None

    def model(self, steps: int) -> EnhancementModule:
        """A new model, for a training of so many steps."""
        return self.make(
            optimizer=self.rate.optimizer, lr_scheduler=self.rate.schedule(steps), lr_interval="step"
        )


def fine_tuned(model: type[EnhancementModule], weights: str) -> Candidate:
    """A small model that begins with weights that are there, at a lower rate.

    Args:
        model: Its class, which also names it.
        weights: A folder, a name of shipped weights, or `owner/name` on the Hugging Face Hub.
    """
    make = partial(model.from_pretrained, weights)
    return Candidate(model.__name__, make, LearningRate(FINE_TUNING_RATE, warm_up=0.1), SMALL_CLIP, weights)


def rcan3d(name: str, phases: int, *, small: bool = False) -> Candidate:
    """RCAN3D as the paper trained it; or a small one for tries.

    Args:
        name: Of the candidate.
        phases: 1: the portal venous one alone; 3: all.
        small: 2 groups of 2 blocks, 16 channels; the recipe was searched for on phantoms (docs/demo.md).
    """
    if not small:
        return Candidate(name, partial(RCAN3D, phases=phases))
    make = partial(RCAN3D, phases=phases, channels=16, groups=2, blocks=2)
    return Candidate(name, make, LearningRate(3e-3, warm_up=0.1), SMALL_CLIP)


def pfnl3d(name: str, phases: int, *, small: bool = False) -> Candidate:
    """PFNL3D as the paper trained it; or a small one for tries.

    Args:
        name: Of the candidate.
        phases: 1: the portal venous one alone; 3: all.
        small: 3 blocks of 16 features; the recipe was searched for on phantoms (docs/demo.md).
    """
    if not small:
        return Candidate(name, partial(PFNL3D, phases=phases))
    make = partial(PFNL3D, phases=phases, features=16, blocks=3)
    return Candidate(name, make, LearningRate(4e-3, warm_up=0.1, betas=(0.9, 0.99)), SMALL_CLIP)
