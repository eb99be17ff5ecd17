"""Learning rates: a factor for each part of the network, and a warm-up."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

from torch import nn
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from mpfnl.errors import InputError
from mpfnl.models.parts import part_parameters

OptimizerFactory: TypeAlias = Callable[[Iterable], Optimizer]  # type: ignore[type-arg]  # as in LightningCLI
SchedulerFactory: TypeAlias = Callable[[Optimizer], LRScheduler]
Interval: TypeAlias = Literal["epoch", "step"]

OTHERS = "others"
"""Name of the parameter group of the parts that are not named."""


class WarmUpCosine(SequentialLR):
    """A learning rate that rises in a straight line, falls as half a cosine to zero, and stays there.

    Made of PyTorch's own schedules; each parameter group keeps its own rate as the peak.

    Args:
        optimizer: Whose rates.
        warm_up: Steps (or epochs, by the model's `lr_interval`) until the peak.
        steps: Steps in all; from there on the rate is zero.
        start: Share of the peak to begin with.

    Raises:
        InputError: If the warm-up does not fit into the steps, or the start is no share.
    """

    def __init__(self, optimizer: Optimizer, warm_up: int, steps: int, start: float = 0.1) -> None:
        if not 0 < warm_up < steps:
            raise InputError(f"a warm-up of {warm_up} of {steps} steps: give at least 1 and fewer than all")
        if not 0 < start <= 1:
            raise InputError(f"start {start}: give a share of the peak in (0, 1]")
        rise = LinearLR(optimizer, start_factor=start, total_iters=warm_up)
        fall = CosineAnnealingLR(optimizer, steps - warm_up)
        rest = ConstantLR(optimizer, factor=0.0, total_iters=2**62)
        super().__init__(optimizer, [rise, fall, rest], milestones=[warm_up, steps])


def make_optimizer(
    make: OptimizerFactory, network: nn.Module, parameters: Iterable[Parameter], factors: Mapping[str, float]
) -> Optimizer:
    """An optimiser over the parameters that are not frozen.

    Args:
        make: Makes it from parameters or groups of them.
        network: Whose parts are named.
        parameters: All parameters, those of the network among them.
        factors: Part to what its learning rate is multiplied by; others keep theirs.

    Raises:
        InputError: If all are frozen, the network has no such part, or a factor is not positive.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise InputError("all parts are frozen: there is nothing to train; unfreeze one")
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
    """Parameter groups for an optimiser: one for each part that is named, and one for all others.

    Args:
        network: Whose parameters; those that are frozen are left out.
        factors: Named part to what its learning rate is to be multiplied by, positive.
        beside: Further parameters, such as those of a loss.

    Returns:
        Groups with the keys `params` and `name`; empty ones are left out.

    Raises:
        InputError: If the network has no such part, or a factor is not positive.
    """
    for part, factor in factors.items():
        if not 0 < factor < math.inf:
            raise InputError(f"the learning rate of {part} is multiplied by {factor}; give a positive factor")
    groups = {part: part_parameters(network, part) for part in factors}
    named = {id(parameter) for parameters in groups.values() for parameter in parameters}
    groups[OTHERS] = [p for p in (*network.parameters(), *beside) if id(p) not in named]
    trained = {part: [p for p in parameters if p.requires_grad] for part, parameters in groups.items()}
    return [{"params": parameters, "name": part} for part, parameters in trained.items() if parameters]


def check_schedule(schedule: LRScheduler, factors: Mapping[str, float]) -> None:
    """Refuses a schedule that has replaced the parts' learning rates by one for all.

    Raises:
        InputError: If it has, as `OneCycleLR` does with a single `max_lr`.
    """
    if not factors:
        return
    groups = schedule.optimizer.param_groups
    rates = [group["lr"] / factors.get(group["name"], 1.0) for group in groups]
    if any(not math.isclose(rate, rates[0], rel_tol=1e-6) for rate in rates):
        raise InputError(
            f"{type(schedule).__name__} sets the parts' learning rates itself, against lr_factors; "
            "take WarmUpCosine, or leave lr_factors out"
        )
