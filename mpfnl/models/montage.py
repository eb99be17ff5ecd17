"""Callback that draws a few validation patches before and after enhancement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from mpfnl.models.enhancement import EnhancementModule
from mpfnl.samples import StudyBatch


class MontageCallback(Callback):
    """Callback that writes one montage a validation epoch: degraded phases, enhanced, target, error.

    The images are `montages/epoch=NNNN.png` in the trainer's log folder.

    Args:
        patches: Number of patches, from the first validation batch.
        every_n_epochs: Interval between montages in epochs.

    >>> MontageCallback(patches=2).folder.name
    'montages'
    """

    def __init__(self, patches: int = 3, every_n_epochs: int = 1) -> None:
        self.patches = patches
        self.every_n_epochs = every_n_epochs
        self.folder = Path("montages")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Finds the log folder, in all processes together."""
        self.folder = Path(trainer.log_dir or trainer.default_root_dir) / "montages"

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: StudyBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first batch of an epoch."""
        due = trainer.current_epoch % self.every_n_epochs == 0
        if batch_idx or dataloader_idx or not due or trainer.sanity_checking or not trainer.is_global_zero:
            return
        if not isinstance(pl_module, EnhancementModule) or not isinstance(outputs, Tensor):
            return
        from mpfnl.plots.slices import montage  # needs matplotlib

        rows = [self._row(pl_module, batch, outputs, index) for index in range(len(outputs))]
        name = f"epoch={trainer.current_epoch:04d}"
        figure = montage(rows[: self.patches], errors=["error"], title=f"{pl_module.name}, {name}")
        self.folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.folder / f"{name}.png")

    def _row(
        self, model: EnhancementModule, batch: StudyBatch, enhanced: Tensor, index: int
    ) -> dict[str, Any]:
        middle = batch["target"].shape[-1] // 2
        target = batch["target"][index, 0, :, :, middle].float().cpu().numpy()
        restored = enhanced[index, 0, :, :, middle].float().clamp(0, 1).cpu().numpy()
        middle_in = batch["phases"].shape[-1] // 2
        degraded = {
            f"{phase}, degraded": batch["phases"][index, place, :, :, middle_in]
            .float()
            .nan_to_num(0)
            .cpu()
            .numpy()
            for place, phase in enumerate(model.phases)
        }
        return degraded | {"enhanced": restored, "target": target, "error": restored - target}
