"""The `config.json` of a weights folder: which model, made how, trained on what."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mpfnl.errors import InputError
from mpfnl.models.record import TrainingRecord
from mpfnl.window import ABDOMEN

FORMAT = 2
"""1 had neither a training record nor the weights' digest, and PFNL3D took [0, 1] as it is; it is read."""

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class ModelConfig:
    """What `config.json` says.

    Args:
        model: The model's class name.
        arguments: The constructor arguments that define the network, as JSON values.
        training: What it was trained on, where that is known.
        weights_sha256: Digest of the weights that belong to it, where it is known.
    """

    model: str
    arguments: dict[str, Any]
    training: TrainingRecord | None = None
    weights_sha256: str | None = None


def read_config(folder: Path, expected: str | None = None) -> ModelConfig:
    """Reads a weights folder's `config.json`.

    Args:
        folder: A weights folder.
        expected: The class name that it must hold, if any.

    Raises:
        InputError: If there is no such folder, it cannot be read, or another model or a pickle is in it.
    """
    path, pickles = folder / CONFIG, pickles_in(folder)
    if not path.is_file():
        found = f"; {', '.join(pickles)} is a pickle, which is not read" if pickles else ""
        raise InputError(
            f"{folder}: not a weights folder (no {CONFIG}{found}); give a folder that save_pretrained wrote"
        )
    if pickles:
        raise InputError(
            f"{folder}: holds {', '.join(pickles)}, a pickle, which could run code; weights folders hold "
            f"{WEIGHTS} only: move it away"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        version, window = config["format"], config["window_hu"]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a model configuration of mpfnl ({one_line(error)}); save the model again"
        ) from None
    if version not in (1, FORMAT):
        raise InputError(
            f"{path}: format {version}, this mpfnl reads 1 to {FORMAT}; install the mpfnl that wrote it"
        )
    if version == 1 and config.get("model") == "PFNL3D":
        raise InputError(
            f"{path}: format 1, of a PFNL3D that took intensities in another range; train it again, or "
            "install the mpfnl that wrote it"
        )
    if window != asdict(ABDOMEN):
        raise InputError(f"{path}: trained for the window {window}; this mpfnl works in {asdict(ABDOMEN)}")
    found_config = _config(config, path)
    if expected is not None and found_config.model != expected:
        raise InputError(
            f"{path}: holds a {found_config.model}, not a {expected}; "
            f"use mpfnl.{found_config.model}.from_pretrained"
        )
    return found_config


def config_json(config: ModelConfig) -> str:
    """The text of `config.json`."""
    told = {
        "format": FORMAT,
        "model": config.model,
        "arguments": config.arguments,
        "window_hu": asdict(ABDOMEN),
        "weights_sha256": config.weights_sha256,
        "training": None if config.training is None else config.training.to_json(),
    }
    return json.dumps(told, indent=2, allow_nan=False) + "\n"


def _config(config: dict[str, Any], path: Path) -> ModelConfig:
    try:
        training, digest = config.get("training"), config.get("weights_sha256")
        return ModelConfig(
            str(config["model"]),
            dict(config["arguments"]),
            None if training is None else TrainingRecord.from_json(training),
            None if digest is None else str(digest),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not a model configuration of mpfnl ({one_line(error)}); save the model again"
        ) from None


def one_line(error: Exception) -> str:
    """An error's words in one line."""
    return " ".join(str(error).split())


def pickles_in(folder: Path) -> list[str]:
    """The names of the files in a folder that are pickles, by their endings."""
    if not folder.is_dir():
        return []
    return sorted(file.name for file in folder.iterdir() if file.suffix.lower() in _PICKLES)
