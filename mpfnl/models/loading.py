"""Any model by the path or name of its weights: a weights folder, shipped weights, the Hub, a checkpoint."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Unpack

import torch
from torch import nn

from mpfnl.errors import FormatError, NotFoundError
from mpfnl.files import file_digest
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.pretrained import CHECKPOINT_KEY, WeightsSource
from mpfnl.models.provenance import TrainingRecord
from mpfnl.models.rates import TrainingOptions
from mpfnl.models.weights import ModelConfig, checkpoint_tensors, load_tensors


def load_model(
    path: str | Path,
    *,
    network: nn.Module | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> EnhancementModule:
    """Loads a model for inference.

    Args:
        path: Weights folder that `save_pretrained` wrote, name of shipped weights, `owner/name` on the
            Hugging Face Hub, or Lightning checkpoint (`.ckpt`). A checkpoint is read with
            `weights_only=True`: no code in it is run.
        network: Network that receives the weights; needed only where it is not registered.
        revision: Branch, tag or commit on the Hub.
        local_files_only: Whether only the Hub's cache on this machine is searched, as with HF_HUB_OFFLINE=1.

    Returns:
        The model in evaluation mode; `model.source` has the name and the SHA-256 of its weights.

    Raises:
        InputError: If there is nothing at the path, or no model of this package.

    >>> model = load_model("rcan3d-phantoms")
    >>> model.name, model.source.name, len(model.source.sha256)
    ('RCAN3D', 'rcan3d-phantoms', 64)
    """
    if Path(path).is_file():
        return _load_checkpoint(Path(path), network).eval()
    if Path(path).suffix == ".ckpt":
        raise NotFoundError(f"{path}: no such checkpoint; they lie in a training's log under checkpoints")
    return EnhancementModule.from_pretrained(
        path, network=network, revision=revision, local_files_only=local_files_only
    ).eval()


def start_from(
    weights: str,
    revision: str | None = None,
    local_files_only: bool = False,
    phase_dropout: float | None = None,
    **training: Unpack[TrainingOptions],
) -> EnhancementModule:
    """A model to fine-tune, as a `class_path` of a configuration file; in Python use `from_pretrained`.

    Args:
        weights: Weights folder, name of shipped weights, or `owner/name` on the Hugging Face Hub.
        revision: Branch, tag or commit on the Hub.
        local_files_only: Whether only the Hub's cache on this machine is searched.
        phase_dropout: Probability with which each phase but the target is left out of a step; None: that of
            the weights' training.
        **training: Options of the training, as for the model's constructor.

    Raises:
        InputError: If there are no such weights, or they cannot be used.
    """
    return EnhancementModule.from_pretrained(
        weights,
        revision=revision,
        local_files_only=local_files_only,
        phase_dropout=phase_dropout,
        **training,
    )


def _load_checkpoint(path: Path, network: nn.Module | None) -> EnhancementModule:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        config = ModelConfig.from_json(checkpoint[CHECKPOINT_KEY])
        tensors = checkpoint_tensors(checkpoint["state_dict"])
    except (UnpicklingError, RuntimeError, KeyError, AttributeError, TypeError, EOFError, ValueError):
        raise FormatError(
            f"{path}: not a checkpoint of an mpfnl model; give a weights folder or a .ckpt"
        ) from None
    model = EnhancementModule.from_config(config, path, network, {})
    load_tensors(tensors, model.network, path)
    model.training_record = config.training or TrainingRecord()
    model.source = WeightsSource(str(path), file_digest(path))
    return model
