"""A volume through a network in overlapping tiles, layer by layer, blended without seams. Torch only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby, product
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from mpfnl.inference.memory import freed_memory_kept, give_back, resident
from mpfnl.inference.runner import RunOptions, TileRunner, network_device
from mpfnl.inference.tiling import Tiling, stretches
from mpfnl.shapes import PhaseVolume, SpatialVolume

Progress: TypeAlias = Callable[[Iterable[tuple[int, ...]], int], Iterable[tuple[int, ...]]]
"""Wraps an iterable of known length and shows how far it is."""

Box: TypeAlias = tuple[slice, slice, slice]
"""A part of a volume: along x, y and z."""


class TileSource(Protocol):
    """Where tiles come from."""

    @property
    def sides(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""

    @property
    def device(self) -> torch.device:
        """Where the sums are kept."""

    def tile(self, box: Box) -> PhaseVolume:
        """The phases in a box, `(P, x, y, z)` in [0, 1]."""

    def drop(self, before: int) -> None:
        """Slices before this one will not be asked for again."""


@dataclass(frozen=True, eq=False)
class TensorTiles:
    """Tiles of phases in memory.

    Args:
        phases: `(P, x, y, z)` in [0, 1].
    """

    phases: Tensor

    @property
    def sides(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""
        x, y, z = self.phases.shape[1:]
        return x, y, z

    @property
    def device(self) -> torch.device:
        """Where the phases are."""
        return self.phases.device

    def tile(self, box: Box) -> PhaseVolume:
        """The phases in a box."""
        return self.phases[:, *box].contiguous()

    def drop(self, before: int) -> None:
        """Nothing."""


@torch.inference_mode()
def sweep(
    runner: TileRunner,
    source: TileSource,
    tiling: Tiling,
    progress: Progress | None = None,
    room: int | None = None,
) -> Iterator[tuple[int, SpatialVolume]]:
    """Runs a network over a volume in overlapping tiles, in layers along z.

    Neighbouring tiles are blended with weights that fall linearly and end before the tile's border, so that
    no tile border shows. As soon as the tiles of a layer are done, the slices that no later layer reaches
    are given out. In memory are the sums of one layer; the source is asked for no slice before the layer.

    Args:
        runner: Runs the network on a tile.
        source: Where the tiles come from.
        tiling: Tile, overlap and halo.
        progress: Wraps the tiles in a progress bar.
        room: Bytes that may be kept from one tile to the next, where memory is kept; None for no limit.

    Yields:
        The first slice, and these slices `(x, y, n)`, float32, clipped to [0, 1]; in their order, each once.
        They lie on the runner's output grid. The source still has them; it drops them afterwards.
    """
    scale = runner.scale
    along_x, along_y, along_z = (
        {stretch.start: stretch for stretch in stretches(side, tiling, scale)} for side in source.sides
    )
    corners: Iterable[tuple[int, ...]] = list(product(along_z, along_x, along_y))
    count = len(along_x) * len(along_y) * len(along_z)
    runner.expect(count)
    if progress is not None:
        corners = progress(corners, count)
    ends = [*list(along_z)[1:], source.sides[2]]
    depth = min(tiling.tile, source.sides[2])
    sides = [scale * side for side in (*source.sides[:2], depth)]
    total = torch.zeros(sides, dtype=torch.float32, device=source.device)
    for end, (z, layer) in zip(ends, groupby(corners, key=lambda corner: corner[0]), strict=True):
        third, before = along_z[z], resident()
        with _reusing_memory(runner.device):
            for _, x, y in layer:
                first, second = along_x[x], along_y[y]
                enhanced = runner(source.tile((first.inside, second.inside, third.inside))).to(total.device)
                counted = enhanced * first.weight.to(total.device)[:, None, None]
                counted *= second.weight.to(total.device)[:, None]
                counted *= third.weight.to(total.device)
                total[first.result, second.result] += counted
                del enhanced, counted
                if room is not None and resident() > before + room:
                    give_back()
        done = scale * (end - z)
        yield scale * z, total[:, :, :done].clamp(0.0, 1.0)
        source.drop(end)
        _shift(total, done)


def _shift(total: Tensor, done: int) -> None:
    """Moves what is not done to the front, and clears what is behind it."""
    kept = total.shape[2] - done
    total[:, :, :kept] = total[:, :, done:].clone()
    total[:, :, kept:] = 0


def _reusing_memory(device: torch.device) -> AbstractContextManager[None]:
    return freed_memory_kept() if device.type == "cpu" else nullcontext()


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
