"""Loads whatever model there is: weights by folder, name or Hub id, or a Lightning checkpoint."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from mpfnl.errors import InputError
from mpfnl.models.configuration import ModelConfig, read_config
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.parts import own_name
from mpfnl.models.pfnl3d import PFNL3D
from mpfnl.models.pretrained import build, load_tensors
from mpfnl.models.rcan3d import RCAN3D
from mpfnl.models.record import TrainingRecord
from mpfnl.models.sources import find_weights
from mpfnl.models.trained import MODEL_KEY, RECORD_KEY

MODELS: dict[str, type[EnhancementModule]] = {"PFNL3D": PFNL3D, "RCAN3D": RCAN3D}


def load_model(
    path: str | Path, *, revision: str | None = None, local_files_only: bool = False
) -> EnhancementModule:
    """Loads a model for inference.

    Args:
        path: A weights folder that `save_pretrained` wrote, a name of shipped weights, `owner/name` on the
            Hugging Face Hub, or a Lightning checkpoint (`.ckpt`). A checkpoint is read with
            `weights_only=True`: no code in it is run.
        revision: A branch, tag or commit on the Hub.
        local_files_only: Take from the Hub only what was fetched before; so with HF_HUB_OFFLINE=1.

    Raises:
        InputError: If there is nothing there, or it is not a model of this package.
    """
    if Path(path).is_file():
        return _load_checkpoint(Path(path)).eval()
    if Path(path).suffix == ".ckpt":
        raise InputError(f"{path}: no such checkpoint; they lie in a training's log under checkpoints")
    folder = find_weights(path, revision=revision, local_files_only=local_files_only)
    return class_of(folder).from_pretrained(folder).eval()


def class_of(folder: Path) -> type[EnhancementModule]:
    """The class of the model that a weights folder holds.

    Raises:
        InputError: If it is no weights folder, or holds no model of this package.
    """
    return _class(read_config(folder).model, folder)


def _class(name: str, path: Path) -> type[EnhancementModule]:
    if name not in MODELS:
        raise InputError(f"{path}: holds a {name}; this mpfnl knows {', '.join(MODELS)}")
    return MODELS[name]


def _load_checkpoint(path: Path) -> EnhancementModule:
    config, weights = _read_checkpoint(path)
    model = build(_class(config.model, path), config, {}, path)
    names = {name: own_name(name.removeprefix("network.")) for name in weights if name.startswith("network.")}
    load_tensors({own: _whole(weights[name]) for name, own in names.items()}, model.network, path)
    model.training_record = config.training or TrainingRecord()
    return model


def _read_checkpoint(path: Path) -> tuple[ModelConfig, dict[str, Any]]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        record = checkpoint.get(RECORD_KEY)
        training = None if record is None else TrainingRecord.from_json(record)
        config = ModelConfig(checkpoint[MODEL_KEY], dict(checkpoint["hyper_parameters"]), training)
        return config, dict(checkpoint["state_dict"])
    except (UnpicklingError, RuntimeError, KeyError, AttributeError, TypeError, EOFError, ValueError):
        raise InputError(
            f"{path}: not a checkpoint of an mpfnl model; give a weights folder or a .ckpt"
        ) from None


def _whole(tensor: object) -> object:
    """In float32, where a training kept its weights in 16 bits."""
    half = isinstance(tensor, torch.Tensor) and tensor.dtype in (torch.bfloat16, torch.float16)
    return tensor.float() if isinstance(tensor, torch.Tensor) and half else tensor
