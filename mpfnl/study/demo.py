"""The whole study on phantoms: a cohort, two trained models, Table I and the report."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import read_manifest
from mpfnl.data.phantom import SMALL, SplitCounts, write_cohort
from mpfnl.files import write_text
from mpfnl.inference.tiling import Tiling, preferred_precision
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.loading import load_model
from mpfnl.models.montage import MontageCallback
from mpfnl.models.pfnl3d import PFNL3D
from mpfnl.models.rcan3d import RCAN3D
from mpfnl.study.evaluate import EvaluateOptions
from mpfnl.study.run import run_evaluation

NOTICE = (
    "Phantoms, not patients: simulated anatomy, simulated degradation, small networks trained for minutes. "
    "These figures show that the software works; they say nothing about patients."
)


@dataclass(frozen=True)
class DemoSettings:
    """How large the demonstration is; both models are trained on the same number of patches.

    Args:
        patients: Phantoms for training, validation and testing.
        misalignment: How far their phases lie apart, as a share of what was measured between real phases
            before registration; an assumption of what registration leaves.
        epochs: Of training.
        patches_per_study: Training patches a study and epoch.
        batch_size: Patches a step.
        patch_size: Edge of a patch in voxels.
    """

    patients: SplitCounts = field(default_factory=lambda: SplitCounts(train=14, val=2, test=8))
    misalignment: float = 0.2
    epochs: int = 8
    patches_per_study: int = 10
    batch_size: int = 2
    patch_size: int = 32

    @property
    def steps(self) -> int:
        """Training steps in all."""
        return self.epochs * (self.patients.train * self.patches_per_study // self.batch_size)


def run_demo(folder: Path, seed: int = 0, settings: DemoSettings | None = None) -> None:
    """Makes phantoms, trains both models, and evaluates them on the held-out phantoms.

    Started again in the same folder it goes on from what is finished.

    Args:
        folder: For everything that it makes: `cohort/`, `training/`, `weights/`, `evaluation/`.
        seed: Of the phantoms, the degradation and the training.
        settings: How large it is.
    """
    settings = settings or DemoSettings()
    console = Console()
    folder.mkdir(parents=True, exist_ok=True)
    console.rule("1 of 3: phantoms")
    config = replace(SMALL, misalignment=settings.misalignment)
    manifest = write_cohort(
        folder / "cohort", len(settings.patients.names()), seed, config, settings.patients, progress=True
    )
    models = _models(settings)
    console.rule("2 of 3: training")
    with _quiet_lightning():
        for name, make in models.items():
            _train(name, make, manifest, folder, seed, settings)
    console.rule("3 of 3: the held-out phantoms")
    loaded = {name: load_model(folder / "weights" / name) for name in models}
    options = EvaluateOptions(seed=seed, tiling=Tiling(tile=48, overlap=8), progress=True)
    run_evaluation(read_manifest(manifest), loaded, folder / "evaluation", options, NOTICE)


def _models(settings: DemoSettings) -> Mapping[str, Callable[[], EnhancementModule]]:
    def one_cycle(rate: float) -> Callable[[Optimizer], LRScheduler]:
        return lambda optimizer: OneCycleLR(optimizer, rate, total_steps=settings.steps, pct_start=0.1)

    # Rates that trained steadily on phantoms of another seed (docs/demo.md).
    return {
        "RCAN3D": lambda: RCAN3D(
            channels=16, groups=2, blocks=2, lr_scheduler=one_cycle(3e-3), lr_interval="step"
        ),
        "PFNL3D": lambda: PFNL3D(features=16, blocks=3, lr_scheduler=one_cycle(2e-3), lr_interval="step"),
    }


def _train(
    name: str,
    make: Callable[[], EnhancementModule],
    manifest: Path,
    folder: Path,
    seed: int,
    settings: DemoSettings,
) -> None:
    weights = folder / "weights" / name
    console = Console()
    seed_everything(seed, workers=True, verbose=False)
    model = make()
    recipe = json.dumps({"seed": seed, "config": model.config} | asdict(settings), indent=2) + "\n"
    record = folder / "training" / f"{name}.json"
    if record.is_file() and record.read_text(encoding="utf-8") == recipe:
        console.print(f"{name}: {weights} is there, not trained again")
        return
    # An evaluation that is there is of other weights.
    shutil.rmtree(folder / "evaluation", ignore_errors=True)
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    console.print(f"{name}: {parameters:,} parameters, {settings.steps} steps")
    cuda = torch.cuda.is_available()
    data = MultiphaseDataModule(
        manifest,
        phases=model.phases,
        target=model.target,
        batch_size=settings.batch_size,
        patch_size=settings.patch_size,
        patches_per_study=settings.patches_per_study,
        workers=0,
        seed=seed,
    )
    bf16 = preferred_precision(torch.device("cuda" if cuda else "cpu")) is torch.bfloat16
    trainer = Trainer(
        max_epochs=settings.epochs,
        accelerator="cuda" if cuda else "cpu",
        devices=1,
        precision="bf16-mixed" if bf16 else "32-true",
        logger=CSVLogger(folder / "training", name=name, version=""),
        callbacks=[MontageCallback(), RichProgressBar(leave=True)],
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        log_every_n_steps=min(10, settings.steps // settings.epochs),
    )
    trainer.fit(model, data)
    model.save_pretrained(weights)
    write_text(record, recipe)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keeps hardware notices and advice out of the demonstration."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Samples are made in this process, which is what two cores want; Lightning advises otherwise.
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # inside Lightning
            yield
    finally:
        logger.setLevel(level)
