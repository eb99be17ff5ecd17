"""Overlapping tiles: a volume of any size through a network, blended without seams. Torch only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn

from mpfnl.inference.allocator import freed_memory_kept
from mpfnl.inference.frozen import frozen_copy
from mpfnl.inference.graphs import GraphedNetwork
from mpfnl.phases import PhaseVolume, SpatialVolume

Progress = Callable[[Iterable[tuple[int, ...]], int], Iterable[tuple[int, ...]]]
"""Wraps an iterable of known length and shows how far it is."""

GRAPH_FROM = 16
"""Tiles from which on a CUDA graph is recorded: for fewer it takes longer than it saves."""


@dataclass(frozen=True)
class Tiling:
    """How a volume is cut.

    Args:
        tile: Edge of a tile in voxels; sides shorter than it are taken whole.
        overlap: Voxels shared by neighbouring tiles. Less than `tile`. The outer quarter of it is cut off
            each tile, since the network sees nothing beyond the border there; the rest is blended linearly.
    """

    tile: int = 64
    overlap: int = 16

    def __post_init__(self) -> None:
        if self.tile < 1 or not 0 <= self.overlap < self.tile:
            raise ValueError(f"tile {self.tile} with overlap {self.overlap}: need 0 <= overlap < tile")


def tile_starts(side: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles begin along one axis: evenly spread, sharing at least `overlap` voxels."""
    if side <= tile:
        return [0]
    count = -(-(side - overlap) // (tile - overlap))
    return [round(index * (side - tile) / (count - 1)) for index in range(count)]


def preferred_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes convolutions in it, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # The check is private to PyTorch and there is no public one; it exists where oneDNN does.
    onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    if onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


@torch.inference_mode()
def tiled_forward(
    network: nn.Module,
    phases: PhaseVolume,
    tiling: Tiling | None = None,
    precision: torch.dtype | None = None,
    progress: Progress | None = None,
) -> SpatialVolume:
    """Runs a same-grid network over a volume in overlapping tiles.

    Neighbouring tiles are blended with weights that fall linearly and end before the tile's border, so that
    no tile border shows. Volume and result stay on the volume's device; one tile at a time is on the
    network's.

    Args:
        network: Takes `(1, P, x, y, z)`, returns `(1, 1, x, y, z)`; put into evaluation mode by the caller.
        phases: `(P, x, y, z)` in [0, 1].
        tiling: Tile and overlap.
        precision: Of the convolutions; chosen by the device if None.
        progress: Wraps the tiles in a progress bar.

    Returns:
        `(x, y, z)`, float32, clipped to [0, 1].

    Raises:
        ValueError: If the network changes the grid.
    """
    tiling = tiling or Tiling()
    device = next((parameter.device for parameter in network.parameters()), phases.device)
    precision = precision or preferred_precision(device)
    sides = phases.shape[1:]
    starts = [tile_starts(side, tiling.tile, tiling.overlap) for side in sides]
    corners: Iterable[tuple[int, ...]] = list(product(*starts))
    count = math.prod(map(len, starts))
    if progress is not None:
        corners = progress(corners, count)
    frozen = frozen_copy(network, precision)
    run = GraphedNetwork(frozen) if device.type == "cuda" and count >= GRAPH_FROM else frozen
    total = torch.zeros(sides, dtype=torch.float32, device=phases.device)
    weight_sum = torch.zeros_like(total)
    with _reusing_memory(device):
        for corner in corners:
            inside = tuple(slice(start, start + tiling.tile) for start in corner)
            tile = phases[:, *inside].unsqueeze(0).to(device)
            with torch.autocast(device.type, precision, enabled=precision is not torch.float32):
                enhanced = run(tile)
            if enhanced.shape[2:] != tile.shape[2:]:
                made = f"{tuple(enhanced.shape)} of {tuple(tile.shape)}"
                raise ValueError(f"the network made {made}: not its grid")
            weight = _blending_weight(corner, tile.shape[2:], sides, tiling.overlap).to(phases.device)
            total[inside] += weight * enhanced[0, 0].float().to(phases.device)
            weight_sum[inside] += weight
    return (total / weight_sum).clamp_(0.0, 1.0)


def _reusing_memory(device: torch.device) -> AbstractContextManager[None]:
    return freed_memory_kept() if device.type == "cpu" else nullcontext()


def _blending_weight(
    corner: Sequence[int], tile: Sequence[int], sides: Sequence[int], overlap: int
) -> Tensor:
    """`(x, y, z)`: 1 inside, falling to 0 towards each face that has a neighbour."""
    x, y, z = (
        _ramp(length, overlap, falls_before=start > 0, falls_after=start + length < side)
        for start, length, side in zip(corner, tile, sides, strict=True)
    )
    return x[:, None, None] * y[None, :, None] * z[None, None, :]


def _ramp(length: int, overlap: int, *, falls_before: bool, falls_after: bool) -> Tensor:
    cut = overlap // 4
    rise = (torch.arange(1, length + 1, dtype=torch.float32) - cut) / (overlap - 2 * cut + 1)
    rise = rise.clamp(0.0, 1.0)
    weight = torch.ones(length)
    if falls_before:
        weight = torch.minimum(weight, rise)
    if falls_after:
        weight = torch.minimum(weight, rise.flip(0))
    return weight
