"""Tiles of a volume, their weights, and the tiling that suits a network. Torch only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mpfnl.networks.capabilities import network_capabilities

ALIGNED = 2
"""Tiles begin at multiples of this, but the last: the edge of the cubes that the non-local block folds by
default, so that it folds the same cubes in each tile."""


@dataclass(frozen=True)
class Tiling:
    """How a volume is cut.

    Args:
        tile: Edge of a tile in voxels; sides shorter than it are taken whole.
        overlap: Voxels shared by neighbouring tiles. Less than `tile`.
        halo: Voxels cut off a tile where it has a neighbour, since the network sees too little beyond the
            border there; at most half of the overlap. What is left of the overlap is blended linearly; where
            nothing is left tiles are cropped and laid side by side. None: a quarter of the overlap.

    Raises:
        ValueError: They do not fit together.
    """

    tile: int = 64
    overlap: int = 16
    halo: int | None = None

    def __post_init__(self) -> None:
        if self.tile < 1 or not 0 <= self.overlap < self.tile:
            raise ValueError(f"tile {self.tile} with overlap {self.overlap}: need 0 <= overlap < tile")
        if not 0 <= 2 * self.cut <= self.overlap:
            raise ValueError(
                f"halo {self.halo} with overlap {self.overlap}: need 0 <= halo, at most half of the overlap"
            )

    @property
    def cut(self) -> int:
        """The halo in voxels."""
        return self.overlap // 4 if self.halo is None else self.halo

    @property
    def blended(self) -> int:
        """Over how many voxels neighbouring tiles are blended."""
        return self.overlap - 2 * self.cut


@dataclass(frozen=True, eq=False)
class Stretch:
    """What a tile covers along one axis.

    Args:
        start: Its first voxel.
        weight: With what each voxel of its result counts, `(scale * length,)`; over all tiles it adds up
            to 1.
        scale: How many times finer the result's grid is.
    """

    start: int
    weight: Tensor
    scale: int = 1

    @property
    def inside(self) -> slice:
        """Its voxels."""
        return slice(self.start, self.start + len(self.weight) // self.scale)

    @property
    def result(self) -> slice:
        """Its voxels on the result's grid."""
        start = self.start * self.scale
        return slice(start, start + len(self.weight))


def tile_starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles begin along one axis: evenly spread, sharing at least `overlap` voxels.

    All but the last begin at multiples of `ALIGNED`, if they can.
    """
    if side <= tile:
        return [0]
    aligned = ALIGNED if tile - overlap >= ALIGNED else 1
    step = (tile - overlap) // aligned * aligned
    last = side - tile
    reach = -(-last // aligned) * aligned
    count = -(-reach // step)
    return [*(index * reach // count // aligned * aligned for index in range(count)), last]


def stretches(side: int, tiling: Tiling, scale: int = 1) -> list[Stretch]:
    """The tiles along one axis, with weights that add up to 1 at each voxel of the result.

    A volume's weights are the products of those of its axes: they add up to 1, too.

    Args:
        side: Voxels of the volume along the axis.
        tiling: Tile, overlap and halo.
        scale: How many times finer the result's grid is.
    """
    starts = tile_starts(side, tiling.tile, tiling.overlap)
    length = min(side, tiling.tile)
    finer = Tiling(tiling.tile * scale, tiling.overlap * scale, tiling.cut * scale)
    ramps = [_ramp(length * scale, finer, before=start > 0, after=start + length < side) for start in starts]
    tiles = [Stretch(start, ramp, scale) for start, ramp in zip(starts, ramps, strict=True)]
    total = torch.zeros(side * scale)
    for tile in tiles:
        total[tile.result] += tile.weight
    return [replace(tile, weight=tile.weight / total[tile.result]) for tile in tiles]


def _ramp(length: int, tiling: Tiling, *, before: bool, after: bool) -> Tensor:
    """1 inside; towards a neighbour it falls linearly and is 0 in the halo."""
    rise = (torch.arange(1, length + 1, dtype=torch.float32) - tiling.cut) / (tiling.blended + 1)
    rise = rise.clamp(0.0, 1.0)
    weight = torch.ones(length)
    if before:
        weight = torch.minimum(weight, rise)
    if after:
        weight = torch.minimum(weight, rise.flip(0))
    return weight


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
    docs/whole_volumes.md has what lies beyond, as measured. A halo that the network states comes first.
    """
    stated = network_capabilities(network).halo
    if stated is not None:
        return stated
    variance = sum(
        max(dilation**2 * (kernel**2 - 1) / 12 for kernel, dilation in _kernels(convolution))
        for convolution in _convolutions(network)
    )
    return min(receptive_radius(network), math.ceil(SIGMAS * math.sqrt(variance)))


def sees_whole_tile(network: nn.Module) -> bool:
    """Whether the network, or one of its modules, states that each voxel depends on the whole tile."""
    return any(network_capabilities(module).whole_tile for module in network.modules())


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
