"""Record of a model's training, which travels with the weights, and the recorder that fills it in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

from lightning.pytorch import Trainer
from torch import nn
from torch.optim import Optimizer

from mpfnl.models.freezing import frozen_parts
from mpfnl.samples import ReferenceNoise, TrainingData, TrainingSource
from mpfnl.window import Window

PACKAGES = ("mpfnl", "torch", "lightning")
SCORES = {"val_psnr": "PSNR (dB)", "val_ssim": "SSIM"}
"""Logged validation metrics, and their names on a model card."""


@dataclass(frozen=True)
class Score:
    """A figure of merit and its sample.

    Args:
        value: Mean of the figure.
        n: Number of cases.
        on: Description of the cases.
    """

    value: float
    n: int
    on: str


@dataclass(frozen=True)
class TrainingRecord:
    """Record of a model's training. Lightning's `fit` with this package's data module fills it in.

    Fields left empty appear as "not stated" on the model card.

    Args:
        data: Description of the scans.
        studies: Number of training studies.
        phantoms: Whether the studies include phantoms.
        patients: Number of patients among the studies, where it is known.
        degradation: Name of the degradation preset, or its description.
        window: HU window of the samples.
        patch_size: Edge of a training patch in voxels.
        batch_size: Patches a training step, of all processes together.
        steps: Number of training steps.
        phase_dropout: Probability with which each phase but the target was left out of a step.
        seed: Seed of patches and degradation.
        recipe: Further settings, such as loss and optimiser.
        versions: Versions of the packages.
        metrics: Scores of the model by name.
        notes: Notes for users.
        reference_noise: Noise of the targets; None: the strength of an enhancement does not depend on it.
        started_from: Record of the weights before, for a fine-tuning.

    >>> record = TrainingRecord(studies=48, started_from=TrainingRecord(phantoms=True))
    >>> record.saw_phantoms
    True
    """

    data: str | None = None
    studies: int | None = None
    phantoms: bool = False
    patients: int | None = None
    degradation: str | None = None
    window: Window | None = None
    patch_size: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    phase_dropout: float | None = None
    seed: int | None = None
    recipe: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Score] = field(default_factory=dict)
    notes: str | None = None
    reference_noise: ReferenceNoise | None = None
    started_from: TrainingRecord | None = None

    @property
    def saw_phantoms(self) -> bool:
        """Whether phantoms were trained on, in this training or in one before it."""
        return self.phantoms or (self.started_from is not None and self.started_from.saw_phantoms)

    @property
    def origin(self) -> str:
        """The kind of data of the training in words, where phantoms were among them; else empty.

        >>> TrainingRecord(phantoms=True).origin
        'trained on phantoms, not on patients'
        >>> TrainingRecord(phantoms=True, patients=4).origin
        'trained on phantoms and on scans of 4 patients, no clinical evidence'
        """
        if not self.saw_phantoms:
            return ""
        if patients := self.patients or (self.started_from.patients if self.started_from else None):
            return f"trained on phantoms and on scans of {patients} patients, no clinical evidence"
        return "trained on phantoms, not on patients"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of this training and of those before it, where they are known."""
        before = () if self.started_from is None else self.started_from.seeds
        return before if self.seed is None else (self.seed, *before)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> TrainingRecord:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: If it is not a record.
        """
        record = _mapping(value)
        unknown = record.keys() - _READ.keys()
        if unknown:
            raise ValueError(f"a training record has no {min(unknown)}")
        return cls(**{name: _READ[name](content) for name, content in record.items()})


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{value!r} is not a table of names and values")
    return value


def _plain(kind: type) -> Callable[[object], Any]:
    def read(value: object) -> Any:
        if isinstance(value, kind) and (kind is bool or not isinstance(value, bool)):
            return value
        raise ValueError(f"{value!r} is no {kind.__name__}")

    return read


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{value!r} is no number")


def _or_none(read: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else read(value)


def _score(value: object) -> Score:
    score = _mapping(value)
    return Score(_number(score.get("value")), _plain(int)(score.get("n")), _plain(str)(score.get("on")))


def window_from_json(value: object) -> Window:
    """The HU window of `{"level": ..., "width": ...}`.

    Raises:
        ValueError: If it is no window.
    """
    window = _mapping(value)
    return Window(_number(window.get("level")), _number(window.get("width")))


def _reference_noise(value: object) -> ReferenceNoise:
    noise = _mapping(value)
    return ReferenceNoise(_number(noise.get("hu")), _number(noise.get("exponent")))


def _table(read: Callable[[object], Any]) -> Callable[[object], dict[str, Any]]:
    return lambda value: {name: read(content) for name, content in _mapping(value).items()}


_TEXT, _COUNT = _or_none(_plain(str)), _or_none(_plain(int))
_READ: dict[str, Callable[[object], Any]] = {
    "data": _TEXT,
    "studies": _COUNT,
    "phantoms": _plain(bool),
    "patients": _COUNT,
    "degradation": _TEXT,
    "window": _or_none(window_from_json),
    "patch_size": _COUNT,
    "batch_size": _COUNT,
    "steps": _COUNT,
    "phase_dropout": _or_none(_number),
    "seed": _COUNT,
    "recipe": _table(_plain(str)),
    "versions": _table(_plain(str)),
    "metrics": _table(_score),
    "notes": _TEXT,
    "reference_noise": _or_none(_reference_noise),
    "started_from": _or_none(TrainingRecord.from_json),
}


class RecordedModel(Protocol):
    """Properties of a model that its training record states."""

    network: nn.Module
    loss: nn.Module
    window: Window
    phase_dropout: float


class Recorder:
    """Recorder of one training.

    Args:
        before: Record of the weights at its beginning; None for new ones.
    """

    def __init__(self, before: TrainingRecord | None) -> None:
        self._before = before
        self._resumed: TrainingRecord | None = None
        self._steps_elsewhere = 0

    def resume(self, record: TrainingRecord) -> None:
        """Continues the training of a checkpoint, as the same training."""
        self._before, self._resumed = record.started_from, record

    def start(self, step: int) -> None:
        """Begins to count.

        Args:
            step: Number of steps that the trainer has taken already.
        """
        done = 0 if self._resumed is None or self._resumed.steps is None else self._resumed.steps
        # A trainer that resumes continues its count; one that fits again counts the training before, too.
        self._steps_elsewhere = done - step

    def record(self, trainer: Trainer, model: RecordedModel) -> TrainingRecord:
        """The record of the training up to now.

        Args:
            trainer: Trainer of the model.
            model: Model in training.
        """
        known = TrainingRecord() if self._resumed is None else self._resumed
        data = getattr(trainer, "datamodule", None)
        if known.window is None:
            known = replace(known, window=model.window)
        if isinstance(data, TrainingSource):
            known = _of_data(known, data.training_data, trainer)
        return replace(
            known,
            phase_dropout=model.phase_dropout,
            steps=self._steps_elsewhere + trainer.global_step,
            recipe=_recipe(trainer, model),
            versions=_versions(),
            started_from=self._before,
        )


def _of_data(known: TrainingRecord, data: TrainingData, trainer: Trainer) -> TrainingRecord:
    accumulated = trainer.accumulate_grad_batches
    return replace(
        known,
        studies=data.studies,
        phantoms=data.phantoms,
        degradation=data.degradation,
        window=data.window,
        patch_size=data.patch_size,
        batch_size=data.batch_size * trainer.world_size * accumulated,
        seed=data.seed,
        metrics=_scores(data, trainer),
    )


def _scores(data: TrainingData, trainer: Trainer) -> dict[str, Score]:
    """The scores of the last validation, if it included all validation patches."""
    if str(trainer.limit_val_batches) != "1.0":  # 1 is one batch, 1.0 is all of them
        return {}
    logged = {name: trainer.callback_metrics.get(name) for name in SCORES}
    values = {name: float(value) for name, value in logged.items() if value is not None}
    on = (
        f"validation patches of {data.patch_size}^3 voxels of the training cohort, degraded by "
        f"{data.degradation}"
    )
    return {
        SCORES[name]: Score(value, data.val_patches, on)
        for name, value in values.items()
        if math.isfinite(value)
    }


def _recipe(trainer: Trainer, model: RecordedModel) -> dict[str, str]:
    settings = {
        "loss": type(model.loss).__name__,
        "optimiser": _optimizers(trainer.optimizers),
        "precision": str(trainer.precision),
        "frozen parts": ", ".join(frozen_parts(model.network)),
    }
    return {name: text for name, text in settings.items() if text}


def _optimizers(optimizers: Sequence[Optimizer]) -> str:
    return "; ".join(f"{type(optimizer).__name__}, {_rates(optimizer)}" for optimizer in optimizers)


def _rates(optimizer: Optimizer) -> str:
    rates = [
        (group.get("name", ""), float(group.get("max_lr", group.get("initial_lr", group["lr"]))))
        for group in optimizer.param_groups
    ]
    return "learning rate " + ", ".join(f"{rate:g} {name}".rstrip() for name, rate in rates)


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a source tree
            continue
    return versions
