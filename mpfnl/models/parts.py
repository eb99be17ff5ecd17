"""The parts of a network by name: to freeze them, or train them at rates of their own.

A part is what the network holds directly under that name: `nonlocal_block`, `first`, `trunk`, `merge` and
`reconstruct` in PFNL3D; `first`, `groups`, `body_end`, `upscale` and `last` in RCAN3D.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn import Parameter

from mpfnl.errors import InputError


def own_name(name: str) -> str:
    """A module's or tensor's name in the network itself, also where that went through `torch.compile`."""
    return name.replace("_orig_mod.", "")


def part_names(network: nn.Module) -> list[str]:
    """The names of a network's parts, in its order."""
    names = [own_name(f"{name}.").split(".")[0] for name, _ in network.named_modules()]
    return list(dict.fromkeys(name for name in names if name))


def part_parameters(network: nn.Module, part: str) -> list[Parameter]:
    """The parameters of a part.

    Raises:
        InputError: If the network has no such part.
    """
    if part not in part_names(network):
        raise InputError(f"this network has no part {part!r}; its parts are {', '.join(part_names(network))}")
    named = network.named_parameters()
    return [parameter for name, parameter in named if own_name(name).split(".")[0] == part]


def set_trained(network: nn.Module, parts: Iterable[str], trained: bool) -> None:
    """Freezes parts, or lets them be trained again.

    Args:
        network: Whose parts.
        parts: Their names.
        trained: Whether their parameters get gradients.

    Raises:
        InputError: If the network has no such part; nothing is changed then.
    """
    for parameters in [part_parameters(network, part) for part in parts]:
        for parameter in parameters:
            parameter.requires_grad_(trained)


def frozen_parts(network: nn.Module) -> list[str]:
    """The parts that have parameters, none of which is trained."""
    found = {part: part_parameters(network, part) for part in part_names(network)}
    return [
        part
        for part, parameters in found.items()
        if parameters and not any(parameter.requires_grad for parameter in parameters)
    ]
