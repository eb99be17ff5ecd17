"""Trains one model of a study on a budget, so that it can be stopped at any moment and gone on with."""

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
from mpfnl.errors import InputError
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

PACKAGES = ("mpfnl", "torch", "lightning", "torchio", "numpy")
SETTINGS = "settings"
METRICS = "metrics.csv"  # as CSVLogger names it
_UNFINISHED, _CHECKPOINT, _STARTED = "unfinished", "last", "started.json"
_EPOCHS_SHOWN = 20  # at most so many progress bars and montages a training


@dataclass(frozen=True)
class TrainingSet:
    """The studies that models are trained on, and how they are made worse.

    Args:
        manifest: The cohort.
        degradation: What each phase is degraded with.

    Raises:
        InputError: If there is no study to train on, or none to validate.
    """

    manifest: Manifest
    degradation: Preset = SECOND_ORDER_V1

    def __post_init__(self) -> None:
        self.manifest.needed(Split.TRAIN)
        self.manifest.needed(Split.VAL)

    @property
    def studies(self) -> tuple[Study, ...]:
        """Those of the split `train`, without those whose preparation failed."""
        return self.manifest.needed(Split.TRAIN)

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that change with the studies, their order and their scans' content."""
        scans = [
            [study.study_id, *(scan_digest(study.file(phase)) for phase in study.phases)]
            for study in self.studies
        ]
        return hashlib.sha256(json.dumps(scans).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TrainingRun:
    """The training of one model: its weights, what it was made with, and whether it is done.

    `weights/NAME/` holds the weights of the last epoch, `training/NAME.json` the settings, parameters and
    seconds a step of a finished training, `training/NAME/` its log and montages. A checkpoint is written
    after each epoch and kept until the training is done.

    Args:
        candidate: Which model.
        data: On what.
        folder: The study's folder.
        budget: With how much.
        machine: Where.
    """

    candidate: Candidate
    data: TrainingSet
    folder: Path
    budget: TrainingBudget
    machine: Machine

    @property
    def weights(self) -> Path:
        """The weights folder."""
        return self.folder / "weights" / self.candidate.name

    @property
    def record(self) -> Path:
        """What says that the training is done, and with which settings."""
        return self.folder / "training" / f"{self.candidate.name}.json"

    @property
    def log(self) -> Path:
        """The folder of the metrics and montages, and of the checkpoint while it is not done."""
        return self.folder / "training" / self.candidate.name

    @property
    def steps(self) -> int:
        """Training steps in all."""
        return self.budget.epochs * self.budget.steps_per_epoch(len(self.data.studies))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What defines the weights, as JSON values; the same settings are not trained twice."""
        model = self.candidate.model(self.steps)
        described = {"model": type(model).__name__, "config": model.config} | asdict(self.budget)
        rate = asdict(self.candidate.rate)
        precision = str(self.machine.computed_in).removeprefix("torch.")
        data = {"degradation": self.data.degradation.name, "scans_sha256": self.data.digest}
        how = {"rate": rate, "clip_norm": self.candidate.clip_norm, "precision": precision}
        if self.candidate.start_from is not None:
            digest = file_digest(find_weights(self.candidate.start_from) / WEIGHTS)
            how["start_from"] = {"weights": self.candidate.start_from, "sha256": digest}
        made: dict[str, Any] = json.loads(json.dumps(described | how | data))  # as they are read again
        return made

    @property
    def finished(self) -> bool:
        """Whether the weights of these settings are there."""
        there = all((self.weights / name).is_file() for name in (CONFIG, WEIGHTS))
        return there and _read(self.record).get(SETTINGS) == self.settings

    def other_settings(self) -> list[str]:
        """The settings in which what lies in the folder, finished or not, differs from this training."""
        found = _read(self.record) or _read(self._started)
        settings = found.get(SETTINGS, self.settings)
        return [name for name, value in self.settings.items() if settings.get(name) != value]

    def train(self) -> Path:
        """Trains the model, or goes on after the last epoch of a training with the same settings.

        On one machine with one number of threads, a training that was interrupted ends in the same weights,
        bit for bit, as one that was not.

        Returns:
            The weights folder.

        Raises:
            InputError: If a file cannot be used, or the training diverged.
            KeyboardInterrupt: If it was interrupted.
        """
        name = self.candidate.name
        if self.finished:
            _say(f"{name}: {self.weights} is there, not trained again")
            return self.weights
        checkpoint = self._prepare()
        seed_everything(self.budget.seed, workers=True, verbose=False)
        model = self.candidate.model(self.steps)
        begin = f"from {self.candidate.start_from}" if self.candidate.start_from else "from new weights"
        _say(f"{name}: {_parameters(model):,} parameters, {self.steps} steps {begin}")
        if checkpoint is not None:
            _say(f"{name}: goes on from {checkpoint}")
        epochs = EpochRecord(name)
        self._fit(model, epochs, checkpoint)
        model.save_pretrained(self.weights)
        told = {"studies": len(self.data.studies), "steps": self.steps, "parameters": _parameters(model)}
        _write(self.record, self.settings, told | epochs.told() | self.machine.describe())
        shutil.rmtree(self._started.parent)
        return self.weights

    @property
    def _started(self) -> Path:
        return self.log / _UNFINISHED / _STARTED

    def _prepare(self) -> Path | None:
        """Makes way for the training; the checkpoint to go on from, if there is one of these settings."""
        self.record.unlink(missing_ok=True)
        checkpoint = self._started.with_name(f"{_CHECKPOINT}.ckpt")
        if _read(self._started).get(SETTINGS) == self.settings and checkpoint.is_file():
            _check_readable(checkpoint)
            _keep_metrics(self.log)
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
            except SystemExit:  # so Lightning ends on Ctrl-C, and deaf to the next one
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
            workers=self.machine.workers,
            seed=self.budget.seed,
        )

    def _trainer(self, epochs: EpochRecord) -> Trainer:
        device, shown = self.machine.device, self.budget.epochs <= _EPOCHS_SHOWN
        keep = ModelCheckpoint(
            dirpath=self._started.parent,
            filename=_CHECKPOINT,
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        montage = MontageCallback(every_n_epochs=max(1, self.budget.epochs // _EPOCHS_SHOWN))
        callbacks: list[Callback] = [epochs, montage, RichProgressBar(leave=shown), keep]
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
    """A record; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise InputError(f"{path}: is not the record of a training; delete it to train again") from None
    return found if isinstance(found, dict) else {}


def _write(path: Path, settings: dict[str, Any], told: dict[str, Any] | None = None) -> None:
    """Writes a record: what defines the weights, and what else there is to tell."""
    versions = {package: version(package) for package in PACKAGES}
    record = {SETTINGS: settings, **(told or {}), "versions": versions}
    write_text(path, json.dumps(record, indent=2) + "\n")


def _check_readable(checkpoint: Path) -> None:
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError):
        raise InputError(
            f"{checkpoint}: is not a whole checkpoint; delete it to train from the first epoch"
        ) from None


def _keep_metrics(log: Path) -> None:
    """Renames the metrics of an interrupted training, which a new log would delete."""
    if (log / METRICS).is_file():
        parts = len(list(log.glob("metrics.*.csv")))
        (log / METRICS).replace(log / f"metrics.{parts + 1}.csv")


def _say(line: str) -> None:
    Console().print(line, markup=False, highlight=False, soft_wrap=True)
