"""HU windows, and the HU that mark air and body."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

__all__ = ["ABDOMEN", "Window"]

if TYPE_CHECKING:
    from numpy import ndarray
    from torch import Tensor

AIR_HU = -1024
"""HU outside of a scan: the lowest value that CT scanners measure."""

UNCOVERED_HU = -2048
"""HU of voxels that a scan does not cover, as prepared scans hold them."""

COVERED_FROM_HU = -1500
"""HU below which a voxel counts as not covered. No CT number lies below -1024, and noise reaches a few
hundred below it; what scanners and software fill unmeasured voxels with lies lower (-2000, -3024, -32768)."""

BODY_HU = -300
"""HU below which a voxel is air or lung."""

Intensities = TypeVar("Intensities", "Tensor", "ndarray", float)


@dataclass(frozen=True)
class Window:
    """An HU window, mapped linearly to [0, 1] and clipped.

    Args:
        level: Centre of the window in HU.
        width: Width of the window in HU, positive.

    Raises:
        ValueError: If the width is not positive.

    >>> liver = Window(level=60, width=150)
    >>> liver.lower, liver.upper
    (-15.0, 135.0)
    >>> liver.normalize(60.0), liver.denormalize(0.5)
    (0.5, 60.0)
    >>> print(liver)
    [-15, 135] HU
    """

    level: float = 50.0
    width: float = 450.0

    def __post_init__(self) -> None:
        if not self.width > 0:
            raise ValueError(f"the window's width is {self.width} HU; it must be positive")

    def __str__(self) -> str:
        return f"[{self.lower:g}, {self.upper:g}] HU"

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
