"""Follows a training, so that the weights can say what they were trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version

from lightning.pytorch import Trainer
from torch import nn
from torch.optim import Optimizer

from mpfnl.models.parts import frozen_parts
from mpfnl.models.record import Score, TrainingRecord
from mpfnl.samples import TrainingData, TrainingSource

PACKAGES = ("mpfnl", "torch", "lightning")
SCORES = {"val_psnr": "PSNR (dB)", "val_ssim": "SSIM"}
"""What validation logs, and what it is called on a model card."""


class Recorder:
    """Says what one training has been so far.

    Args:
        before: What the weights were trained on when it began; None for new ones.
    """

    def __init__(self, before: TrainingRecord | None) -> None:
        self._before = before
        self._resumed: TrainingRecord | None = None
        self._steps_elsewhere = 0

    def resume(self, record: TrainingRecord) -> None:
        """Goes on with a training that a checkpoint is of: the same training, not another one after it."""
        self._before, self._resumed = record.started_from, record

    def start(self, step: int) -> None:
        """Begins to count.

        Args:
            step: Steps that the trainer has taken already.
        """
        done = 0 if self._resumed is None or self._resumed.steps is None else self._resumed.steps
        # A trainer that resumes goes on counting; one that fits another time counts what came before, too.
        self._steps_elsewhere = done - step

    def record(
        self, trainer: Trainer, network: nn.Module, loss: nn.Module, phase_dropout: float
    ) -> TrainingRecord:
        """The training up to now.

        Args:
            trainer: Which trains.
            network: What is trained.
            loss: Of (prediction, target).
            phase_dropout: Of the model.
        """
        known = TrainingRecord() if self._resumed is None else self._resumed
        data = getattr(trainer, "datamodule", None)
        if isinstance(data, TrainingSource):
            known = _of_data(known, data.training_data, trainer)
        return replace(
            known,
            phase_dropout=phase_dropout,
            steps=self._steps_elsewhere + trainer.global_step,
            recipe=_recipe(trainer, network, loss),
            versions=_versions(),
            started_from=self._before,
        )


def _of_data(known: TrainingRecord, data: TrainingData, trainer: Trainer) -> TrainingRecord:
    accumulated = trainer.accumulate_grad_batches
    return replace(
        known,
        studies=data.studies,
        phantoms=data.phantoms,
        degradation=data.degradation,
        window=data.window,
        patch_size=data.patch_size,
        batch_size=data.batch_size * trainer.world_size * accumulated,
        seed=data.seed,
        metrics=_scores(data, trainer),
    )


def _scores(data: TrainingData, trainer: Trainer) -> dict[str, Score]:
    """The last validation, where it was of all validation patches."""
    if str(trainer.limit_val_batches) != "1.0":  # 1 is one batch, 1.0 is all of them
        return {}
    logged = {name: trainer.callback_metrics.get(name) for name in SCORES}
    values = {name: float(value) for name, value in logged.items() if value is not None}
    on = (
        f"validation patches of {data.patch_size}^3 voxels of the training cohort, degraded by "
        f"{data.degradation}"
    )
    return {
        SCORES[name]: Score(value, data.val_patches, on)
        for name, value in values.items()
        if math.isfinite(value)
    }


def _recipe(trainer: Trainer, network: nn.Module, loss: nn.Module) -> dict[str, str]:
    frozen = frozen_parts(network)
    told = {
        "loss": type(loss).__name__,
        "optimiser": _optimizers(trainer.optimizers),
        "precision": str(trainer.precision),
        "frozen parts": ", ".join(frozen),
    }
    return {name: text for name, text in told.items() if text}


def _optimizers(optimizers: Sequence[Optimizer]) -> str:
    return "; ".join(f"{type(optimizer).__name__}, {_rates(optimizer)}" for optimizer in optimizers)


def _rates(optimizer: Optimizer) -> str:
    rates = [
        (group.get("name", ""), float(group.get("max_lr", group.get("initial_lr", group["lr"]))))
        for group in optimizer.param_groups
    ]
    return "learning rate " + ", ".join(f"{rate:g} {name}".rstrip() for name, rate in rates)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree
            continue
    return found
