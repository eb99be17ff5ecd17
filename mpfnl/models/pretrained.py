"""Weights folders: `config.json`, `model.safetensors` and a model card. No pickle."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import sleep
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from mpfnl.errors import InputError, InputWarning
from mpfnl.models.card import render_card
from mpfnl.models.configuration import (
    CARD,
    CONFIG,
    WEIGHTS,
    ModelConfig,
    config_json,
    one_line,
    pickles_in,
    read_config,
)
from mpfnl.models.folder import write_together
from mpfnl.models.parts import own_name
from mpfnl.models.record import TrainingRecord

__all__ = ["CARD", "CONFIG", "WEIGHTS", "build", "load_tensors", "read_weights", "save_weights"]

FILES = (WEIGHTS, CARD, CONFIG)
_TRIES, _PAUSE = 5, 0.02  # to read a folder that is being replaced; seconds


@dataclass(frozen=True)
class StoredWeights:
    """A weights folder's content.

    Args:
        path: The file of the weights, for messages.
        config: Which model they are of.
        tensors: The weights by the network's names.
        belong: Whether they are the weights that were saved with the configuration.
    """

    path: Path
    config: ModelConfig
    tensors: dict[str, torch.Tensor]
    belong: bool

    def put_into(self, network: nn.Module) -> None:
        """Puts the weights into a network.

        Raises:
            InputError: If they are not this network's, or not those of the configuration.
        """
        load_tensors(self.tensors, network, self.path)
        if not self.belong:
            raise InputError(
                f"{self.path}: not the weights that were saved with its {CONFIG}: configuration and weights "
                "do not belong together; copy or save the folder again"
            )


def save_weights(
    folder: Path, model: str, arguments: dict[str, Any], network: nn.Module, training: TrainingRecord | None
) -> Path:
    """Writes a weights folder, whole or not at all, on the first process only where there are several.

    An older weights folder there is replaced; other files in it are left alone.

    Args:
        folder: Created if it does not exist.
        model: The model's class name.
        arguments: The constructor arguments that define the network, as JSON values.
        network: Whose weights are written, in float32.
        training: What it was trained on, where that is known.

    Returns:
        The folder.

    Raises:
        InputError: The file system refuses.
    """
    if getattr(rank_zero_only, "rank", 0):
        return folder
    tensors = {name: _stored(tensor) for name, tensor in uncompiled(network).items()}
    weights = save(tensors)
    config = ModelConfig(model, arguments, training, hashlib.sha256(weights).hexdigest())
    parameters = sum(tensor.numel() for tensor in tensors.values())
    card = render_card(model, arguments, training, parameters)
    write_together(
        folder, dict(zip(FILES, (weights, card.encode(), config_json(config).encode()), strict=True))
    )
    if pickles_in(folder):
        pickles = ", ".join(pickles_in(folder))
        warnings.warn(
            f"{folder}: holds {pickles} beside the weights; from_pretrained refuses a folder with pickles: "
            "move them away",
            InputWarning,
            stacklevel=3,
        )
    return folder


def uncompiled(network: nn.Module) -> dict[str, torch.Tensor]:
    """A network's tensors under their own names, also where it went through `torch.compile`."""
    return {own_name(name): tensor for name, tensor in network.state_dict().items()}


Model = TypeVar("Model")


def build(make: Callable[..., Model], config: ModelConfig, training: dict[str, Any], path: Path) -> Model:
    """Makes a model from its configuration.

    Args:
        make: The model's class.
        config: Which arguments.
        training: Arguments beside those of the configuration.
        path: Where the configuration is from, for the message.

    Raises:
        InputError: If the class does not take these arguments.
    """
    try:
        return make(**config.arguments, **training)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: its configuration does not make a {config.model} ({one_line(error)}); "
            "save the model again"
        ) from None


def read_weights(folder: Path, expected: str | None = None) -> StoredWeights:
    """Reads a weights folder.

    Args:
        folder: What `save_pretrained` wrote.
        expected: The class name that it must hold, if any.

    Raises:
        InputError: If the folder is not a weights folder, a file is missing or damaged, another model is in
            it, or a pickle is.
    """
    path = folder / WEIGHTS
    for _ in range(_TRIES):
        config = read_config(folder, expected)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise InputError(
                f"{folder}: {WEIGHTS} is missing; save the model again (pickles are not read)"
            ) from None
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
        belong = config.weights_sha256 in (None, hashlib.sha256(content).hexdigest())
        if belong:
            break
        sleep(_PAUSE)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({one_line(error)}); copy or save it again"
        ) from None
    return StoredWeights(path, config, tensors, belong)


def load_tensors(tensors: Mapping[str, object], network: nn.Module, path: Path) -> None:
    """Puts tensors into a network.

    Args:
        tensors: By the network's names.
        network: To put them into.
        path: Where they are from, for the message.

    Raises:
        InputError: If they are not this network's: missing, unexpected, or of another shape or number type.
    """
    own = uncompiled(network)
    wrong = [name for name in own.keys() | tensors.keys() if _kind(own.get(name)) != _kind(tensors.get(name))]
    if wrong:
        name = min(wrong)
        raise InputError(
            f"{path}: {len(wrong)} tensors are not this network's (first: {name}, {_kind(tensors.get(name))} "
            f"in the file, {_kind(own.get(name))} in the network); configuration and weights do not belong "
            "together"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            given = tensors[name]
            assert isinstance(given, torch.Tensor)
            tensor.copy_(given)


def _kind(tensor: object) -> str:
    if tensor is None:
        return "nothing"
    if not isinstance(tensor, torch.Tensor):
        return type(tensor).__name__
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _stored(tensor: torch.Tensor) -> torch.Tensor:
    whole = tensor.detach().cpu().contiguous()
    return whole.float() if whole.is_floating_point() else whole
