"""How far a network sees, and the tiling that follows from it. Torch only."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch import nn

from mpfnl.inference.tiles import Tiling
from mpfnl.networks import NonLocalBlock3D
from mpfnl.networks.rcan3d import ChannelAttention

SIGMAS = 2.0
"""Standard deviations of the sensitivity that a halo covers; see `useful_halo`."""

LEAST_TILE = 16
"""A smaller tile is mostly border."""


def receptive_radius(network: nn.Module) -> int:
    """How far from a voxel the input can change it through convolutions, in voxels.

    The sum over all of the network's convolutions of the distance that each reaches: exact for networks that
    apply them one after the other on one grid, as those of this package do; else an upper bound. What
    attention brings from the whole tile does not count, nor do operations that are not modules.
    """
    return sum(max(_reaches(convolution)) for convolution in _convolutions(network))


def useful_halo(network: nn.Module) -> int:
    """The part of the receptive radius beyond which the input hardly matters, in voxels.

    If each convolution averaged uniformly, a voxel's sensitivity to the input would be the distribution of a
    sum of independent steps, nearly a Gaussian with a variance of (k^2 - 1) / 12 for each kernel of k voxels
    (Luo et al., "Understanding the effective receptive field in deep convolutional neural networks",
    NeurIPS 2016). Two standard deviations of it are taken; the whole radius where that is less.
    docs/whole_volumes.md has what lies beyond, as measured.
    """
    variance = sum(
        max(dilation**2 * (kernel**2 - 1) / 12 for kernel, dilation in _kernels(convolution))
        for convolution in _convolutions(network)
    )
    return min(receptive_radius(network), math.ceil(SIGMAS * math.sqrt(variance)))


def sees_whole_tile(network: nn.Module) -> bool:
    """Whether each voxel depends on the whole tile: by the non-local block, or by channel attention."""
    return any(isinstance(module, (NonLocalBlock3D, ChannelAttention)) for module in network.modules())


def network_tiling(network: nn.Module, tile: int | None = None, overlap: int | None = None) -> Tiling:
    """The tiling that suits a network.

    The halo is `useful_halo`, and an eighth of the tile is blended; but the overlap is at most half of a
    tile, and at least two voxels of it are blended: then the halo is less.

    Args:
        network: What is going to be run.
        tile: Edge of a tile in voxels: the training patches', where it is known; 64 if None.
        overlap: Voxels shared by neighbouring tiles, if they are to be so many.

    Raises:
        ValueError: The overlap does not fit the tile.
    """
    tile = Tiling.tile if tile is None else tile
    halo = useful_halo(network)
    blended = max(2, tile // 8)
    if overlap is None:
        overlap = min(2 * halo + blended, tile // 2)
    return Tiling(tile, overlap, min(halo, max(0, overlap - 2) // 2))


def smaller_tilings(network: nn.Module, tiling: Tiling) -> Iterator[Tiling]:
    """Tilings that suit a network and take less memory, the largest first."""
    for tile in (128, 96, 64, 48, 32, 24, LEAST_TILE):
        if tile < tiling.tile:
            yield network_tiling(network, tile)


def _convolutions(network: nn.Module) -> Iterator[nn.Conv3d]:
    return (module for module in network.modules() if isinstance(module, nn.Conv3d))


def _kernels(convolution: nn.Conv3d) -> list[tuple[int, int]]:
    return list(zip(convolution.kernel_size, convolution.dilation, strict=True))


def _reaches(convolution: nn.Conv3d) -> list[int]:
    return [dilation * (kernel - 1) // 2 for kernel, dilation in _kernels(convolution)]
