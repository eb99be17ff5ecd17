"""RCAN3D: the residual channel attention network in 3D, the single-phase baseline."""

from __future__ import annotations

from itertools import chain

from torch import nn
from torch.nn import functional

from mpfnl.networks.upscale import DepthToSpace, check_scale, doublings
from mpfnl.phases import Features, PhaseBatch, TargetBatch


class ChannelAttention(nn.Module):
    """Scales each channel by a weight in (0, 1) (Zhang et al., ECCV 2018, eq. 5 to 9).

    Args:
        channels: Channels of the features.
        reduction: By how much the weights' bottleneck is narrower.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv3d(channels, channels // reduction, 1)
        self.excite = nn.Conv3d(channels // reduction, channels, 1)

    def forward(self, features: Features) -> Features:
        """`(batch, channels, x, y, z)` to the same shape."""
        # A plain mean: adaptive pooling in 3D is not deterministic on CUDA.
        pooled = features.mean(dim=(2, 3, 4), keepdim=True)
        weights = self.excite(functional.relu(self.squeeze(pooled), inplace=True)).sigmoid()
        return features * weights


class ResidualChannelAttentionBlock(nn.Module):
    """Two 3x3x3 convolutions, channel attention, and a short skip (Zhang et al., eq. 10).

    Args:
        channels: Channels of the features.
        reduction: See `ChannelAttention`.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.attention = ChannelAttention(channels, reduction)

    def forward(self, features: Features) -> Features:
        """`(batch, channels, x, y, z)` to the same shape."""
        hidden = functional.relu(self.conv1(features), inplace=True)
        return features + self.attention(self.conv2(hidden))


class ResidualGroup(nn.Module):
    """Attention blocks, a 3x3x3 convolution, and a skip around them (Zhang et al., eq. 3).

    Args:
        channels: Channels of the features.
        blocks: Number of attention blocks.
        reduction: See `ChannelAttention`.
    """

    def __init__(self, channels: int, blocks: int, reduction: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(ResidualChannelAttentionBlock(channels, reduction) for _ in range(blocks))
        )
        self.conv = nn.Conv3d(channels, channels, 3, padding=1)

    def forward(self, features: Features) -> Features:
        """`(batch, channels, x, y, z)` to the same shape."""
        return features + self.conv(self.blocks(features))


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
        reduction: Of the channel attention.
        scale: 1 (same grid), 2 or 4 (a grid so many times finer along each axis).

    Raises:
        ValueError: If the scale is not 1, 2 or 4.
    """

    def __init__(
        self,
        phases: int = 1,
        channels: int = 32,
        groups: int = 5,
        blocks: int = 3,
        reduction: int = 8,
        scale: int = 1,
    ) -> None:
        super().__init__()
        check_scale(scale)
        self.phases = phases
        self.scale = scale
        self.first = nn.Conv3d(phases, channels, 3, padding=1)
        self.groups = nn.Sequential(*(ResidualGroup(channels, blocks, reduction) for _ in range(groups)))
        self.body_end = nn.Conv3d(channels, channels, 3, padding=1)
        self.upscale = nn.Sequential(*_upscaling(channels, scale))
        self.last = nn.Conv3d(channels, 1, 3, padding=1)

    def forward(self, phases: PhaseBatch) -> TargetBatch:
        """Enhances a batch.

        Args:
            phases: `(batch, P, x, y, z)` in [0, 1], in stacking order.

        Returns:
            `(batch, 1, scale * x, scale * y, scale * z)`, not clipped.

        Raises:
            ValueError: If the number of phases differs from the network's.
        """
        if phases.shape[1] != self.phases:
            raise ValueError(f"this network takes {self.phases} phases, not {phases.shape[1]}")
        shallow = self.first(2 * phases - 1)
        deep = shallow + self.body_end(self.groups(shallow))
        return 0.5 * self.last(self.upscale(deep)) + 0.5


def _upscaling(channels: int, scale: int) -> list[nn.Module]:
    doubling = (
        (nn.Conv3d(channels, 8 * channels, 3, padding=1), DepthToSpace(2)) for _ in range(doublings(scale))
    )
    return list(chain.from_iterable(doubling))
