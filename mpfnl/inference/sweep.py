"""Sweep of a network over a volume in overlapping tiles, layer by layer, blended. Torch only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby, product
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from mpfnl.inference.memory import freed_memory_reused, give_back, resident
from mpfnl.inference.runner import RunOptions, TileRunner, network_device
from mpfnl.inference.tiling import Tiling, stretches
from mpfnl.shapes import PhaseVolume, SpatialVolume

Progress: TypeAlias = Callable[[Iterable[tuple[int, ...]], int], Iterable[tuple[int, ...]]]
"""Progress bar: wraps an iterable, given its length."""

Box: TypeAlias = tuple[slice, slice, slice]
"""Part of a volume along x, y and z."""


class TileSource(Protocol):
    """Source of tiles."""

    @property
    def sides(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""

    @property
    def device(self) -> torch.device:
        """Device of the result."""

    def tile(self, box: Box) -> PhaseVolume:
        """The phases in a box, `(P, x, y, z)` in [0, 1]."""

    def drop(self, before: int) -> None:
        """Frees the slices before this one; they are not requested again."""


@dataclass(frozen=True, eq=False)
class TensorTiles:
    """Tiles of phases in memory.

    Args:
        phases: Phases `(P, x, y, z)` in [0, 1].
    """

    phases: Tensor

    @property
    def sides(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = self.phases.shape[1:]
        return x, y, z

    @property
    def device(self) -> torch.device:
        """Device of the phases."""
        return self.phases.device

    def tile(self, box: Box) -> PhaseVolume:
        """The phases in a box."""
        return self.phases[:, *box].contiguous()

    def drop(self, before: int) -> None:
        """Does nothing."""


@torch.inference_mode()
def sweep(
    runner: TileRunner,
    source: TileSource,
    tiling: Tiling,
    progress: Progress | None = None,
    room: int | None = None,
) -> Iterator[tuple[int, SpatialVolume]]:
    """Runs a network over a volume in overlapping tiles, in layers along z.

    Neighbouring tiles are blended with weights that fall linearly and reach 0 before the tile's border, so
    that no seam shows. After each layer the slices that no later layer reaches are yielded. Memory holds the
    weighted sums of one layer; the source is asked for no slice before the current layer.

    Args:
        runner: Runner of the network on one tile.
        source: Source of the tiles.
        tiling: Tile, overlap and halo.
        progress: Progress bar over the tiles.
        room: Bytes of freed memory that the allocator may keep between tiles on a CPU; None for no limit.

    Yields:
        Index of the first slice, and the slices `(x, y, n)`, float32, clipped to [0, 1], in order. They lie
        on the runner's output grid. The source drops them afterwards.
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
    """Moves the unfinished slices to the front and clears the rest."""
    open_ = total.shape[2] - done
    total[:, :, :open_] = total[:, :, done:].clone()
    total[:, :, open_:] = 0


def _reusing_memory(device: torch.device) -> AbstractContextManager[None]:
    return freed_memory_reused() if device.type == "cpu" else nullcontext()


def tiled_forward(
    network: nn.Module,
    phases: PhaseVolume,
    tiling: Tiling | None = None,
    precision: torch.dtype | None = None,
    progress: Progress | None = None,
    *,
    present: Sequence[int] | None = None,
    self_ensemble: bool = False,
    target: int = -1,
) -> SpatialVolume:
    """Runs a network over a volume in overlapping tiles; see `sweep`.

    Volume and result stay on the volume's device; one tile at a time is on the network's.

    Args:
        network: Network from `(1, P, x, y, z)` to `(1, 1, x, y, z)`, in evaluation mode. An attribute `scale`
            is the factor by which the result's grid is finer.
        phases: Phases `(P, x, y, z)` in [0, 1]; NaN where a phase but the target has no voxel.
        tiling: Tile, overlap and halo.
        precision: Number type of the convolutions; the device's preferred one if None.
        progress: Progress bar over the tiles.
        present: Indices of the available phases, for networks with optional phases; None if all are there.
        self_ensemble: Mean over eight orientations of each tile.
        target: Place of the target among the phases.

    Returns:
        Enhanced volume `(scale * x, scale * y, scale * z)`, float32, clipped to [0, 1].

    Raises:
        ValueError: If the result's grid does not match the network's `scale`.

    >>> mean = nn.Conv3d(1, 1, 3, padding=1, bias=False).eval()
    >>> _ = nn.init.constant_(mean.weight, 1 / 27)
    >>> volume = tiled_forward(mean, torch.full((1, 40, 40, 12), 0.5), Tiling(tile=24, overlap=8))
    >>> volume.shape, round(float(volume[20, 20, 6]), 3)
    (torch.Size([40, 40, 12]), 0.5)
    """
    device = network_device(network) or phases.device
    runner = TileRunner(network, RunOptions(precision, present, self_ensemble, target), device)
    sides = [runner.scale * side for side in phases.shape[1:]]
    enhanced = torch.empty(sides, dtype=torch.float32, device=phases.device)
    for start, slab in sweep(runner, TensorTiles(phases), tiling or Tiling(), progress):
        enhanced[:, :, start : start + slab.shape[2]] = slab
    return enhanced
