"""Tiles of a volume, their weights, and the tiling that suits a network. Torch only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mpfnl.networks.capabilities import network_capabilities

ALIGNED = 2
"""Tiles except the last begin at multiples of this: the default edge of the cubes that the non-local block
folds, so that it folds the same cubes in each tile."""


@dataclass(frozen=True)
class Tiling:
    """Division of a volume into overlapping tiles.

    Args:
        tile: Edge of a tile in voxels; shorter sides of the volume are taken whole.
        overlap: Voxels shared by neighbouring tiles, less than `tile`.
        halo: Voxels discarded at each border with a neighbour, where the network lacks context; at most half
            of the overlap. The rest of the overlap is blended linearly. None: a quarter of the overlap.

    Raises:
        ValueError: If the overlap or the halo is too large.

    >>> tiling = Tiling(tile=64, overlap=16)
    >>> tiling.cut, tiling.blended
    (4, 8)
    >>> tile_starts(100, tiling.tile, tiling.overlap)
    [0, 36]
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
        """Voxels over which neighbouring tiles are blended."""
        return self.overlap - 2 * self.cut


@dataclass(frozen=True, eq=False)
class Stretch:
    """Extent of a tile along one axis.

    Args:
        start: First voxel.
        weight: Weight of each voxel of the result, `(scale * length,)`; over all tiles it adds up to 1.
        scale: Factor by which the result's grid is finer.
    """

    start: int
    weight: Tensor
    scale: int = 1

    @property
    def inside(self) -> slice:
        """Voxels of the tile."""
        return slice(self.start, self.start + len(self.weight) // self.scale)

    @property
    def result(self) -> slice:
        """Voxels of the tile on the result's grid."""
        start = self.start * self.scale
        return slice(start, start + len(self.weight))


def tile_starts(side: int, tile: int, overlap: int) -> list[int]:
    """First voxels of the tiles along one axis: evenly spread, sharing at least `overlap` voxels.

    All but the last are multiples of `ALIGNED` if the step between tiles allows it.
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

    The weights of a volume are the products of those of its axes and add up to 1, too.

    Args:
        side: Voxels of the volume along the axis.
        tiling: Tile, overlap and halo.
        scale: Factor by which the result's grid is finer.
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
    """Weights of a tile: 1 inside, falling linearly towards a neighbour, 0 in the halo."""
    rise = (torch.arange(1, length + 1, dtype=torch.float32) - tiling.cut) / (tiling.blended + 1)
    rise = rise.clamp(0.0, 1.0)
    weight = torch.ones(length)
    if before:
        weight = torch.minimum(weight, rise)
    if after:
        weight = torch.minimum(weight, rise.flip(0))
    return weight


SIGMAS = 2.0
"""Standard deviations of the effective receptive field that a halo covers; see `useful_halo`."""

LEAST_TILE = 16
"""Edge of the smallest tile in voxels; a smaller one is mostly border."""


def receptive_radius(network: nn.Module) -> int:
    """Radius of the receptive field of a network's convolutions, in voxels.

    The sum of the radii of all convolutions: exact for networks that apply them one after the other on one
    grid, as those of this package do; otherwise an upper bound. Attention over the whole tile and operations
    that are not modules are not included.
    """
    return sum(max(_reaches(convolution)) for convolution in _convolutions(network))


def useful_halo(network: nn.Module) -> int:
    """Radius of the effective receptive field, in voxels.

    If each convolution averaged uniformly, a voxel's sensitivity to the input would be the distribution of a
    sum of independent steps, nearly a Gaussian with a variance of (k^2 - 1) / 12 for each kernel of k voxels
    (Luo et al., "Understanding the effective receptive field in deep convolutional neural networks",
    NeurIPS 2016). The halo is two standard deviations of it, or `receptive_radius` if that is less.
    docs/whole_volumes.md shows the measured influence of voxels beyond it. A halo that the network states
    takes precedence.
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

    The halo is `useful_halo`, and an eighth of the tile is blended. The overlap is at most half of the tile
    and at least two voxels of it are blended; the halo shrinks accordingly.

    Args:
        network: Network that is to be run.
        tile: Edge of a tile in voxels, best that of the training patches; 64 if None.
        overlap: Voxels shared by neighbouring tiles; chosen from the halo if None.

    Raises:
        ValueError: If the overlap does not fit the tile.

    >>> network_tiling(nn.Sequential(*[nn.Conv3d(1, 1, 3, padding=1) for _ in range(8)]))
    Tiling(tile=64, overlap=18, halo=5)
    """
    tile = Tiling.tile if tile is None else tile
    halo = useful_halo(network)
    blended = max(2, tile // 8)
    if overlap is None:
        overlap = min(2 * halo + blended, tile // 2)
    return Tiling(tile, overlap, min(halo, max(0, overlap - 2) // 2))


def smaller_tilings(network: nn.Module, tiling: Tiling) -> Iterator[Tiling]:
    """Smaller tilings that suit a network, the largest first."""
    for tile in (128, 96, 64, 48, 32, 24, LEAST_TILE):
        if tile < tiling.tile:
            yield network_tiling(network, tile)


def _convolutions(network: nn.Module) -> Iterator[nn.Conv3d]:
    return (module for module in network.modules() if isinstance(module, nn.Conv3d))


def _kernels(convolution: nn.Conv3d) -> list[tuple[int, int]]:
    return list(zip(convolution.kernel_size, convolution.dilation, strict=True))


def _reaches(convolution: nn.Conv3d) -> list[int]:
    return [dilation * (kernel - 1) // 2 for kernel, dilation in _kernels(convolution)]
