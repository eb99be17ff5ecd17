"""Train PFNL3D with several processes, each with a GPU: on one machine, or on nodes under SLURM.

python examples/train_ddp.py cohort.csv --devices 4                           # four GPUs of this machine
python examples/train_ddp.py cohort.csv --accelerator cpu --devices 2         # a test without a GPU
sbatch examples/slurm_ddp.sbatch cohort.csv                                   # several nodes

The batch size is that of all processes together, so that the training is the same for any number of them. An
interrupted training continues when it is started again in the same folder.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy
from torch.optim.lr_scheduler import CosineAnnealingLR

import mpfnl

LAST = "last.ckpt"
TRY_AGAIN = 75  # EX_TEMPFAIL of sysexits.h: slurm_ddp.sbatch queues the job again


class SaveAtSignal(Callback):
    """Saves a checkpoint after the step in which any process received SIGUSR1, and ends all processes.

    SLURM sends it before the job's time is over. Lightning's own requeueing saves within the signal handler,
    where one process may be a step ahead of another, and they wait for each other
    (Lightning issue 21406).

    Args:
        path: Path of the checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.came = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        signal.signal(signal.SIGUSR1, self._note)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.strategy.reduce_boolean_decision(self.came, all=False):
            trainer.save_checkpoint(self.path)
            sys.exit(TRY_AGAIN)

    def _note(self, *_: Any) -> None:
        self.came = True


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path, help="CSV of the cohort")
    parser.add_argument("--output", type=Path, default=Path("trained"), help="folder that all nodes share")
    parser.add_argument("--accelerator", default="auto", help="cpu, gpu or auto")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--devices", type=int, default=1, help="number of processes per node")
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=8, help="patches per step of all processes")
    parser.add_argument("--patch-size", type=int, default=32)
    parser.add_argument("--patches-per-study", type=int, default=16, help="patches per study and epoch")
    parser.add_argument("--workers", type=int, help="number of workers per process that read patches")
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=20)
    options = parser.parse_args()
    if options.batch_size % (options.nodes * options.devices):
        parser.error(f"{options.nodes * options.devices} processes cannot share {options.batch_size} patches")
    return options


def make_trainer(options: argparse.Namespace) -> Trainer:
    strategy = DDPStrategy(gradient_as_bucket_view=True) if options.nodes * options.devices > 1 else "auto"
    best = ModelCheckpoint(
        options.output,
        filename="best",
        monitor="val_psnr",
        mode="max",
        save_last=True,
        enable_version_counter=False,  # a resumed training writes the same two files
    )
    return Trainer(
        accelerator=options.accelerator,
        num_nodes=options.nodes,
        devices=options.devices,
        strategy=strategy,
        plugins=[SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else None,
        precision=options.precision,
        max_epochs=options.epochs,
        default_root_dir=options.output,
        callbacks=[best, SaveAtSignal(options.output / LAST)],
    )


def main() -> None:
    options = parse()
    seed_everything(0, workers=True)
    trainer = make_trainer(options)
    model = mpfnl.PFNL3D(
        features=options.features,
        blocks=options.blocks,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        lr_scheduler=lambda optimizer: CosineAnnealingLR(optimizer, options.epochs),
    )
    data = mpfnl.MultiphaseDataModule(
        options.manifest,
        patch_size=options.patch_size,
        patches_per_study=options.patches_per_study,
        batch_size=options.batch_size // trainer.world_size,
        workers=options.workers,
    )
    last = options.output / LAST
    trainer.fit(model, data, ckpt_path=last if last.exists() else None, weights_only=True)
    weights = model.save_pretrained(options.output / "weights")  # the first process writes
    if isinstance(trainer.strategy, ParallelStrategy):
        trainer.strategy.barrier()  # before any other process reads them
    if trainer.is_global_zero:
        print("weights:", weights)


if __name__ == "__main__":
    main()
