"""Loads whatever model a path holds: a weights folder, or a Lightning checkpoint."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

import torch

from mpfnl.errors import InputError
from mpfnl.models.enhancement import MODEL_KEY, EnhancementModule
from mpfnl.models.pfnl3d import PFNL3D
from mpfnl.models.pretrained import ModelConfig, build, load_tensors, read_config
from mpfnl.models.rcan3d import RCAN3D

MODELS: dict[str, type[EnhancementModule]] = {"PFNL3D": PFNL3D, "RCAN3D": RCAN3D}


def load_model(path: str | Path) -> EnhancementModule:
    """Loads a model for inference.

    Args:
        path: A weights folder that `save_pretrained` wrote, or a Lightning checkpoint (`.ckpt`). A checkpoint
            is read with `weights_only=True`: no code in it is run.

    Raises:
        InputError: If there is nothing there, or it is not a model of this package.
    """
    path = Path(path)
    if path.is_dir():
        name = read_config(path).model
        if name not in MODELS:
            raise InputError(f"{path}: holds a {name}; this mpfnl knows {', '.join(MODELS)}")
        return MODELS[name].from_pretrained(path).eval()
    if not path.exists():
        raise InputError(f"{path}: no such weights folder or checkpoint")
    return _load_checkpoint(path).eval()


def _load_checkpoint(path: Path) -> EnhancementModule:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        config = ModelConfig(checkpoint[MODEL_KEY], checkpoint["hyper_parameters"])
        weights = checkpoint["state_dict"]
    except (UnpicklingError, RuntimeError, KeyError, TypeError, EOFError, ValueError):
        raise InputError(
            f"{path}: not a checkpoint of an mpfnl model; give a weights folder or a .ckpt"
        ) from None
    if config.model not in MODELS:
        raise InputError(f"{path}: holds a {config.model}; this mpfnl knows {', '.join(MODELS)}")
    model = build(MODELS[config.model], config, {}, path)
    names = {name: name.removeprefix("network.").replace("_orig_mod.", "") for name in weights}
    network = {names[name]: tensor for name, tensor in weights.items() if name.startswith("network.")}
    load_tensors(network, model.network, path)
    return model
