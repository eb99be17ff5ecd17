"""Overlapping tiles: a volume of any size through a network, blended without seams. Torch only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mpfnl.inference.runner import RunOptions, TileRunner, network_device, preferred_precision
from mpfnl.inference.sweep import Progress, TensorTiles, sweep
from mpfnl.inference.tiles import Tiling, tile_starts
from mpfnl.shapes import PhaseVolume, SpatialVolume

__all__ = ["Progress", "Tiling", "preferred_precision", "tile_starts", "tiled_forward"]


def tiled_forward(
    network: nn.Module,
    phases: PhaseVolume,
    tiling: Tiling | None = None,
    precision: torch.dtype | None = None,
    progress: Progress | None = None,
    *,
    present: Sequence[int] | None = None,
    self_ensemble: bool = False,
) -> SpatialVolume:
    """Runs a network over a volume in overlapping tiles; see `sweep`.

    Volume and result stay on the volume's device; one tile at a time is on the network's.

    Args:
        network: Takes `(1, P, x, y, z)`, returns `(1, 1, x, y, z)`, on a grid that is `scale` times finer
            where it has that attribute; put into evaluation mode by the caller.
        phases: `(P, x, y, z)` in [0, 1].
        tiling: Tile, overlap and halo.
        precision: Of the convolutions; chosen by the device if None.
        progress: Wraps the tiles in a progress bar.
        present: Indices of the phases that are there, for networks that do without some; None: all.
        self_ensemble: Take the mean over eight orientations of each tile.

    Returns:
        `(scale * x, scale * y, scale * z)`, float32, clipped to [0, 1].

    Raises:
        ValueError: If the network's result lies on another grid than it says.
    """
    device = network_device(network) or phases.device
    runner = TileRunner(network, RunOptions(precision, present, self_ensemble), device)
    sides = [runner.scale * side for side in phases.shape[1:]]
    enhanced = torch.empty(sides, dtype=torch.float32, device=phases.device)
    for start, slab in sweep(runner, TensorTiles(phases), tiling or Tiling(), progress):
        enhanced[:, :, start : start + slab.shape[2]] = slab
    return enhanced
