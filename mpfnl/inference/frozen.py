"""A network whose weights are cast once, for many tiles. Torch only."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CAST = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)
"""Modules whose weights autocast would cast at every call; of these types exactly, not subclasses."""


def frozen_copy(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """A copy for inference under autocast, with the weights of its convolutions already cast.

    Under autocast the copy computes what the network computes: the inputs and the other parameters keep their
    types. The weights of convolutions are laid out in `channels_last_3d`. All else is shared with the
    network, which stays as it is; so nothing has to be put back, whatever happens.

    Args:
        network: On any device. A scripted one is returned as it is.
        precision: Autocast's type. For float32 there is nothing to do: the network is returned.

    Returns:
        A module to be called, not to be trained. It does not follow later changes of the network's weights.
    """
    if precision is torch.float32 or isinstance(network, torch.jit.ScriptModule):
        return network
    return _copy(network, precision, {})


def _copy(module: nn.Module, precision: torch.dtype, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in done:  # used in two places
        return done[module]
    copy = module.__new__(type(module))
    # Past the modules' own __setattr__: that of a compiled module would change the network.
    copy.__dict__.update(module.__dict__)
    done[module] = copy
    copy.__dict__["_modules"] = {
        name: child if child is None else _copy(child, precision, done)
        for name, child in module._modules.items()
    }
    if type(module) in CAST:
        cast = {name: _cast(weight, precision) for name, weight in module._parameters.items()}
        copy.__dict__["_parameters"] = cast
    return copy


def _cast(weight: Tensor | None, precision: torch.dtype) -> nn.Parameter | None:
    if weight is None:
        return None
    layout = torch.channels_last_3d if weight.ndim == 5 else torch.preserve_format
    kind = precision if weight.dtype is torch.float32 else weight.dtype
    return nn.Parameter(weight.detach().to(kind, memory_format=layout), requires_grad=False)
