"""Parts of a network by name, and the callback that freezes them.

A part is a module that the network holds directly under that name: `nonlocal_block`, `first`, `trunk`,
`merge` and `reconstruct` in PFNL3D; `first`, `groups`, `body_end`, `upscale` and `last` in RCAN3D.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import Parameter

from mpfnl.errors import OptionError


def own_name(name: str) -> str:
    """The name of a module or tensor in the network itself, also after `torch.compile`."""
    return name.replace("_orig_mod.", "")


def part_names(network: nn.Module) -> list[str]:
    """The names of a network's parts, in its order."""
    names = [own_name(f"{name}.").split(".")[0] for name, _ in network.named_modules()]
    return list(dict.fromkeys(name for name in names if name))


def part_parameters(network: nn.Module, part: str) -> list[Parameter]:
    """The parameters of a part.

    Raises:
        OptionError: If the network has no such part.
    """
    if part not in part_names(network):
        raise OptionError(
            f"this network has no part {part!r}; its parts are {', '.join(part_names(network))}"
        )
    named = network.named_parameters()
    return [parameter for name, parameter in named if own_name(name).split(".")[0] == part]


def set_trained(network: nn.Module, parts: Iterable[str], trained: bool) -> None:
    """Freezes parts, or unfreezes them.

    Args:
        network: Network that has the parts.
        parts: Names of the parts.
        trained: Whether their parameters receive gradients.

    Raises:
        OptionError: If the network has no such part; nothing is changed then.
    """
    for parameters in [part_parameters(network, part) for part in parts]:
        for parameter in parameters:
            parameter.requires_grad_(trained)


def frozen_parts(network: nn.Module) -> list[str]:
    """The parts with parameters none of which is trained."""
    parameters_of = {part: part_parameters(network, part) for part in part_names(network)}
    return [
        part
        for part, parameters in parameters_of.items()
        if parameters and not any(parameter.requires_grad for parameter in parameters)
    ]


class FreezeParts(Callback):
    """Callback that freezes parts of a model from the first step on.

    Lightning's `BackboneFinetuning` adds parameter groups during the training, which PyTorch's schedules do
    not follow. Here the optimiser holds from the start all parameters that will be trained.

    Args:
        parts: Names of the parts, as in `model.parts`.
        until_epoch: Epoch from which on the parts are trained, too; None: never.

    >>> from mpfnl.models import PFNL3D
    >>> model = PFNL3D(features=8, blocks=1)
    >>> model.parts
    ('nonlocal_block', 'first', 'trunk', 'merge', 'reconstruct')
    >>> callback = FreezeParts(["nonlocal_block", "first"], until_epoch=2)
    """

    def __init__(self, parts: Sequence[str], until_epoch: int | None = None) -> None:
        self.parts = tuple(parts)
        self.until_epoch = until_epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freezes for the whole training, before the optimiser is made.

        Raises:
            OptionError: If the model has no such part.
        """
        if stage == "fit" and self.until_epoch is None:
            self._set(pl_module, trained=False)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes until the epoch; parameters without a gradient do not change."""
        if self.until_epoch is not None:
            self._set(pl_module, trained=trainer.current_epoch >= self.until_epoch)

    def _set(self, model: LightningModule, *, trained: bool) -> None:
        network = model.network
        if not isinstance(network, nn.Module):
            raise TypeError(f"FreezeParts freezes models of mpfnl, not a {type(model).__name__}")
        set_trained(network, self.parts, trained)
