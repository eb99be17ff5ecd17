"""Visibility of tile borders: steps across them against steps elsewhere in the volume."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from mpfnl.inference.tiling import Tiling, tile_starts

HIGH = 0.999


@dataclass(frozen=True)
class Steps:
    """Absolute differences between neighbouring voxels: their mean, 99.9th percentile and maximum."""

    mean: float
    high: float
    largest: float

    def not_above(self, other: Steps) -> bool:
        """Whether none of the three is larger than the other's."""
        return self.mean <= other.mean and self.high <= other.high and self.largest <= other.largest


@dataclass(frozen=True)
class Seams:
    """Steps across the borders of tiles, and all others along the same axes."""

    borders: Steps
    elsewhere: Steps


def borders(side: int, tiling: Tiling) -> list[int]:
    """The voxels along an axis between which and their lower neighbour a tile's border lies.

    Where tiles are cropped that is one plane a border; where they are blended, each plane across which their
    weights change.
    """
    starts = tile_starts(side, tiling.tile, tiling.overlap)
    found: set[int] = set()
    for before, after in pairwise(starts):
        found |= set(range(after + tiling.cut, before + tiling.tile - tiling.cut + 1))
    return sorted(found)


def find_seams(volume: Tensor, tiling: Tiling, edge: int = 0) -> Seams:
    """Compares the steps across borders of tiles with all others.

    Args:
        volume: `(x, y, z)`.
        tiling: Tiling of the volume.
        edge: Voxels at the volume's own border that do not count.
    """
    at, away = [], []
    for axis, side in enumerate(volume.shape):
        steps = volume.diff(dim=axis).abs().movedim(axis, 0)
        inside = [slice(None)] + [slice(edge, other - edge) for other in steps.shape[1:]]
        steps = steps[tuple(inside)]
        planes = [i - 1 for i in borders(side, tiling) if edge < i < side - edge]
        counted = torch.zeros(side - 1, dtype=torch.bool)
        counted[edge : side - 1 - edge] = True
        at.append(steps[planes].flatten())
        counted[planes] = False
        away.append(steps[counted].flatten())
    return Seams(_steps(at), _steps(away))


def _steps(parts: Sequence[Tensor]) -> Steps:
    values = torch.cat(list(parts)).double()
    high = values.kthvalue(max(1, round(HIGH * len(values)))).values
    return Steps(float(values.mean()), float(high), float(values.max()))


def columns(seams: Seams) -> Iterator[tuple[str, float]]:
    """The numbers of a row."""
    for name, steps in (("border", seams.borders), ("elsewhere", seams.elsewhere)):
        yield f"{name}_mean", steps.mean
        yield f"{name}_p999", steps.high
        yield f"{name}_largest", steps.largest
