"""RCAN3D: the residual channel attention network in 3D, the single-phase baseline."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn
from torch.nn import functional

from mpfnl.networks.capabilities import Capabilities
from mpfnl.networks.layers import DepthToSpace, check_scale, doublings, run_blocks
from mpfnl.networks.registry import register_network
from mpfnl.ops.convolution import convolve_leaky_relu
from mpfnl.shapes import Features, PhaseBatch, Reshaped, TargetBatch


class ChannelAttention(nn.Module):
    """Scales each channel by a weight in (0, 1) and adds a skip (Zhang et al., ECCV 2018, eq. 5 to 10).

    Args:
        channels: Channels of the features.
        reduction: Ratio of the channels to those of the bottleneck.
    """

    capabilities = Capabilities(whole_tile=True)

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv3d(channels, channels // reduction, 1)
        self.excite = nn.Conv3d(channels // reduction, channels, 1)

    def forward(self, features: Features, skip: Features) -> Features:
        """`skip + weights * features`; all `(batch, channels, x, y, z)`. The features may be overwritten."""
        pooled = functional.relu(self.squeeze(_mean_over_space(features)), inplace=True)
        weights = self.excite(pooled).sigmoid()
        if torch.is_grad_enabled():  # the features are kept for the backward pass
            return torch.addcmul(skip, features, weights)
        return features.mul_(weights).add_(skip)


def _mean_over_space(features: Features) -> Reshaped:
    # Not adaptive pooling: in 3D it is not deterministic on CUDA. On a CPU `mean` would first write all of a
    # bfloat16 map out as float32; `sum` adds up in float32 without that.
    if features.device.type == "cpu" and features.dtype is torch.bfloat16:
        return features.sum(dim=(2, 3, 4), keepdim=True) / features[0, 0].numel()
    return features.mean(dim=(2, 3, 4), keepdim=True)


class ResidualChannelAttentionBlock(nn.Module):
    """Two 3x3x3 convolutions, channel attention, and a short skip (Zhang et al., eq. 10).

    Args:
        channels: Channels of the features.
        reduction: Reduction of the channel attention.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.attention = ChannelAttention(channels, reduction)

    def forward(self, features: Features) -> Features:
        """`(batch, channels, x, y, z)` to the same shape."""
        hidden = convolve_leaky_relu(self.conv1, features)
        return self.attention(self.conv2(hidden), skip=features)


class ResidualGroup(nn.Module):
    """Attention blocks, a 3x3x3 convolution, and a skip around them (Zhang et al., eq. 3).

    Args:
        channels: Channels of the features.
        blocks: Number of attention blocks.
        reduction: Reduction of the channel attention.
    """

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(ResidualChannelAttentionBlock(channels, reduction) for _ in range(blocks))
        )
        self.conv = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, features: Features) -> Features:
        """`(batch, channels, x, y, z)` to the same shape."""
        # In place: a convolution does not keep its output for the backward pass.
        return self.conv(self.blocks(features)).add_(features)


@register_network("RCAN3D")
class RCAN3DNet(nn.Module):
    """Enhances one phase, from itself or from several phases as input channels.

    The settings are those of the released configurations of the 3D microscopy RCAN (Chen et al.,
    Nature Methods 2021): 5 groups of 3 blocks, 32 channels, reduction 8, a skip in each block, in each
    group and around all of them, and intensities standardised to [-1, 1]. About 1 M parameters.

    Args:
        phases: Number of input phases: 1, or more for a multiphase baseline.
        channels: Channels of the features.
        groups: Number of residual groups.
        blocks: Number of attention blocks a group.
        reduction: Reduction of the channel attention.
        scale: Refinement of the output grid along each axis: 1 (the input's grid), 2 or 4.
        activation_checkpointing: Whether training keeps only the input of each residual group and computes
            the group again in the backward pass: less memory, a third more time.

    Raises:
        ValueError: If the scale is not 1, 2 or 4.

    >>> network = RCAN3DNet(phases=1, channels=8, groups=1, blocks=1, scale=2)
    >>> tuple(network(torch.rand(1, 1, 6, 6, 6)).shape)
    (1, 1, 12, 12, 12)
    """

    def __init__(
        self,
        phases: int = 1,
        channels: int = 32,
        groups: int = 5,
        blocks: int = 3,
        reduction: int = 8,
        scale: int = 1,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_scale(scale)
        self.phases = phases
        self.scale = scale
        self.capabilities = Capabilities(scale)
        self.activation_checkpointing = activation_checkpointing
        self.first = nn.Conv3d(phases, channels, 3, padding=1)
        self.groups = nn.Sequential(*(ResidualGroup(channels, blocks, reduction) for _ in range(groups)))
        self.body_end = nn.Conv3d(channels, channels, 3, padding=1)
        self.upscale = nn.Sequential(*_upscaling(channels, scale))
        self.last = nn.Conv3d(channels, 1, 3, padding=1)

    def forward(self, phases: PhaseBatch) -> TargetBatch:
        """Enhances a batch.

        Args:
            phases: Phases `(batch, P, x, y, z)` in [0, 1] in stacking order.

        Returns:
            `(batch, 1, scale * x, scale * y, scale * z)`, not clipped.

        Raises:
            ValueError: If the number of phases differs from the network's.
        """
        if phases.shape[1] != self.phases:
            raise ValueError(f"this network takes {self.phases} phases, not {phases.shape[1]}")
        shallow = self.first(2 * phases - 1)
        deep = run_blocks(self.groups, shallow, checkpointing=self.activation_checkpointing)
        deep = self.body_end(deep).add_(shallow)
        return 0.5 * self.last(self.upscale(deep)) + 0.5


def _upscaling(channels: int, scale: int) -> list[nn.Module]:
    doubling = (
        (nn.Conv3d(channels, 8 * channels, 3, padding=1), DepthToSpace(2)) for _ in range(doublings(scale))
    )
    return list(chain.from_iterable(doubling))
