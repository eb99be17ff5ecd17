"""Base of all degradations: numbers in mm and HU, applied to volumes and recorded as JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeAlias

import torch
from torch import Tensor

from mpfnl.errors import ConflictError, FormatError
from mpfnl.transforms.degradation.random_field import MAX_SEED
from mpfnl.transforms.seeds import Draws, noise_seed

Triple: TypeAlias = tuple[float, float, float]
Json: TypeAlias = dict[str, Any]

MOST_HU = 1e5
"""Values above this are not valid HU."""

MOST_MM = 100.0
"""Largest width of a blur, voxel, slice or motion in mm."""

_REGISTRY: dict[str, type[Degradation]] = {}


@dataclass(frozen=True)
class Degradation(ABC):
    """One degradation of a CT volume, with every number that it needs.

    A subclass is a frozen dataclass of plain numbers, texts and tuples in mm and HU. Its class attribute
    `kind` is the name under which it is recorded; defining the class registers that name, so records of a
    user's own degradation are read back like those of the package. A field named `seed` is the seed of the
    noise. Numbers are checked in `__post_init__`, as records are also written by hand.

    A degradation may stand in a `Preset` among the stages: it is then applied with the same numbers to
    every scan, with noise of each scan's own.

    >>> from mpfnl.transforms.degradation.low_dose import LowDose
    >>> quarter = LowDose(dose_fraction=0.25, seed=7)
    >>> quarter.describe()
    '25 % of the dose'
    >>> Degradation.from_json(quarter.to_json()) == quarter
    True
    """

    kind: ClassVar[str]
    """Name under which the degradation is recorded."""

    whole_slices: ClassVar[bool] = False
    """Whether the degradation needs whole cross-sections of the body; if not, it works on patches too."""

    margin: ClassVar[int] = 0
    """Voxels around a patch that are degraded with it, so that its border is as in the whole scan."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        kind = cls.__dict__.get("kind")
        if kind is None:
            return
        other = _REGISTRY.get(kind, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ConflictError(
                f"degradation {cls.__qualname__}: the kind {kind!r} is that of {other.__qualname__}; "
                "choose another kind"
            )
        _REGISTRY[kind] = cls

    @abstractmethod
    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Applies the degradation to one volume.

        Args:
            hu: Volume or patch `(x, y, z)` in HU, float32, on any device; never changed in place.
            spacing: Voxel spacing in mm along x, y, z.

        Returns:
            The degraded volume of the same shape; the input itself where there is nothing to do.
        """

    @classmethod
    def apply_each(cls, degradations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Applies to each volume of a batch its own degradation of this kind.

        A subclass overrides this where all volumes can be degraded at once.

        Args:
            degradations: One for each volume.
            hu: Volumes `(batch, x, y, z)` in HU, float32.
            spacings: Voxel spacing of each volume in mm along x, y, z.
        """
        each = zip(degradations, hu, spacings, strict=True)
        return torch.stack([degradation.apply(volume, spacing) for degradation, volume, spacing in each])

    def sample(self, draws: Draws) -> list[Degradation]:
        """The degradation as a stage of a preset: itself, with a noise seed drawn for the scan."""
        if any(field.name == "seed" for field in fields(self)):
            return [replace(self, **{"seed": noise_seed(draws)})]
        return [self]

    def describe(self) -> str:
        """A short description for people, such as "blur 1.4 mm"."""
        return self.kind.replace("_", " ")

    def to_json(self) -> Json:
        """The kind and the numbers as plain JSON; `from_json` is the inverse."""
        return {"kind": self.kind} | {name: _plain(value) for name, value in asdict(self).items()}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Degradation:
        """Reads a degradation of any registered kind.

        Args:
            record: Plain JSON that `to_json` wrote.

        Raises:
            FormatError: The kind is not registered, or the numbers are not valid for the kind.
        """
        cls = _REGISTRY.get(str(record.get("kind")))
        if cls is None:
            known = ", ".join(_REGISTRY)
            raise FormatError(
                f"unknown degradation {record.get('kind')!r}: use one of {known}, or import the module that "
                "defines it"
            )
        numbers = {name: value for name, value in record.items() if name != "kind"}
        try:
            return cls(**numbers)
        except (TypeError, ValueError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise FormatError(f"bad degradation {cls.kind!r} (it takes {names}): {error}") from error


def registered_degradations() -> Mapping[str, type[Degradation]]:
    """Every degradation by its kind: the package's and those that a user has defined."""
    return MappingProxyType(_REGISTRY)


def check(name: str, value: object, low: float, high: float) -> None:
    """Raises ValueError unless a value is a number in a range."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    require(number and low <= value <= high, f"{name} must be a number from {low:g} to {high:g}")  # type: ignore[operator]


def triple(name: str, values: object, low: float, high: float) -> Triple:
    """Three numbers in a range as a tuple, from any sequence that JSON made of them.

    Raises:
        ValueError: The value is not a sequence of three such numbers.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ValueError(f"{name} must be three numbers, along x, y and z")
    for value in values:
        check(name, value, low, high)
    x, y, z = values
    return x, y, z


def require(condition: bool, message: str) -> None:
    """Raises ValueError with the message unless the condition holds."""
    if not condition:
        raise ValueError(message)


def checked_seed(seed: object) -> int:
    """A seed of `normal_field` as an `int`.

    Raises:
        ValueError: The value is not a valid seed.
    """
    whole = int(seed) if isinstance(seed, Integral) and not isinstance(seed, bool) else -1
    require(0 <= whole <= MAX_SEED, "a noise's seed must be a whole number from 0 to 2^63 - 1")
    return whole


def by(lengths: Iterable[float]) -> str:
    """Lengths as text, such as "2 x 2 x 5"."""
    return " x ".join(f"{length:.3g}" for length in lengths)


def _plain(value: object) -> object:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value.value if isinstance(value, StrEnum) else value
