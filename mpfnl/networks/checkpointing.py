"""Activation checkpointing: less memory in training for one more forward pass."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mpfnl.shapes import Features


def run_blocks(blocks: nn.Sequential, features: Features, *shared: object, checkpointing: bool) -> Features:
    """Runs blocks one after the other.

    Args:
        blocks: Each takes and gives feature maps, and draws no random numbers.
        features: `(batch, channel, x, y, z)`.
        shared: What every block is given beside the features.
        checkpointing: In training, keep only what goes into a block; what is inside is computed again in the
            backward pass (Chen et al., "Training deep nets with sublinear memory cost", 2016).
    """
    recompute = checkpointing and blocks.training and torch.is_grad_enabled()
    for block in blocks:
        if recompute:
            features = checkpoint(block, features, *shared, use_reentrant=False, preserve_rng_state=False)
        else:
            features = block(features, *shared)
    return features
