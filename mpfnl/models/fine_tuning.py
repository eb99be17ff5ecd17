"""Fine-tuning from a configuration file: `mpfnl fit --config`; see docs/fine_tuning.md.

In Python, `from_pretrained`, `freeze` and the constructor's `lr_factors` do the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Adam

from mpfnl.models.enhancement import EnhancementModule, Interval, OptimizerFactory, SchedulerFactory
from mpfnl.models.loading import class_of
from mpfnl.models.parts import set_trained
from mpfnl.models.rates import WarmUpCosine
from mpfnl.models.sources import find_weights

__all__ = ["FreezeParts", "WarmUpCosine", "start_from"]


def start_from(
    weights: str,
    revision: str | None = None,
    local_files_only: bool = False,
    loss: nn.Module | None = None,
    optimizer: OptimizerFactory = Adam,
    lr_scheduler: SchedulerFactory | None = None,
    lr_interval: Interval = "epoch",
    lr_factors: Mapping[str, float] | None = None,
    phase_dropout: float | None = None,
    channels_last: bool = True,
    activation_checkpointing: bool = False,
) -> EnhancementModule:
    """A model to train on, whichever the weights are of: a `class_path` in place of a model's.

    Args:
        weights: A weights folder, the name of shipped weights, or `owner/name` on the Hugging Face Hub.
        revision: A branch, tag or commit on the Hub.
        local_files_only: Take from the Hub only what was fetched before.
        loss: As for the model's constructor, and so the others.
        optimizer: Makes the optimiser from the parameters.
        lr_scheduler: Makes a schedule from the optimiser.
        lr_interval: When the schedule moves on.
        lr_factors: Part of the network to what its learning rate is multiplied by.
        phase_dropout: Probability with which each phase but the target is left out of a step; None: as the
            weights were trained.
        channels_last: Keep the weights in the layout that is fast in mixed precision.
        activation_checkpointing: Train in less memory and more time.

    Raises:
        InputError: If there are no such weights, or they cannot be used.
    """
    folder = find_weights(weights, revision=revision, local_files_only=local_files_only)
    return class_of(folder).from_pretrained(
        folder,
        loss=loss,
        optimizer=optimizer,
        lr_scheduler=lr_scheduler,
        lr_interval=lr_interval,
        lr_factors=lr_factors,
        phase_dropout=phase_dropout,
        channels_last=channels_last,
        activation_checkpointing=activation_checkpointing,
    )


class FreezeParts(Callback):
    """Keeps parts of a model as they are, from the first step on; see `mpfnl.models.parts` for their names.

    Lightning's `BackboneFinetuning` adds parameter groups while it trains, which PyTorch's schedules do not
    follow. Here the optimiser knows all parameters from the start that will ever be trained.

    Args:
        parts: The parts.
        until_epoch: Train them, too, from this epoch on; None: never.
    """

    def __init__(self, parts: Sequence[str], until_epoch: int | None = None) -> None:
        self.parts = tuple(parts)
        self.until_epoch = until_epoch

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Freezes for good, before the optimiser is made.

        Raises:
            InputError: If the model has no such part.
        """
        if stage == "fit" and self.until_epoch is None:
            self._set(pl_module, trained=False)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freezes until the epoch has come: parameters without a gradient are not moved."""
        if self.until_epoch is not None:
            self._set(pl_module, trained=trainer.current_epoch >= self.until_epoch)

    def _set(self, model: LightningModule, *, trained: bool) -> None:
        if not isinstance(model, EnhancementModule):
            raise TypeError(f"FreezeParts freezes models of mpfnl, not a {type(model).__name__}")
        set_trained(model.network, self.parts, trained)
