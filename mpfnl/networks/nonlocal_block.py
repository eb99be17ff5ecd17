"""The non-local residual block over all phases together."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpfnl.networks.capabilities import Capabilities
from mpfnl.ops.groups import select_groups, select_outputs
from mpfnl.ops.nonlocal_attention import dot_product_attention, nonlocal_attention
from mpfnl.ops.shuffle import depth_to_space, space_to_depth
from mpfnl.shapes import Coverage, Features, Positions, Reshaped

SMALLEST_SHARE = 1e-3
"""Least weight of covered positions by which a sum is divided."""


class NonLocalMode(StrEnum):
    """Similarity of two positions (Wang et al., CVPR 2018, section 3.2)."""

    GAUSSIAN = "gaussian"
    EMBEDDED_GAUSSIAN = "embedded_gaussian"
    DOT_PRODUCT = "dot_product"


NonLocalModeName: TypeAlias = NonLocalMode | Literal["gaussian", "embedded_gaussian", "dot_product"]
"""A mode, or its name as it stands in configurations."""


class NonLocalBlock3D(nn.Module):
    """Adds to each position a weighted sum over all positions of the volume.

    The volume is folded by space-to-depth, so that the positions are `factor`^3 cubes with
    `C = channels * factor^3` values each: y_i = sum_j f(theta_i, phi_j) g_j, and W(y) is added to the
    input (Yi et al., ICCV 2019, section 3.2, in 3D). Sides that `factor` does not divide are padded by
    repeating the last voxels, and cropped again.

    W starts at zero, so a new block is the identity.

    Args:
        channels: Channels of the input; the number of phases in PFNL3D.
        factor: Edge of the folded cube in voxels.
        mode: Similarity of positions: `gaussian` (theta = phi = the input itself), `embedded_gaussian` or
            `dot_product` (theta and phi are 1x1x1 convolutions).

    >>> import torch
    >>> volume = torch.rand(1, 3, 5, 4, 4)
    >>> bool((NonLocalBlock3D(channels=3)(volume) == volume).all())
    True
    """

    capabilities = Capabilities(whole_tile=True)

    def __init__(
        self, channels: int, factor: int = 2, mode: NonLocalModeName = NonLocalMode.GAUSSIAN
    ) -> None:
        super().__init__()
        self.channels = channels
        self.factor = factor
        self.mode = NonLocalMode(mode)
        folded = channels * factor**3
        self.g = nn.Conv3d(folded, folded, 1)
        self.w = nn.Conv3d(folded, folded, 1)
        embedded = self.mode is not NonLocalMode.GAUSSIAN
        self.theta = nn.Conv3d(folded, folded, 1) if embedded else nn.Identity()
        self.phi = nn.Conv3d(folded, folded, 1) if embedded else nn.Identity()
        nn.init.zeros_(self.w.weight)
        nn.init.zeros_(self.w.bias)  # type: ignore[arg-type]  # Conv3d has a bias here

    def forward(
        self, volume: Features, present: Sequence[int] | None = None, covered: Coverage | None = None
    ) -> Features:
        """Applies the block.

        Where channels are missing, positions are compared by the others, and the 1x1x1 convolutions are cut
        to these (`select_groups`). Where a channel covers a part of the voxels, the same holds position by
        position, and each sum over positions is the mean over those that the channel covers.

        Args:
            volume: Feature maps `(batch, channels, x, y, z)` of any size, without missing channels.
            present: Ascending indices of the channels that `volume` holds; None: all.
            covered: True where a channel has the voxel, of the volume's shape; None: everywhere.

        Returns:
            The same shape.
        """
        if covered is not None:
            return self._forward_covered(volume, present, covered)
        sides = volume.shape[-3:]
        folded = space_to_depth(_pad_to_multiple(volume, self.factor), self.factor)
        attend = dot_product_attention if self.mode is NonLocalMode.DOT_PRODUCT else nonlocal_attention
        value = _positions(self._convolve(self.g, folded, present))
        query = _positions(self._convolve(self.theta, folded, present))
        gaussian = self.mode is NonLocalMode.GAUSSIAN
        # One tensor halves the work.
        key = query if gaussian else _positions(self._convolve(self.phi, folded, present))
        attended = attend(query, key, value).transpose(1, 2).reshape(folded.shape)
        unfolded = depth_to_space(self._convolve(self.w, attended, present), self.factor)
        return volume + unfolded[..., : sides[0], : sides[1], : sides[2]]

    def _forward_covered(
        self, volume: Features, present: Sequence[int] | None, covered: Coverage
    ) -> Features:
        x, y, z = volume.shape[-3:]
        masks = covered.to(volume.dtype)
        known = torch.where(covered, volume, 0.0)
        folded = space_to_depth(_pad_to_multiple(known, self.factor), self.factor)
        masks = space_to_depth(_pad_to_multiple(masks, self.factor), self.factor)
        scale = masks.shape[1] / masks.sum(1, keepdim=True).clamp(min=1)
        attend = dot_product_attention if self.mode is NonLocalMode.DOT_PRODUCT else nonlocal_attention

        def partial(layer: nn.Module, maps: Features) -> Features:
            if not isinstance(layer, nn.Conv3d):
                return maps
            assert layer.bias is not None
            bias = select_outputs(layer.bias, self.channels, present)[:, None, None, None]
            return ((self._convolve(layer, maps, present) - bias) * scale + bias) * masks

        query = _positions(partial(self.theta, folded))
        key = query if self.mode is NonLocalMode.GAUSSIAN else _positions(partial(self.phi, folded))
        value = _positions(torch.cat([partial(self.g, folded), masks], dim=1))
        attended, shares = attend(query, key, value).transpose(1, 2).chunk(2, dim=1)
        if self.mode is NonLocalMode.DOT_PRODUCT:  # its weights do not sum to 1
            shares = _share_of_positions(masks)
        mean = (attended / shares.clamp(min=SMALLEST_SHARE)).reshape(folded.shape)
        unfolded = depth_to_space(partial(self.w, mean * masks), self.factor)
        return volume + unfolded[..., :x, :y, :z]

    def _convolve(self, layer: nn.Module, folded: Features, present: Sequence[int] | None) -> Features:
        if present is None or not isinstance(layer, nn.Conv3d):
            return layer(folded)
        assert layer.bias is not None
        weight = select_groups(layer.weight, self.channels, present, outputs=True)
        return functional.conv3d(folded, weight, select_outputs(layer.bias, self.channels, present))


def _share_of_positions(masks: Features) -> Tensor:
    """The share of positions that each channel covers, `(batch, channels, 1)`."""
    return masks.flatten(2).mean(2, keepdim=True)


def _positions(folded: Features) -> Positions:
    return folded.flatten(2).transpose(1, 2)


def _pad_to_multiple(volume: Features, factor: int) -> Reshaped:
    x, y, z = (-side % factor for side in volume.shape[-3:])
    if x == y == z == 0:
        return volume
    return functional.pad(volume, (0, z, 0, y, 0, x), mode="replicate")
