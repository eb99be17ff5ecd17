"""What one process of several does in the tests of distributed training.

python ddp_worker.py COHORT FOLDER PROCESSES
"""

from __future__ import annotations

import hashlib
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor
from torch.distributed.fsdp import fully_shard

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.prediction_writer import PredictionWriter
from mpfnl.models import PFNL3D

TOTAL_BATCH = 4
EPOCHS = 2
SAVE_AT = 4  # of 3 steps an epoch: in the middle of the second
WAIT = timedelta(seconds=60)


class Seen(Callback):
    """Notes the samples of each batch, by what is in them."""

    def __init__(self) -> None:
        self.batches: dict[str, list[list[str]]] = {"train": [], "validate": [], "test": [], "predict": []}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *batch: Any) -> None:
        self._note("train", batch[0])

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._note("validate", batch)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._note("test", batch)

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._note("predict", batch)

    def _note(self, stage: str, batch: Any) -> None:
        scans = batch["phases"].float().numpy()
        digests = [hashlib.sha256(scan.tobytes()).hexdigest()[:12] for scan in scans]
        named = [f"{study}:{digest}" for study, digest in zip(batch["study_id"], digests, strict=True)]
        self.batches[stage].append(named)


class ShardedPFNL3D(PFNL3D):
    """As docs/several_machines.md says; in float64, which the strategy has no name for."""

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch | {name: batch[name].double() for name in ("phases", "target")}

    def configure_model(self) -> None:
        mesh = self.device_mesh["data_parallel"]  # type: ignore[index]
        for block in self.network.trunk:
            fully_shard(block, mesh=mesh)
        fully_shard(self.network, mesh=mesh)


class Worker:
    """The runs of one process.

    Args:
        cohort: The manifest.
        folder: For all processes together.
        processes: How many there are.
    """

    def __init__(self, cohort: Path, folder: Path, processes: int) -> None:
        self.cohort = cohort
        self.folder = folder
        self.processes = processes
        self.rank = 0

    def run(self) -> None:
        """All runs; leaves what was found in FOLDER/rank*.pt."""
        found: dict[str, Any] = {}
        model, seen, metrics = self.fit("plain")
        found |= {"seen": seen.batches, "weights": model.network.state_dict(), "metrics": metrics}
        found |= self.use(model)
        found["first"] = self.model().network.state_dict()
        model, _, metrics = self.fit("float64", precision="64-true")
        found |= {"exact": model.network.state_dict(), "exact_metrics": metrics}
        checkpoint = next(self.folder.glob(f"plain/*step={SAVE_AT}.ckpt"))
        model, seen, _ = self.fit("resumed", checkpoint, workers=1)
        found |= {"resumed": model.network.state_dict(), "resumed_seen": seen.batches}
        if self.processes > 1:
            found["sharded"], found["sharded_share"] = self.fit_sharded()
        torch.save(found, self.folder / f"rank{self.rank}.pt")

    def fit(
        self, name: str, checkpoint: Path | None = None, workers: int = 0, precision: Any = "32-true"
    ) -> tuple[PFNL3D, Seen, dict[str, float]]:
        """Trains the model from its first weights, or from the checkpoint."""
        model, seen = self.model(), Seen()
        saver = ModelCheckpoint(self.folder / name, every_n_train_steps=SAVE_AT, save_top_k=-1)
        trainer = self.trainer(self.strategy(), seen, saver, max_epochs=EPOCHS, precision=precision)
        trainer.fit(model, self.data(workers), ckpt_path=checkpoint, weights_only=False)
        return model, seen, scores(trainer)

    def use(self, model: PFNL3D) -> dict[str, Any]:
        """Tests, predicts and saves a trained model."""
        seen = Seen()
        trainer = self.trainer(self.strategy(), seen, PredictionWriter())
        trainer.test(model, self.data(), verbose=False)
        tested = scores(trainer)
        trainer.predict(model, self.data(), return_predictions=False)
        folder = model.save_pretrained(self.folder / "weights")
        trainer.strategy.barrier()
        loaded = PFNL3D.from_pretrained(folder).network.state_dict()
        return {"used": seen.batches, "tested": tested, "loaded": loaded}

    def fit_sharded(self) -> tuple[dict[str, Tensor], float]:
        """Trains with the weights spread over the processes; the weights put together, and a share's size."""
        model = self.model(ShardedPFNL3D, channels_last=False).double()
        strategy = ModelParallelStrategy(
            self.processes, 1, save_distributed_checkpoint=False, process_group_backend="gloo", timeout=WAIT
        )
        trainer = self.trainer(strategy, max_epochs=EPOCHS)
        trainer.fit(model, self.data())
        trainer.save_checkpoint(self.folder / "sharded.ckpt")
        whole = {name: tensor.full_tensor() for name, tensor in model.network.state_dict().items()}
        held = sum(parameter.to_local().numel() for parameter in model.network.parameters())
        return whole, held / sum(tensor.numel() for tensor in whole.values())

    def trainer(self, strategy: Strategy | str, *callbacks: Callback, **settings: Any) -> Trainer:
        """A quiet trainer on the CPU."""
        trainer = Trainer(
            accelerator="cpu",
            devices=self.processes,
            strategy=strategy,
            callbacks=list(callbacks),
            default_root_dir=self.folder,
            logger=False,
            enable_checkpointing=any(isinstance(each, ModelCheckpoint) for each in callbacks),
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            **settings,
        )
        self.rank = trainer.global_rank
        return trainer

    def strategy(self) -> Strategy | str:
        """Processes that each hold the whole model, or one process."""
        return "auto" if self.processes == 1 else DDPStrategy(process_group_backend="gloo", timeout=WAIT)

    def data(self, workers: int = 0) -> MultiphaseDataModule:
        """Five studies of three patches, and an odd number to validate."""
        return MultiphaseDataModule(
            self.cohort,
            batch_size=TOTAL_BATCH // self.processes,
            patch_size=12,
            patches_per_study=3,
            val_patches_per_study=5,
            workers=workers,
        )

    def model(self, kind: type[PFNL3D] = PFNL3D, channels_last: bool = True) -> PFNL3D:
        """The same first weights in every process.

        With Adam's own epsilon the rounding errors of gradients near 0 would become whole steps.
        """
        torch.manual_seed(3)
        return kind(
            features=4,
            blocks=1,
            phase_dropout=0.4,
            optimizer=lambda parameters: torch.optim.Adam(parameters, 3e-3, eps=1e-4),
            channels_last=channels_last,
        )


def scores(trainer: Trainer) -> dict[str, float]:
    """What was logged last."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


if __name__ == "__main__":
    Worker(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])).run()
