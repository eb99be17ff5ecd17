"""What the networks share for output grids finer than the input's."""

from __future__ import annotations

import math

from torch import nn

from mpfnl.ops.shuffle import depth_to_space
from mpfnl.shapes import Features, Reshaped

SCALES = (1, 2, 4)


class DepthToSpace(nn.Module):
    """`depth_to_space` as a module.

    Args:
        factor: Edge of the cube in voxels.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Features) -> Reshaped:
        """`(batch, C * factor^3, x, y, z)` to `(batch, C, x * factor, y * factor, z * factor)`."""
        return depth_to_space(features, self.factor)


def check_scale(scale: int) -> None:
    """Raises ValueError where the scale is not 1, 2 or 4."""
    if scale not in SCALES:
        raise ValueError(f"scale is {scale}; it must be 1, 2 or 4")


def output_scale(network: nn.Module) -> int:
    """How many times finer a network's output grid is; 1 for networks that do not say."""
    return int(getattr(network, "scale", 1))


def doublings(scale: int) -> int:
    """How many times the grid is doubled: 0, 1 or 2."""
    return int(math.log2(scale))
