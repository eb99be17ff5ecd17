"""Time, loss and scores of the epochs of a training; Lightning without its advice."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mpfnl.errors import InputError

_ADVICE = (
    ".*does not have many workers.*",  # loading samples in this process suits two cores
    ".*exists and is not empty.*",  # a resumed training continues in its folder
    ".*dirpath has changed.*",  # the folder may have been moved
    ".*LeafSpec.*",  # inside Lightning
)


class EpochRecord(Callback):
    """Callback that times the steps, records the last epoch's loss and scores, and stops on divergence.

    Its state is part of each checkpoint, so a resumed training keeps its earlier measurements. On a GPU each
    step is synchronised.

    Args:
        name: Name of the model in messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.step_seconds: list[float] = []
        self.epoch_seconds: list[float] = []
        self.scores: dict[str, float] = {}
        self._times: list[float] = []
        self._losses: list[torch.Tensor] = []
        self._epoch_start = self._step_start = 0.0

    def summary(self) -> dict[str, Any]:
        """JSON values: median seconds per step (without loading), seconds of all epochs, last scores."""
        per_step = {"seconds_per_step": median(self.step_seconds)}
        return per_step | {"seconds": sum(self.epoch_seconds), "last_epoch": self.scores}

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the timer of the epoch."""
        self._times, self._losses = [], []
        self._epoch_start = perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Starts the timer of the step, after the batch was loaded."""
        self._step_start = _now(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stops the timer after the step of the optimiser."""
        self._times.append(_now(pl_module.device) - self._step_start)
        self._losses.append(outputs["loss"].detach())

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the epoch's median time and scores, before its checkpoint is written.

        Raises:
            InputError: A loss or score is NaN; the checkpoint of the previous epoch remains.
        """
        loss = fmean(torch.stack(self._losses).tolist())
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not math.isfinite(loss) or any(map(math.isnan, scores.values())):
            raise InputError(
                f"{self.name}: diverged in epoch {trainer.current_epoch}: its loss is not finite; "
                "take another seed or larger batches, in another output folder"
            )
        self.step_seconds.append(median(self._times))
        self.epoch_seconds.append(perf_counter() - self._epoch_start)
        self.scores = scores | {"train_loss": loss}

    def state_dict(self) -> dict[str, Any]:
        """The measurements, for the checkpoint."""
        return {
            "step_seconds": self.step_seconds,
            "epoch_seconds": self.epoch_seconds,
            "scores": self.scores,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the measurements of a checkpoint."""
        self.step_seconds = list(state_dict["step_seconds"])
        self.epoch_seconds = list(state_dict["epoch_seconds"])
        self.scores = dict(state_dict["scores"])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Suppresses Lightning's hardware notices and advice."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for advice in _ADVICE:
                warnings.filterwarnings("ignore", message=advice)
            yield
    finally:
        logger.setLevel(level)
