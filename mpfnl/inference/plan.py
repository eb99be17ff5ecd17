"""Plan of an enhancement within a memory limit: predicted memory, tiles and steps."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mpfnl.errors import OptionError
from mpfnl.inference.hounsfield import BYTES_PER_VOXEL, FINER_BYTES_PER_VOXEL, REACH, slices_per_step
from mpfnl.inference.memory import GB
from mpfnl.inference.runner import TileRunner
from mpfnl.inference.tiling import Tiling

SUM_BYTES = 4  # float32

UNSEEN = 64_000_000
"""Measured memory of libraries that no tensor shows: code, thread stacks, buffers."""


SPLIT = 1.5
"""Factor of the second largest matrix of unfolded convolutions, which adds to the largest one. The largest is
sometimes split when it is freed, so that the next one takes other memory; measured between 0 and 4 times."""


@dataclass(frozen=True)
class Workload:
    """Sizes that determine the memory of an enhancement.

    Args:
        sides: Voxels of the volume along x, y and z.
        streamed: Bytes per voxel of each scan that is read slab by slab; scans in memory count as held.
        result: Bytes per voxel of a result in memory; 0 if it is written slab by slab.
        tile: Memory of the network for a tile, if it runs in this process' memory.
        held: Memory of the process before the start, in bytes.
        highest: Peak memory of the process so far, in bytes.
        scale: Factor by which the result's grid is finer.
    """

    sides: tuple[int, int, int]
    streamed: Sequence[int]
    result: int
    tile: TileCost
    held: int
    highest: int
    scale: int = 1


@dataclass(frozen=True)
class Plan:
    """Tiles and steps of an enhancement, and its peak memory.

    Args:
        tiling: Tile, overlap and halo.
        slices: Input slices that are converted to HU per step.
        peak: Predicted peak memory of the process, in bytes.
        room: Part of it for the network on one tile, in bytes.
        limit: Memory limit of the process in bytes; None for no limit.
    """

    tiling: Tiling
    slices: int
    peak: int
    room: int
    limit: int | None

    @property
    def line(self) -> str:
        """The plan in one line."""
        limit = "" if self.limit is None else f", of {in_gb(self.limit)} allowed"
        tiling = self.tiling
        return (
            f"memory: {in_gb(self.peak)} at most{limit}; tiles of {tiling.tile} voxels, overlap"
            f" {tiling.overlap}, halo {tiling.cut}"
        )


def make_plan(workload: Workload, tilings: Iterable[Tiling], limit: int | None, fixed: bool) -> Plan:
    """Chooses the first tiling within the memory limit, and as many slices per step as fit.

    Args:
        workload: Sizes of volume, scans and tile.
        tilings: Preferred tiling, then smaller ones.
        limit: Memory limit of the process in bytes; None for no limit.
        fixed: Whether the first tiling is obligatory; the message then suggests one of the others.

    Raises:
        OptionError: If no tiling fits; the message names the option to change.
    """
    plans = [_with_most_slices(workload, tiling, limit) for tiling in tilings]
    first = plans[0]
    fitting = [plan for plan in plans if _fits(plan)]
    if fitting and (not fixed or fitting[0] is first):
        return fitting[0]
    assert limit is not None
    least = min(plans, key=lambda plan: plan.peak)
    if fitting:
        advice = f"use --tile {fitting[0].tiling.tile} ({in_gb(fitting[0].peak)})"
    else:
        advice = f"the minimum, with --tile {least.tiling.tile}, is {in_gb(least.peak)}"
    sides = "x".join(map(str, workload.sides))
    raise OptionError(
        f"{sides} voxels with tiles of {first.tiling.tile} need {in_gb(first.peak)} of memory, the limit is"
        f" {in_gb(limit)}; {advice}, or a larger --max-memory GB"
    )


def predict(workload: Workload, tiling: Tiling, slices: int) -> int:
    """Predicted peak memory of the process in bytes.

    The sum of the scans' slabs, of which one is moved at a time; the weighted sums of a layer of tiles and
    its finished slices; a tile in the network; and the slices that are converted to HU. The last two are
    never needed at once, but the freed memory of one does not always fit the other.
    """
    x, y, z = workload.sides
    layer = min(tiling.tile, z)
    slab = min(layer + REACH, z)
    finer = workload.scale**3
    scans = x * y * slab * (sum(workload.streamed) + max(workload.streamed, default=0))
    sums = 2 * x * y * layer * SUM_BYTES * finer
    restored = x * y * min(min(slices, layer) + 2 * REACH, z) * BYTES_PER_VOXEL
    if finer > 1:
        restored += x * y * min(slices + 2, layer) * FINER_BYTES_PER_VOXEL * finer
    result = x * y * z * workload.result * finer
    tile = workload.tile.of(tiling, workload.sides) + int(
        SPLIT * workload.tile.matrices(tiling, workload.sides)[1]
    )
    work = scans + sums + tile + restored + result
    return max(workload.highest, workload.held + UNSEEN + work)


def in_gb(count: float) -> str:
    """Bytes in words, as in "1.84 GB"."""
    return f"{count / GB:.3g} GB"


def _with_most_slices(workload: Workload, tiling: Tiling, limit: int | None) -> Plan:
    room = workload.tile.of(tiling, workload.sides)
    plans = (
        Plan(tiling, slices, predict(workload, tiling, slices), room, limit) for slices in _slices(workload)
    )
    smallest = next(plans)
    for plan in [smallest, *plans]:
        smallest = plan
        if _fits(plan):
            break
    return smallest


def _slices(workload: Workload) -> Iterator[int]:
    slices = min(slices_per_step(workload.sides, workload.scale), workload.sides[2])
    while slices > 1:
        yield slices
        slices //= 2
    yield 1


def _fits(plan: Plan) -> bool:
    return plan.limit is None or plan.peak <= plan.limit


SMALL, LARGE = 8, 16  # edges of the measured tiles in voxels


@dataclass(frozen=True)
class Unfolded:
    """A float32 convolution on a CPU, which PyTorch may compute by unfolding its input into a matrix.

    Args:
        weight: Shape of the weight.
        padding: Padding of the input along x, y and z.
    """

    weight: tuple[int, ...]
    padding: tuple[int, ...]

    def bytes(self, sides: Sequence[int]) -> int:
        """Bytes of the matrix for a tile; 0 if oneDNN computes the convolution."""
        _, channels, *kernel = self.weight
        number = torch.empty(1)
        tile, weight = number.expand(1, channels, *sides), number.expand(self.weight)
        ones, none = (1, 1, 1), (0, 0, 0)
        # Private, since PyTorch has no public function; the rule depends on sizes and version.
        backend = torch._C._select_conv_backend(tile, weight, None, ones, self.padding, ones, False, none, 1)
        unfolds = str(backend).endswith("Slow3d")
        return channels * math.prod(kernel) * math.prod(sides) * tile.itemsize if unfolds else 0


@dataclass(frozen=True)
class TileCost:
    """Peak memory of a network on one tile.

    Args:
        fixed: Bytes of tensors that do not depend on the tile's size.
        per_voxel: Bytes of tensors per voxel.
        unfolded: Calls of convolutions that PyTorch may unfold.
    """

    fixed: float = 0.0
    per_voxel: float = 0.0
    unfolded: tuple[Unfolded, ...] = ()

    def of(self, tiling: Tiling, sides: Sequence[int]) -> int:
        """Bytes for a tile of a volume with these sides."""
        voxels = math.prod(min(tiling.tile, side) for side in sides)
        return int(self.fixed + self.per_voxel * voxels) + self.matrices(tiling, sides)[0]

    def matrices(self, tiling: Tiling, sides: Sequence[int]) -> tuple[int, int]:
        """Bytes of the largest and the second largest matrix of unfolded convolutions."""
        tile = [min(tiling.tile, side) for side in sides]
        sizes = {convolution: convolution.bytes(tile) for convolution in set(self.unfolded)}
        largest = sorted((sizes[convolution] for convolution in self.unfolded), reverse=True)
        first, second, *_ = [*largest, 0, 0]
        return first, second


@torch.inference_mode()
def tile_cost(runner: TileRunner, phases: int) -> TileCost:
    """Peak memory of a network per tile, measured on two small tiles.

    The bytes of all live tensors are counted. Feature maps, nearly all of the memory, grow with the tile's
    voxels; so does the attention of the non-local block, which stores no matrix of pairs. Memory inside
    libraries is not counted, except for unfolded convolutions.

    Args:
        runner: Runner of the network.
        phases: Number of input phases.
    """

    def count(edge: int) -> _Counting:
        tile = torch.full((phases, edge, edge, edge), 0.5)
        counting = counted(lambda: runner(tile))
        counting.most += tile.nbytes
        return counting

    with torch.compiler.set_stance("force_eager"):
        small, large = count(SMALL), count(LARGE)
    per_voxel = (large.most - small.most) / (LARGE**3 - SMALL**3)
    return TileCost(max(0.0, small.most - per_voxel * SMALL**3), per_voxel, tuple(large.unfolded))


def live_bytes(run: Callable[[], object]) -> int:
    """Peak bytes of the tensors that a call creates."""
    return counted(run).most


def counted(run: Callable[[], object]) -> _Counting:
    """Tensors that a call creates."""
    with _Counting() as counting:
        run()
    return counting


class _Counting(TorchDispatchMode):
    """Sum of the live storages that operations create, and their convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self.unfolded: list[Unfolded] = []
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        if func is torch.ops.aten.conv3d.default:
            self._note(*args)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            weakref.finalize(storage, self._alive.pop, key, None)
            self.most = max(self.most, sum(self._alive.values()))

    def _note(
        self,
        tile: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Sequence[int] = (1,),
        padding: Sequence[int] = (0, 0, 0),
        dilation: Sequence[int] = (1,),
        groups: int = 1,
    ) -> None:
        plain = set(stride) == set(dilation) == {1} and groups == 1
        if plain and tile.dtype is torch.float32 and tile.device.type == "cpu":
            self.unfolded.append(Unfolded(tuple(weight.shape), tuple(padding)))
