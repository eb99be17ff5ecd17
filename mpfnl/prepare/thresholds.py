"""From what on the quality of a registration is doubtful, and from what on it is bad."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mpfnl.data.manifest import Quality


@dataclass(frozen=True)
class Limits:
    """Where a number begins to be doubtful and where it begins to be bad; the order tells the direction.

    Args:
        warn: From here on towards `fail`: to be looked at.
        fail: From here on: not to be used. None: never for this number alone.
        above: Whether large numbers are the bad ones.
    """

    warn: float
    fail: float | None
    above: bool

    def __post_init__(self) -> None:
        if self.fail is not None and self._beyond(self.warn, self.fail):
            raise ValueError(f"warn {self.warn:g} and fail {self.fail:g} are the wrong way round")

    def judge(self, value: float) -> Quality:
        """The verdict on a number; NaN, where nothing could be measured, fails."""
        if math.isnan(value):
            return Quality.FAIL
        if self.fail is not None and self._beyond(value, self.fail):
            return Quality.FAIL
        return Quality.WARN if self._beyond(value, self.warn) else Quality.PASS

    def _beyond(self, value: float, limit: float) -> bool:
        return value > limit if self.above else value < limit


@dataclass(frozen=True)
class Thresholds:
    """The limits of each number that the verdict is made of.

    How they were chosen, on phantoms, stands in `docs/quality.md`.

    Args:
        coverage: Share of the body that the phase shows.
        body_overlap: Dice of the two bodies where the phase reaches.
        similarity: Normalised mutual information.
        mismatch: Share of the structures inside the body that differ.
        folding: Share of the body where the displacement folds.
        displacement_p95_mm: What 95 % of the body moved less than. That much is no breath any more: a wrong
            position, brought back, or a wrong study.
    """

    coverage: Limits = Limits(0.8, 0.5, above=False)
    body_overlap: Limits = Limits(0.95, 0.9, above=False)
    similarity: Limits = Limits(1.23, 1.20, above=False)
    mismatch: Limits = Limits(0.18, 0.21, above=True)
    folding: Limits = Limits(0.001, 0.01, above=True)
    displacement_p95_mm: Limits = Limits(45.0, None, above=True)
