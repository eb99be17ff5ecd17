"""Clipping to a range of HU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mpfnl.transforms.degradation.base import MOST_HU, Degradation, check, require
from mpfnl.transforms.degradation.convolution import empty


@dataclass(frozen=True)
class Clip(Degradation):
    """Limits the volume to a range of HU.

    Args:
        lower_hu: Smallest HU of the result.
        upper_hu: Largest HU of the result.

    >>> import torch
    >>> Clip(-175, 275).apply(torch.tensor([[[-1000.0, 40.0, 900.0]]]), (1, 1, 1)).tolist()
    [[[-175.0, 40.0, 275.0]]]
    """

    kind = "clip"
    lower_hu: float
    upper_hu: float

    def __post_init__(self) -> None:
        for value in (self.lower_hu, self.upper_hu):
            check("a clip's lower_hu and upper_hu", value, -MOST_HU, MOST_HU)
        require(self.lower_hu < self.upper_hu, "a clip's lower_hu must be below its upper_hu")

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Clips; the spacing does not matter."""
        return torch.clamp(hu, self.lower_hu, self.upper_hu, out=empty(hu.shape, hu.device))

    def describe(self) -> str:
        """For example "clip to [-175, 275] HU"."""
        return f"clip to [{self.lower_hu:g}, {self.upper_hu:g}] HU"
