"""Training of one model on a budget, which can be interrupted and resumed at any moment."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import Manifest, Split, Study
from mpfnl.errors import DamagedError, FormatError
from mpfnl.evaluation.provenance import scan_digest
from mpfnl.experiments.budget import Machine, TrainingBudget
from mpfnl.experiments.candidates import Candidate
from mpfnl.experiments.epochs import EpochRecord, quiet_lightning
from mpfnl.files import file_digest, write_text
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.montage import MontageCallback
from mpfnl.models.sources import find_weights
from mpfnl.models.weights import CONFIG, WEIGHTS
from mpfnl.transforms.degradation import SECOND_ORDER_V1, Preset
from mpfnl.transforms.insertion import StructureInsertion

PACKAGES = ("mpfnl", "torch", "lightning", "torchio", "numpy")
SETTINGS = "settings"
METRICS = "metrics.csv"  # as CSVLogger names it
_UNFINISHED, _CHECKPOINT, _STARTED = "unfinished", "last", "started.json"
_EPOCHS_SHOWN = 20  # maximum of progress bars and montages of a training


@dataclass(frozen=True)
class TrainingSet:
    """Training studies and their degradation.

    Args:
        manifest: Manifest of the cohort.
        degradation: Degradation of each phase.
        insertion: Small structures to insert into the training patches; None for none.

    Raises:
        InputError: The cohort has no study in the split train, or none in val.
    """

    manifest: Manifest
    degradation: Preset = SECOND_ORDER_V1
    insertion: StructureInsertion | None = None

    def __post_init__(self) -> None:
        self.manifest.needed(Split.TRAIN)
        self.manifest.needed(Split.VAL)

    @property
    def studies(self) -> tuple[Study, ...]:
        """Studies of the split `train`, without those whose preparation failed."""
        return self.manifest.needed(Split.TRAIN)

    @cached_property
    def digest(self) -> str:
        """Hash of the studies, their order and the content of their scans: 16 hexadecimal digits."""
        scans = [
            [study.study_id, *(scan_digest(study.file(phase)) for phase in study.phases)]
            for study in self.studies
        ]
        return hashlib.sha256(json.dumps(scans).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TrainingRun:
    """Training of one candidate.

    `weights/NAME/` holds the weights of the last epoch; `training/NAME.json` the settings, the number of
    parameters and the seconds per step of a finished training; `training/NAME/` its log and montages. A
    checkpoint is written after each epoch and removed at the end.

    Args:
        candidate: Model to train.
        data: Training studies and their degradation.
        folder: Output folder of the experiment.
        budget: Training budget (epochs, patches, batch).
        machine: Device and precision.
    """

    candidate: Candidate
    data: TrainingSet
    folder: Path
    budget: TrainingBudget
    machine: Machine

    @property
    def weights(self) -> Path:
        """Weights folder."""
        return self.folder / "weights" / self.candidate.name

    @property
    def record(self) -> Path:
        """Record of a finished training, with its settings."""
        return self.folder / "training" / f"{self.candidate.name}.json"

    @property
    def log(self) -> Path:
        """Folder of the metrics and montages, and of the checkpoint of an unfinished training."""
        return self.folder / "training" / self.candidate.name

    @property
    def steps(self) -> int:
        """Total number of training steps."""
        return self.budget.epochs * self.budget.steps_per_epoch(len(self.data.studies))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Settings that define the weights, as JSON values; the same settings are not trained twice."""
        model = self.candidate.model(self.steps)
        settings = {"model": model.name, "config": model.config} | asdict(self.budget)
        rate = asdict(self.candidate.rate)
        precision = str(self.machine.computed_in).removeprefix("torch.")
        data = {"degradation": self.data.degradation.name, "scans_sha256": self.data.digest}
        method = {"rate": rate, "clip_norm": self.candidate.clip_norm, "precision": precision}
        if self.data.insertion is not None:
            method["insertion"] = asdict(self.data.insertion)
        if self.candidate.start_from is not None:
            digest = file_digest(find_weights(self.candidate.start_from) / WEIGHTS)
            method["start_from"] = {"weights": self.candidate.start_from, "sha256": digest}
        plain: dict[str, Any] = json.loads(json.dumps(settings | method | data))  # as a record holds them
        return plain

    @property
    def finished(self) -> bool:
        """Whether the weights of these settings exist."""
        complete = all((self.weights / name).is_file() for name in (CONFIG, WEIGHTS))
        return complete and _read(self.record).get(SETTINGS) == self.settings

    def other_settings(self) -> list[str]:
        """Settings in which a training in the folder, finished or not, differs from this one."""
        record = _read(self.record) or _read(self._started)
        settings = record.get(SETTINGS, self.settings)
        return [name for name, value in self.settings.items() if settings.get(name) != value]

    def train(self) -> Path:
        """Trains the model, or resumes a training with the same settings after its last epoch.

        On one machine with one number of threads, an interrupted and an uninterrupted training end in the
        same weights, bit for bit.

        Returns:
            Weights folder.

        Raises:
            InputError: A file cannot be used, or the training diverged.
            KeyboardInterrupt: The training was interrupted.
        """
        name = self.candidate.name
        if self.finished:
            _print(f"{name}: {self.weights} exists, not trained again")
            return self.weights
        checkpoint = self._prepare()
        seed_everything(self.budget.seed, workers=True, verbose=False)
        model = self.candidate.model(self.steps)
        start = f"from {self.candidate.start_from}" if self.candidate.start_from else "from new weights"
        _print(f"{name}: {_parameters(model):,} parameters, {self.steps} steps {start}")
        if checkpoint is not None:
            _print(f"{name}: resumed from {checkpoint}")
        epochs = EpochRecord(name)
        self._fit(model, epochs, checkpoint)
        model.save_pretrained(self.weights)
        facts = {"studies": len(self.data.studies), "steps": self.steps, "parameters": _parameters(model)}
        _write(self.record, self.settings, facts | epochs.summary() | self.machine.describe())
        shutil.rmtree(self._started.parent)
        return self.weights

    @property
    def _started(self) -> Path:
        return self.log / _UNFINISHED / _STARTED

    def _prepare(self) -> Path | None:
        """Prepares the log folder; the checkpoint to resume from, if there is one of these settings."""
        self.record.unlink(missing_ok=True)
        checkpoint = self._started.with_name(f"{_CHECKPOINT}.ckpt")
        if _read(self._started).get(SETTINGS) == self.settings and checkpoint.is_file():
            _check_readable(checkpoint)
            _rename_metrics(self.log)
            return checkpoint
        shutil.rmtree(self.log, ignore_errors=True)
        self._started.parent.mkdir(parents=True)
        _write(self._started, self.settings)
        return None

    def _fit(self, model: EnhancementModule, epochs: EpochRecord, checkpoint: Path | None) -> None:
        with quiet_lightning():
            trainer = self._trainer(epochs)
            data = self._data(model)
            interrupt = signal.getsignal(signal.SIGINT)
            try:
                trainer.fit(model, data, ckpt_path=checkpoint, weights_only=True)
            except SystemExit:  # Lightning's end on Ctrl-C, after which it ignores the next one
                signal.signal(signal.SIGINT, interrupt)
                raise KeyboardInterrupt from None

    def _data(self, model: EnhancementModule) -> MultiphaseDataModule:
        return MultiphaseDataModule(
            self.data.manifest.path,
            phases=model.phases,
            target=model.target,
            batch_size=self.budget.batch_size,
            patch_size=self.budget.patch_size,
            patches_per_study=self.budget.patches_per_study,
            degradation=self.data.degradation,
            insertion=self.data.insertion,
            workers=self.machine.workers,
            seed=self.budget.seed,
        )

    def _trainer(self, epochs: EpochRecord) -> Trainer:
        device, shown = self.machine.device, self.budget.epochs <= _EPOCHS_SHOWN
        checkpoints = ModelCheckpoint(
            dirpath=self._started.parent,
            filename=_CHECKPOINT,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        montage = MontageCallback(every_n_epochs=max(1, self.budget.epochs // _EPOCHS_SHOWN))
        callbacks: list[Callback] = [epochs, montage, RichProgressBar(leave=shown), checkpoints]
        return Trainer(
            max_epochs=self.budget.epochs,
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision="bf16-mixed" if self.machine.computed_in is torch.bfloat16 else "32-true",
            deterministic=device.type == "cuda",
            gradient_clip_val=self.candidate.clip_norm,
            logger=CSVLogger(self.log.parent, name=self.log.name, version=""),
            callbacks=callbacks,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=min(10, self.steps // self.budget.epochs),
        )


def _parameters(model: EnhancementModule) -> int:
    return sum(parameter.numel() for parameter in model.network.parameters())


def _read(path: Path) -> dict[str, Any]:
    """A record; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise FormatError(f"{path}: is not the record of a training; delete it to train again") from None
    return record if isinstance(record, dict) else {}


def _write(path: Path, settings: dict[str, Any], facts: dict[str, Any] | None = None) -> None:
    """Writes a record: settings, further facts and versions."""
    versions = {package: version(package) for package in PACKAGES}
    record = {SETTINGS: settings, **(facts or {}), "versions": versions}
    write_text(path, json.dumps(record, indent=2) + "\n")


def _check_readable(checkpoint: Path) -> None:
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        raise DamagedError(
            f"{checkpoint}: is not a whole checkpoint; delete it to train from the first epoch"
        ) from None


def _rename_metrics(log: Path) -> None:
    """Renames the metrics of an interrupted training, which a new log would overwrite."""
    if (log / METRICS).is_file():
        parts = len(list(log.glob("metrics.*.csv")))
        (log / METRICS).replace(log / f"metrics.{parts + 1}.csv")


def _print(line: str) -> None:
    Console().print(line, markup=False, highlight=False, soft_wrap=True)
