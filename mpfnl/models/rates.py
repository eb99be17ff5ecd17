"""Optimisers and learning rates: the options of a training, a factor for each part, and a warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias, TypedDict

from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from mpfnl.errors import ConflictError, OptionError
from mpfnl.models.freezing import part_parameters

OptimizerFactory: TypeAlias = Callable[[Iterable], Optimizer]  # type: ignore[type-arg]  # as in LightningCLI
SchedulerFactory: TypeAlias = Callable[[Optimizer], LRScheduler]
Interval: TypeAlias = Literal["epoch", "step"]

OTHERS = "others"
"""Parameter group of the parts that have no factor."""


class TrainingOptions(TypedDict, total=False):
    """Options of a training, which every model accepts and no weights folder holds.

    Args:
        loss: Loss of (prediction, target); None: L1 + 0.7 L1-Sobel (eq. 1).
        optimizer: Optimiser, made from the parameters.
        lr_scheduler: Learning-rate schedule, made from the optimiser; None: a constant rate.
        lr_interval: Interval of the schedule: epoch or step.
        lr_factors: Factors of the learning rate by part of the network; other parts have factor 1.
        channels_last: Whether weights lie in `torch.channels_last_3d`, the fast layout in mixed precision.
        activation_checkpointing: Whether training computes the inside of each block again in the backward
            pass instead of storing it: less memory, a third more time.
    """

    loss: nn.Module | None
    optimizer: OptimizerFactory
    lr_scheduler: SchedulerFactory | None
    lr_interval: Interval
    lr_factors: Mapping[str, float] | None
    channels_last: bool
    activation_checkpointing: bool


class WarmUpCosine(SequentialLR):
    """A learning rate that rises in a straight line, falls as half a cosine to zero, and stays there.

    Made of PyTorch's own schedules; each parameter group keeps its own rate as the peak.

    Args:
        optimizer: Optimiser that is scheduled.
        warm_up: Number of steps (or epochs, by the model's `lr_interval`) until the peak.
        steps: Number of all steps; the rate is zero afterwards.
        start: Initial rate as a share of the peak.

    Raises:
        OptionError: If the warm-up does not fit into the steps, or the start is no share.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    >>> WarmUpCosine(optimizer, warm_up=2, steps=10, start=0.5).get_last_lr()
    [0.5]
    """

    def __init__(self, optimizer: Optimizer, warm_up: int, steps: int, start: float = 0.1) -> None:
        if not 0 < warm_up < steps:
            raise OptionError(f"a warm-up of {warm_up} of {steps} steps: give at least 1 and fewer than all")
        if not 0 < start <= 1:
            raise OptionError(f"start {start}: give a share of the peak in (0, 1]")
        rise = LinearLR(optimizer, start_factor=start, total_iters=warm_up)
        fall = CosineAnnealingLR(optimizer, steps - warm_up)
        rest = ConstantLR(optimizer, factor=0.0, total_iters=2**62)
        super().__init__(optimizer, [rise, fall, rest], milestones=[warm_up, steps])


def make_optimizer(
    make: OptimizerFactory, network: nn.Module, parameters: Iterable[Parameter], factors: Mapping[str, float]
) -> Optimizer:
    """An optimiser over the parameters that are not frozen.

    Args:
        make: Optimiser, made from parameters or groups of them.
        network: Network whose parts have factors.
        parameters: All parameters, those of the network included.
        factors: Factors of the learning rate by part; other parts have factor 1.

    Raises:
        OptionError: If all are frozen, the network has no such part, or a factor is not positive.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise OptionError("all parts are frozen: there is nothing to train; unfreeze one")
    if not factors:
        return make(trained)
    within = {id(parameter) for parameter in network.parameters()}
    beside = [parameter for parameter in trained if id(parameter) not in within]
    optimizer = make(parameter_groups(network, factors, beside))
    for group in optimizer.param_groups:
        group["lr"] *= factors.get(group["name"], 1.0)
    return optimizer


def parameter_groups(
    network: nn.Module, factors: Mapping[str, float], beside: Iterable[Parameter] = ()
) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser: one for each part with a factor, and one for all others.

    Args:
        network: Network of the parameters; frozen ones are left out.
        factors: Positive factors of the learning rate by part.
        beside: Further parameters, such as those of a loss.

    Returns:
        Groups with the keys `params` and `name`; empty ones are left out.

    Raises:
        OptionError: If the network has no such part, or a factor is not positive.
    """
    for part, factor in factors.items():
        if not 0 < factor < math.inf:
            raise OptionError(f"lr_factors: the factor of {part} is {factor}; give a positive number")
    groups = {part: part_parameters(network, part) for part in factors}
    named = {id(parameter) for parameters in groups.values() for parameter in parameters}
    groups[OTHERS] = [p for p in (*network.parameters(), *beside) if id(p) not in named]
    trained = {part: [p for p in parameters if p.requires_grad] for part, parameters in groups.items()}
    return [{"params": parameters, "name": part} for part, parameters in trained.items() if parameters]


def check_schedule(schedule: LRScheduler, factors: Mapping[str, float]) -> None:
    """Refuses a schedule that replaces the parts' learning rates by one for all.

    Raises:
        ConflictError: If it does, as `OneCycleLR` with a single `max_lr`.
    """
    if not factors:
        return
    groups = schedule.optimizer.param_groups
    rates = [group["lr"] / factors.get(group["name"], 1.0) for group in groups]
    if any(not math.isclose(rate, rates[0], rel_tol=1e-6) for rate in rates):
        raise ConflictError(
            f"{type(schedule).__name__} sets the parts' learning rates itself, which lr_factors excludes; "
            "use WarmUpCosine, or omit lr_factors"
        )
