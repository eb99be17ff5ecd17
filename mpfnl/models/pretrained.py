"""Weights folders: `config.json`, `model.safetensors` and a model card. No pickle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from mpfnl.errors import InputError
from mpfnl.files import atomic_file, write_text
from mpfnl.phases import ABDOMEN

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


@dataclass(frozen=True)
class ModelConfig:
    """What `config.json` says: which model, made with which arguments."""

    model: str
    arguments: dict[str, Any]


def save_weights(folder: Path, model: str, arguments: dict[str, Any], network: nn.Module) -> Path:
    """Writes a weights folder, on the first process only where there are several.

    The configuration is written last: a folder with one is complete.

    Args:
        folder: Created if it does not exist.
        model: The model's class name.
        arguments: The constructor arguments that define the network, as JSON values.
        network: Whose weights are written.

    Returns:
        The folder.
    """
    if getattr(rank_zero_only, "rank", 0):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in uncompiled(network).items()}
    with atomic_file(folder / WEIGHTS) as file:
        file.write(save(tensors))
    write_text(folder / CARD, _card(model, arguments, sum(tensor.numel() for tensor in tensors.values())))
    config = {"format": FORMAT, "model": model, "arguments": arguments, "window_hu": asdict(ABDOMEN)}
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    return folder


def uncompiled(network: nn.Module) -> dict[str, torch.Tensor]:
    """A network's tensors under their own names, also where it went through `torch.compile`."""
    return {name.replace("_orig_mod.", ""): tensor for name, tensor in network.state_dict().items()}


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
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path}: its configuration does not make a {config.model} ({error}); save the model again"
        ) from None


def read_config(folder: Path, expected: str | None = None) -> ModelConfig:
    """Reads a weights folder's `config.json`.

    Args:
        folder: A weights folder.
        expected: The class name that it must hold, if any.

    Raises:
        InputError: If there is no such folder, the file cannot be read, or another model is in it.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(
            f"{folder}: not a weights folder (no {CONFIG}); give a folder that save_pretrained wrote"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        found = ModelConfig(config["model"], config["arguments"])
        version, window = config["format"], config["window_hu"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a model configuration of mpfnl ({error}); save the model again"
        ) from None
    if version != FORMAT:
        raise InputError(
            f"{path}: format {version}, this mpfnl reads format {FORMAT}; install the mpfnl that wrote it"
        )
    if window != asdict(ABDOMEN):
        raise InputError(f"{path}: trained for the window {window}; this mpfnl works in {asdict(ABDOMEN)}")
    if expected is not None and found.model != expected:
        raise InputError(
            f"{path}: holds a {found.model}, not a {expected}; use mpfnl.{found.model}.from_pretrained"
        )
    return found


def load_weights(folder: Path, network: nn.Module) -> None:
    """Loads a weights folder's tensors into a network.

    Raises:
        InputError: If the file is missing or damaged, or its tensors are not this network's.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise InputError(f"{folder}: {WEIGHTS} is missing; save the model again (pickles are not read)")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: not a readable safetensors file ({error}); copy or save it again"
        ) from None
    load_tensors(tensors, network, path)


def load_tensors(tensors: dict[str, torch.Tensor], network: nn.Module, path: Path) -> None:
    """Puts tensors into a network.

    Args:
        tensors: By the network's names.
        network: To put them into.
        path: Where they are from, for the message.

    Raises:
        InputError: If they are not this network's.
    """
    own = network.state_dict()
    wrong = [name for name in own.keys() | tensors.keys() if _shape(own, name) != _shape(tensors, name)]
    if wrong:
        name = min(wrong)
        raise InputError(
            f"{path}: {len(wrong)} tensors are not this network's (first: {name}, {_shape(tensors, name)} "
            f"in the file, {_shape(own, name)} in the network); configuration and weights do not belong "
            "together"
        )
    network.load_state_dict(tensors)


def _shape(tensors: dict[str, torch.Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None


def _card(model: str, arguments: dict[str, Any], parameters: int) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in arguments.items())
    return f"""---
library_name: mpfnl
tags: [ct, image-enhancement, multiphase]
---
# {model}

Restores the {arguments["target"]} phase of an abdominal CT study ({parameters:,} parameters).
Load it with `mpfnl.{model}.from_pretrained(<this folder>)`.

| argument | value |
|---|---|
{rows}

Window: level {ABDOMEN.level:g} HU, width {ABDOMEN.width:g} HU.

## Intended use and limits

Research only. Not a medical device; an enhanced scan must not be used for diagnosis. The writer of this
folder has not said on which data it was trained or how it scores.
"""
