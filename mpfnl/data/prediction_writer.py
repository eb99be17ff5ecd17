"""A callback that writes the predictions of a Trainer as NIfTI files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.degradation import degrade_study
from mpfnl.data.studies import load_study
from mpfnl.errors import ConflictError
from mpfnl.inference.hounsfield import restore_hu
from mpfnl.samples import StudyBatch
from mpfnl.volumes import read_volume
from mpfnl.volumes.writing import volume_writer


class PredictionWriter(BasePredictionWriter):
    """Writes each predicted volume to `predictions/STUDY.nii.gz` in the trainer's log folder, in HU.

    Where the input scan lies outside the window, its HU are kept, as `enhance` does.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self.folder = Path("predictions")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Determines the log folder, in all processes together."""
        super().setup(trainer, pl_module, stage)
        self.folder = Path(trainer.log_dir or trainer.default_root_dir) / "predictions"

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: StudyBatch,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Writes the volumes of a batch.

        Raises:
            ConflictError: The volumes do not come from a `MultiphaseDataModule`.
        """
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, MultiphaseDataModule):
            raise ConflictError("predictions are written for a MultiphaseDataModule only; pass one")
        self.folder.mkdir(parents=True, exist_ok=True)
        for study_id, volume in zip(batch["study_id"], prediction, strict=True):
            self._write(data, study_id, volume[0])

    def _write(self, data: MultiphaseDataModule, study_id: str, unit: Tensor) -> None:
        study = next(study for study in data.manifest if study.study_id == study_id)
        settings = data.settings
        reference = read_volume(study.file(settings.target), settings.target).canonical()
        seen = degrade_study(load_study(study, settings.loaded), settings)[settings.target]
        hu = restore_hu(seen, unit.float().cpu().numpy(), settings.window)
        x, y, z = (slice(0, side) for side in hu.shape)  # a finer network's ends with its last whole voxel
        with volume_writer(
            self.folder / f"{study_id}.nii.gz", reference.grid.crop((x, y, z)), hu.dtype
        ) as writer:
            writer.write(hu)
