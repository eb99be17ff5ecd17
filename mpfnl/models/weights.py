"""Weights folders: `config.json`, `model.safetensors` and a model card. No pickle."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import sleep
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from mpfnl.errors import ConflictError, DamagedError, FormatError, InputWarning, NotFoundError
from mpfnl.files import write_together
from mpfnl.models.card import render_card
from mpfnl.models.freezing import own_name
from mpfnl.models.provenance import TrainingRecord, window_from_json
from mpfnl.window import Window

FORMAT = 2
"""Version of `config.json`. Version 1 lacks the training record and the weights' digest; its PFNL3D took
[0, 1] without standardising it and is refused."""

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FILES = (WEIGHTS, CARD, CONFIG)
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_TRIES, _PAUSE = 5, 0.02  # to read a folder that is being replaced; seconds


@dataclass(frozen=True)
class ModelConfig:
    """A model without its weights, as `config.json` and checkpoints state it.

    Args:
        network: Name of the network, as in `mpfnl.networks.network_names()`.
        arguments: Phases, target and options of the network, as JSON values.
        window: HU window of the network's input.
        registered: Whether the network can be built by its name; else it must be passed to
            `from_pretrained`.
        training: Record of the training, where it is known.
        weights_sha256: SHA-256 of the weights' file, where it is known.
    """

    network: str
    arguments: dict[str, Any]
    window: Window
    registered: bool = True
    training: TrainingRecord | None = None
    weights_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return {
            "format": FORMAT,
            "model": self.network,
            **({} if self.registered else {"registered": False}),
            "arguments": self.arguments,
            "window_hu": asdict(self.window),
            "weights_sha256": self.weights_sha256,
            "training": None if self.training is None else self.training.to_json(),
        }

    @classmethod
    def from_json(cls, value: Any) -> ModelConfig:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: If it is not a configuration.
        """
        try:
            training, digest = value.get("training"), value.get("weights_sha256")
            return cls(
                str(value["model"]),
                dict(value["arguments"]),
                window_from_json(value["window_hu"]),
                bool(value.get("registered", True)),
                None if training is None else TrainingRecord.from_json(training),
                None if digest is None else str(digest),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(one_line(error)) from None


@dataclass(frozen=True)
class StoredWeights:
    """Content of a weights folder.

    Args:
        path: File of the weights, for messages.
        config: Configuration that lies beside them.
        tensors: Weights by the network's names.
        sha256: SHA-256 of the file.
    """

    path: Path
    config: ModelConfig
    tensors: dict[str, torch.Tensor]
    sha256: str

    def put_into(self, network: nn.Module) -> None:
        """Copies the weights into a network.

        Raises:
            ConflictError: If they are not this network's, or not those of the configuration.
        """
        load_tensors(self.tensors, network, self.path)
        if self.config.weights_sha256 not in (None, self.sha256):
            raise ConflictError(
                f"{self.path}: not the weights that were saved with its {CONFIG} (SHA-256 differs): copy or "
                "save the folder again"
            )


def read_config(folder: Path) -> ModelConfig:
    """Reads the `config.json` of a weights folder.

    Args:
        folder: Weights folder.

    Raises:
        NotFoundError: If the folder has no `config.json`.
        FormatError: If the file is no configuration, or the folder holds a pickle.
    """
    path, pickles = folder / CONFIG, pickles_in(folder)
    if not path.is_file():
        found = f"; {', '.join(pickles)} is a pickle, which is not read" if pickles else ""
        raise NotFoundError(
            f"{folder}: not a weights folder (no {CONFIG}{found}); give a folder that save_pretrained wrote"
        )
    if pickles:
        raise FormatError(
            f"{folder}: holds {', '.join(pickles)}, a pickle, which could run code; weights folders hold "
            f"{WEIGHTS} only: move it away"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version, config = content["format"], ModelConfig.from_json(content)
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path}: not a model configuration of mpfnl ({one_line(error)}); save the model again"
        ) from None
    if version not in (1, FORMAT):
        raise FormatError(
            f"{path}: format {version}, this mpfnl reads 1 to {FORMAT}; install the mpfnl that wrote it"
        )
    if version == 1 and config.network == "PFNL3D":
        raise FormatError(
            f"{path}: format 1, of a PFNL3D that took intensities in another range; train it again, or "
            "install the mpfnl that wrote it"
        )
    return config


def read_weights(folder: Path) -> StoredWeights:
    """Reads a weights folder, also while another process replaces it.

    Args:
        folder: Folder that `save_pretrained` wrote.

    Raises:
        NotFoundError: If a file is missing.
        FormatError: If the configuration cannot be used, or the folder holds a pickle.
        DamagedError: If the weights cannot be read.
    """
    path = folder / WEIGHTS
    for _ in range(_TRIES):
        config = read_config(folder)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise NotFoundError(
                f"{folder}: {WEIGHTS} is missing; save the model again (pickles are not read)"
            ) from None
        except OSError as error:
            raise DamagedError(f"{path}: cannot be read ({error.strerror or error})") from None
        digest = hashlib.sha256(content).hexdigest()
        if config.weights_sha256 in (None, digest):
            break
        sleep(_PAUSE)
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(
            f"{path}: not a readable safetensors file ({one_line(error)}); copy or save it again"
        ) from None
    return StoredWeights(path, config, tensors, digest)


def save_weights(folder: Path, config: ModelConfig, network: nn.Module) -> Path:
    """Writes a weights folder, whole or not at all, in the first process only where there are several.

    The files of an older weights folder are replaced; other files in it are left alone.

    Args:
        folder: Weights folder, created if it does not exist.
        config: Configuration; the digest of the weights is filled in.
        network: Network whose weights are written, in float32.

    Returns:
        The folder.

    Raises:
        OutputError: If the file system refuses.
    """
    if getattr(rank_zero_only, "rank", 0):
        return folder
    tensors = {
        name: _full(tensor.detach().cpu().contiguous()) for name, tensor in uncompiled(network).items()
    }
    weights = save(tensors)
    content = config.to_json() | {"weights_sha256": hashlib.sha256(weights).hexdigest()}
    card = render_card(
        config.network,
        config.arguments,
        config.window,
        config.training,
        sum(tensor.numel() for tensor in tensors.values()),
        registered=config.registered,
    )
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_together(folder, dict(zip(FILES, (weights, card.encode(), text.encode()), strict=True)))
    if pickles_in(folder):
        pickles = ", ".join(pickles_in(folder))
        warnings.warn(
            f"{folder}: holds {pickles} beside the weights; from_pretrained refuses a folder with pickles: "
            "move them away",
            InputWarning,
            stacklevel=3,
        )
    return folder


def load_tensors(tensors: Mapping[str, object], network: nn.Module, path: Path) -> None:
    """Copies tensors into a network.

    Args:
        tensors: Tensors by the network's names.
        network: Network that receives them.
        path: File that held them, for messages.

    Raises:
        ConflictError: If they are not this network's: missing, unexpected, of another shape or number type.
    """
    own = uncompiled(network)
    wrong = [name for name in own.keys() | tensors.keys() if _kind(own.get(name)) != _kind(tensors.get(name))]
    if wrong:
        name = min(wrong)
        raise ConflictError(
            f"{path}: {len(wrong)} tensors are not this network's (first: {name}, {_kind(tensors.get(name))} "
            f"in the file, {_kind(own.get(name))} in the network); configuration and weights do not belong "
            "together"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            stored = tensors[name]
            assert isinstance(stored, torch.Tensor)
            tensor.copy_(stored)


def checkpoint_tensors(state: Mapping[str, object]) -> dict[str, object]:
    """The network's tensors in the state of a Lightning checkpoint, in float32 where it holds 16 bits."""
    return {
        own_name(name.removeprefix("network.")): _full(tensor)
        for name, tensor in state.items()
        if name.startswith("network.")
    }


def uncompiled(network: nn.Module) -> dict[str, torch.Tensor]:
    """A network's tensors under their own names, also after `torch.compile`."""
    return {own_name(name): tensor for name, tensor in network.state_dict().items()}


def one_line(error: Exception) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())


def pickles_in(folder: Path) -> list[str]:
    """The names of the files in a folder whose suffix is one of pickles."""
    if not folder.is_dir():
        return []
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _PICKLES)


def _kind(tensor: object) -> str:
    if tensor is None:
        return "nothing"
    if not isinstance(tensor, torch.Tensor):
        return type(tensor).__name__
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _full(tensor: Any) -> Any:
    half = isinstance(tensor, torch.Tensor) and tensor.is_floating_point()
    return tensor.float() if half else tensor
