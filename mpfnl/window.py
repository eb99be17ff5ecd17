"""HU windows, and the HU that mark air and body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

AIR_HU = -1024
"""What lies outside of every scan: the lowest value that CT scanners measure."""

BODY_HU = -300
"""Darker voxels are air or lung."""

Intensities = TypeVar("Intensities", "Tensor", "ndarray", float)


@dataclass(frozen=True)
class Window:
    """An HU window, mapped linearly to [0, 1] and clipped.

    Args:
        level: Centre of the window in HU.
        width: Width of the window in HU, positive.
    """

    level: float = 50.0
    width: float = 450.0

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"the window's width is {self.width} HU; it must be positive")

    @property
    def lower(self) -> float:
        """The HU that maps to 0."""
        return self.level - self.width / 2

    @property
    def upper(self) -> float:
        """The HU that maps to 1."""
        return self.level + self.width / 2

    def normalize(self, hu: Intensities) -> Intensities:
        """Maps HU to [0, 1], clipped; any shape, a tensor, an array or a number."""
        scaled = (hu - self.lower) / self.width
        if isinstance(scaled, (int, float)):
            return min(max(scaled, 0.0), 1.0)
        return scaled.clip(0.0, 1.0)

    def denormalize(self, unit: Intensities) -> Intensities:
        """Maps [0, 1] back to HU; the inverse of `normalize` inside the window."""
        return unit * self.width + self.lower


ABDOMEN = Window(level=50.0, width=450.0)
"""The paper's window, [-175, 275] HU (arXiv 2501.14013, section II.C)."""
