"""What a model was trained on, and how it scored: it travels with the weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mpfnl.window import ABDOMEN, Window


@dataclass(frozen=True)
class Score:
    """One figure of merit, with what it was measured on.

    Args:
        value: The figure.
        n: How many were averaged.
        on: What they are.
    """

    value: float
    n: int
    on: str


@dataclass(frozen=True)
class TrainingRecord:
    """What a model was trained on. Lightning's `fit` with the data module of this package fills it in.

    What nobody filled in is None or empty, and the model card says so.

    Args:
        data: What the scans are, in words.
        studies: How many there were to train on.
        phantoms: Whether there were phantoms among them.
        degradation: What the phases were degraded with: the name of a preset, or words.
        window: The HU window of the samples.
        patch_size: Edge of a training patch in voxels.
        batch_size: Patches a training step, of all processes together.
        steps: Training steps.
        phase_dropout: Probability with which each phase but the target was left out of a step.
        seed: Of patches and degradation.
        recipe: Further settings, such as loss and optimiser.
        versions: Of the packages.
        metrics: How the model scores, by name.
        notes: Anything else that a user must know.
        started_from: What the weights were trained on before, where this was a fine-tuning.
    """

    data: str | None = None
    studies: int | None = None
    phantoms: bool = False
    degradation: str | None = None
    window: Window = ABDOMEN
    patch_size: int | None = None
    batch_size: int | None = None
    steps: int | None = None
    phase_dropout: float | None = None
    seed: int | None = None
    recipe: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Score] = field(default_factory=dict)
    notes: str | None = None
    started_from: TrainingRecord | None = None

    @property
    def saw_phantoms(self) -> bool:
        """Whether phantoms were trained on, now or before a fine-tuning."""
        return self.phantoms or (self.started_from is not None and self.started_from.saw_phantoms)

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
        """Reads what `to_json` gave.

        Raises:
            ValueError: If it is not a record.
        """
        given = _mapping(value)
        unknown = given.keys() - _READ.keys()
        if unknown:
            raise ValueError(f"a training record has no {min(unknown)}")
        return cls(**{name: _READ[name](content) for name, content in given.items()})


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
    given = _mapping(value)
    return Score(_number(given.get("value")), _plain(int)(given.get("n")), _plain(str)(given.get("on")))


def _window(value: object) -> Window:
    given = _mapping(value)
    return Window(_number(given.get("level")), _number(given.get("width")))


def _table(read: Callable[[object], Any]) -> Callable[[object], dict[str, Any]]:
    return lambda value: {name: read(content) for name, content in _mapping(value).items()}


_TEXT, _COUNT = _or_none(_plain(str)), _or_none(_plain(int))
_READ: dict[str, Callable[[object], Any]] = {
    "data": _TEXT,
    "studies": _COUNT,
    "phantoms": _plain(bool),
    "degradation": _TEXT,
    "window": _window,
    "patch_size": _COUNT,
    "batch_size": _COUNT,
    "steps": _COUNT,
    "phase_dropout": _or_none(_number),
    "seed": _COUNT,
    "recipe": _table(_plain(str)),
    "versions": _table(_plain(str)),
    "metrics": _table(_score),
    "notes": _TEXT,
    "started_from": _or_none(TrainingRecord.from_json),
}
