"""What every enhancement model shares: the steps, the metrics, the optimiser, whole volumes, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Adam

from mpfnl.errors import InputError
from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling, network_tiling
from mpfnl.losses import L1SobelLoss
from mpfnl.metrics.aggregation import PeakSignalNoiseRatio3D, StructuralSimilarity3D
from mpfnl.models.rates import Interval, OptimizerFactory, SchedulerFactory, check_schedule, make_optimizer
from mpfnl.models.trained import TrainedModule
from mpfnl.models.validation_loss import MeanLoss
from mpfnl.networks.capabilities import network_capabilities
from mpfnl.phases import Phase, resolve_phases
from mpfnl.samples import PhaseSource, StudyBatch
from mpfnl.shapes import PhaseBatch, Scalar, TargetBatch
from mpfnl.window import ABDOMEN

if TYPE_CHECKING:
    from mpfnl.volumes import Volume

__all__ = ["EnhancementModule", "Interval", "OptimizerFactory", "SchedulerFactory"]


class EnhancementModule(TrainedModule):
    """Base of the models: trains a network to restore one phase of a study from degraded phases.

    A subclass builds its network and says what it is made of (`config`); training, validation, testing,
    prediction, whole volumes and weights are here, once.

    Whole volumes are enhanced in tiles that suit the network and the patches it was trained on (see
    `network_tiling`), or in those of `tiling` where that is set.

    Args:
        network: Takes `(batch, P, x, y, z)` in [0, 1], returns `(batch, 1, x, y, z)`; its attribute `scale`
            says how many times finer the grid of the result is, if it is.
        phases: The phases that the network takes, in stacking order.
        target: The phase that it restores.
        loss: Of (prediction, target); L1 + 0.7 L1-Sobel if None.
        optimizer: Makes the optimiser from the parameters.
        lr_scheduler: Makes a schedule from the optimiser; None: a constant rate.
        lr_interval: When the schedule moves on: each epoch or each step.
        lr_factors: Part of the network to what its learning rate is multiplied by; other parts have factor 1.
        channels_last: Keep the weights in `torch.channels_last_3d`, the fast layout in mixed precision.
    """

    window = ABDOMEN

    def __init__(
        self,
        network: nn.Module,
        phases: Sequence[Phase],
        target: Phase,
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory = Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_interval: Interval = "epoch",
        lr_factors: Mapping[str, float] | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.phases = resolve_phases(phases, target)
        self.target = Phase(target)
        self.network = network.to(memory_format=torch.channels_last_3d) if channels_last else network
        self.loss = loss or L1SobelLoss()
        self.optimizer_factory = optimizer
        self.scheduler_factory = lr_scheduler
        self.lr_interval = lr_interval
        self.lr_factors = dict(lr_factors or {})
        self.tiling: Tiling | None = None
        self.val_loss = MeanLoss()
        self.val_psnr = PeakSignalNoiseRatio3D()
        self.val_ssim = StructuralSimilarity3D()
        self.test_psnr = PeakSignalNoiseRatio3D()
        self.test_ssim = StructuralSimilarity3D()
        # Plain values only: a checkpoint's hyperparameters load without unpickling classes.
        self.save_hyperparameters(self.config)

    def setup(self, stage: str) -> None:
        """Checks that the data module yields what this model takes.

        Raises:
            InputError: If it does not, with what to pass.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        scale = network_capabilities(self.network).scale
        if getattr(data, "scale", scale) != scale:
            raise InputError(
                f"this {type(self).__name__} has scale {scale}, and the data module yields targets of scale"
                f" {data.scale}; make it with scale={scale}"
            )
        if isinstance(data, PhaseSource) and (data.phases, data.target) != (self.phases, self.target):
            wanted = f"phases={[str(phase) for phase in self.phases]}, target={str(self.target)!r}"
            raise InputError(
                f"this {type(self).__name__} does not take what the data module yields "
                f"({', '.join(data.phases)}; target {data.target}); make it with {wanted}"
            )
        super().setup(stage)

    def forward(self, phases: PhaseBatch) -> TargetBatch:
        """Enhances a batch of patches: `(batch, P, x, y, z)` in [0, 1] to `(batch, 1, x, y, z)`."""
        return self.network(phases)

    def training_forward(self, phases: PhaseBatch) -> TargetBatch:
        """What a training step computes; a model may leave phases out here."""
        enhanced: Tensor = self(phases)
        return enhanced

    def training_step(self, batch: StudyBatch, batch_idx: int) -> Scalar:
        """The loss of a batch of patches; logged as `train_loss`."""
        loss: Tensor = self.loss(self.training_forward(batch["phases"]), batch["target"])
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["target"]))
        return loss

    def validation_step(self, batch: StudyBatch, batch_idx: int) -> TargetBatch:
        """Logs `val_loss`, `val_psnr` (dB) and `val_ssim` over the validation patches."""
        enhanced: Tensor = self(batch["phases"]).float()
        self.val_loss.update(self.loss(enhanced, batch["target"]), len(enhanced))
        self.log("val_loss", self.val_loss)
        self.val_psnr.update(enhanced.clamp(0, 1), batch["target"])
        self.val_ssim.update(enhanced.clamp(0, 1), batch["target"])
        self.log("val_psnr", self.val_psnr, prog_bar=True)
        self.log("val_ssim", self.val_ssim, prog_bar=True)
        return enhanced

    def test_step(self, batch: StudyBatch, batch_idx: int) -> None:
        """Logs `test_psnr` (dB) and `test_ssim` over whole volumes, in tiles."""
        enhanced = self.predict_step(batch, batch_idx)
        self.test_psnr.update(enhanced, batch["target"])
        self.test_ssim.update(enhanced, batch["target"])
        self.log("test_psnr", self.test_psnr)
        self.log("test_ssim", self.test_ssim)

    def predict_step(self, batch: StudyBatch, batch_idx: int) -> TargetBatch:
        """Enhances whole volumes in tiles: `(batch, 1, x, y, z)` in [0, 1], on the network's output grid."""
        device = batch["phases"].device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        tiling = self.tiling or network_tiling(self.network, self.patch_size)
        volumes = [tiled_forward(self.network, phases, tiling, precision) for phases in batch["phases"]]
        return torch.stack(volumes).unsqueeze(1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser over the parameters that are not frozen, and its schedule.

        Raises:
            InputError: If all are frozen, or the schedule is against `lr_factors`.
        """
        optimizer = make_optimizer(self.optimizer_factory, self.network, self.parameters(), self.lr_factors)
        if self.scheduler_factory is None:
            return optimizer
        scheduler = self.scheduler_factory(optimizer)
        check_schedule(scheduler, self.lr_factors)
        schedule: LRSchedulerConfigType = {"scheduler": scheduler, "interval": self.lr_interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def enhance(
        self,
        phases: Mapping[Phase | str, str | Path | Volume],
        output: str | Path | None = None,
        *,
        tiling: Tiling | None = None,
        precision: torch.dtype | None = None,
        progress: bool = False,
        self_ensemble: bool = False,
        max_memory: int | None = None,
    ) -> Volume:
        """Enhances one study from NIfTI files.

        HU and geometry are kept. Where the scan truly lies outside the window (bone, gas, metal, bright
        vessels) the result keeps the input's HU.

        Args:
            phases: A file or a `Volume` for each phase that the model takes, on one grid.
            output: Where to write the result (`.nii` or `.nii.gz`); not written if None.
            tiling: Tile, overlap and halo in voxels; the model's own, or those that suit it, if None.
            precision: Of the convolutions; chosen by the device if None.
            progress: Show a progress bar.
            self_ensemble: Take the mean over eight orientations of each tile: eight times the work.
            max_memory: Bytes that this process may hold; what it holds and 0.8 of what is free if None.

        Returns:
            The enhanced target phase in HU, on the input's grid; with `scale` 2 or 4 on the grid that divides
            each of its voxels.

        Raises:
            InputError: If a phase is missing, a file cannot be used or memory does not suffice, with the
                reason.
        """
        from mpfnl.inference.enhancement import EnhanceOptions, enhance_study  # needs nibabel

        options = EnhanceOptions(tiling or self.tiling, precision, progress, self_ensemble, max_memory)
        named = {Phase(phase): source for phase, source in phases.items()}
        return enhance_study(self, named, output, options)
