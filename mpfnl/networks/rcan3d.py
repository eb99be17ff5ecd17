"""RCAN3D: the residual channel attention network in 3D, the single-phase baseline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn
from torch.nn import functional

from mpfnl.networks.capabilities import Capabilities
from mpfnl.networks.layers import DepthToSpace, check_scale, doublings, run_blocks
from mpfnl.networks.registry import register_network
from mpfnl.ops.convolution import convolve_leaky_relu
from mpfnl.shapes import Coverage, Features, PhaseBatch, Reshaped, TargetBatch


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
        presence: Whether a mask of each phase, 1 where it has voxels, is an input beside it. The network then
            computes without some phases, or parts of them; train it with phase dropout.
        target: Index of the target phase, which is never missing.
        activation_checkpointing: Whether training keeps only the input of each residual group and computes
            the group again in the backward pass: less memory, a third more time.

    Raises:
        ValueError: If the scale is not 1, 2 or 4, or the target is not one of the phases.

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
        presence: bool = False,
        target: int | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_scale(scale)
        self.target = phases - 1 if target is None else target
        if not 0 <= self.target < phases:
            raise ValueError(f"target {target} is not one of the {phases} phases")
        self.phases = phases
        self.scale = scale
        self.presence = presence
        self.capabilities = Capabilities(scale, missing_phases=presence, coverage=presence)
        self.activation_checkpointing = activation_checkpointing
        self.first = nn.Conv3d(2 * phases if presence else phases, channels, 3, padding=1)
        self.groups = nn.Sequential(*(ResidualGroup(channels, blocks, reduction) for _ in range(groups)))
        self.body_end = nn.Conv3d(channels, channels, 3, padding=1)
        self.upscale = nn.Sequential(*_upscaling(channels, scale))
        self.last = nn.Conv3d(channels, 1, 3, padding=1)

    def forward(
        self, phases: PhaseBatch, present: Sequence[int] | None = None, covered: Coverage | None = None
    ) -> TargetBatch:
        """Enhances a batch.

        Args:
            phases: Phases `(batch, P, x, y, z)` in [0, 1] in stacking order, without missing phases.
            present: Ascending indices of the phases that `phases` holds, the target's among them; None: all.
            covered: True where a phase has the voxel, `(batch, P, x, y, z)`; None: everywhere.

        Returns:
            `(batch, 1, scale * x, scale * y, scale * z)`, not clipped.

        Raises:
            ValueError: If the number of phases differs from the network's or from those present, or a phase
                is missing that the network needs.
        """
        shallow = self.first(self._inputs(phases, present, covered))
        deep = run_blocks(self.groups, shallow, checkpointing=self.activation_checkpointing)
        deep = self.body_end(deep).add_(shallow)
        return 0.5 * self.last(self.upscale(deep)) + 0.5

    def _inputs(
        self, phases: PhaseBatch, present: Sequence[int] | None, covered: Coverage | None
    ) -> Features:
        """The phases in [-1, 1], 0 where there is none, and their masks."""
        places = tuple(range(self.phases)) if present is None else tuple(present)
        if phases.shape[1] != len(places) or (len(places) < self.phases and not self.presence):
            raise ValueError(f"this network takes {self.phases} phases, not {phases.shape[1]}")
        ascending = all(
            one < next_one for one, next_one in zip((-1, *places), (*places, self.phases), strict=True)
        )
        if not ascending or self.target not in places:
            raise ValueError(f"{list(places)}: give phases in ascending order, the target {self.target} too")
        scaled = 2 * phases - 1
        if not self.presence:
            return scaled
        masks = torch.ones_like(phases) if covered is None else covered.to(phases.dtype)
        scaled = scaled if covered is None else scaled.masked_fill(~covered, 0.0)
        missing = torch.zeros_like(phases[:, :1])
        stacked = [
            maps[:, places.index(place) : places.index(place) + 1] if place in places else missing
            for maps in (scaled, masks)
            for place in range(self.phases)
        ]
        return torch.cat(stacked, dim=1)


def _upscaling(channels: int, scale: int) -> list[nn.Module]:
    doubling = (
        (nn.Conv3d(channels, 8 * channels, 3, padding=1), DepthToSpace(2)) for _ in range(doublings(scale))
    )
    return list(chain.from_iterable(doubling))
