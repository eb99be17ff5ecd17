"""Stages of a preset: the ranges in mm and HU that degradations are drawn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np

from mpfnl.transforms.seeds import Draws

if TYPE_CHECKING:
    from mpfnl.transforms.degradation.base import Degradation

Range: TypeAlias = tuple[float, float]
"""Lower and upper bound of a uniform distribution."""

HALF_A_VOXEL: Range = (-0.5, 0.5)
"""Range of the place of a coarse grid, in its voxels: it is chance, in a scanner as in a patch."""

DECIMALS = 4
"""Decimals of recorded numbers: finer than anything that shows in a scan."""


class Stage(ABC):
    """One step of a preset: it draws the numbers of its degradations from ranges.

    A subclass is a frozen dataclass of ranges. Numbers that the scanner, its protocol and the patient's
    implants decide come from `draws.protocol`, noise and motion from `draws.own` (see `Draws`).
    """

    degradations: ClassVar[tuple[type[Degradation], ...]]
    """Kinds of degradation that the stage may draw."""

    @property
    def whole_slices(self) -> bool:
        """Whether the stage needs whole cross-sections of the body."""
        return any(kind.whole_slices for kind in self.degradations)

    @property
    def margin(self) -> int:
        """Voxels around a patch that are degraded with it."""
        return max(kind.margin for kind in self.degradations)

    @abstractmethod
    def sample(self, draws: Draws) -> list[Degradation]:
        """Draws the degradations; an empty list where chance leaves the stage out."""


def check_probabilities(*probabilities: float) -> None:
    """Raises ValueError unless all probabilities lie between 0 and 1."""
    if not all(0 <= probability <= 1 for probability in probabilities):
        raise ValueError("a stage's probabilities lie between 0 and 1")


def check_ranges(*ranges: Range) -> None:
    """Raises ValueError unless all ranges are (low, high) with 0 <= low <= high."""
    if not all(0 <= low <= high for low, high in ranges):
        raise ValueError("a stage's ranges are (low, high) with 0 <= low <= high")


def chance(probability: float, rng: np.random.Generator) -> bool:
    """True with a probability."""
    return bool(rng.random() < probability)


def uniform(bounds: Range, rng: np.random.Generator) -> float:
    """A number drawn uniformly from a range, rounded to `DECIMALS`."""
    return round(float(rng.uniform(*bounds)), DECIMALS)
