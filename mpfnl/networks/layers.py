"""Layers that the networks share: blocks with activation checkpointing, and upscaling to finer grids."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mpfnl.ops.shuffle import depth_to_space
from mpfnl.shapes import Features, Reshaped

SCALES = (1, 2, 4)


def run_blocks(blocks: nn.Sequential, features: Features, *shared: object, checkpointing: bool) -> Features:
    """Applies blocks one after the other.

    Args:
        blocks: Modules that map feature maps to feature maps without random numbers.
        features: Feature maps `(batch, channel, x, y, z)`.
        shared: Further arguments of every block.
        checkpointing: Whether training keeps only the input of each block and computes the block's inside
            again in the backward pass (Chen et al., "Training deep nets with sublinear memory cost", 2016).
    """
    recompute = checkpointing and blocks.training and torch.is_grad_enabled()
    for block in blocks:
        if recompute:
            features = checkpoint(block, features, *shared, use_reentrant=False, preserve_rng_state=False)
        else:
            features = block(features, *shared)
    return features


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


def doublings(scale: int) -> int:
    """Number of times that the grid is doubled: 0, 1 or 2."""
    return int(math.log2(scale))
