"""Prediction of memory before the start, and a plan of the work that stays within the limit."""

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

from mpfnl.errors import InputError
from mpfnl.inference.hounsfield import BYTES_A_VOXEL, FINER_BYTES_A_VOXEL, REACH, Restorer
from mpfnl.inference.memory import GB
from mpfnl.inference.runner import TileRunner
from mpfnl.inference.tiling import Tiling

SUM_BYTES = 4  # float32

UNSEEN = 64_000_000
"""Memory of the libraries beneath, which no tensor shows: code, thread stacks, buffers; as measured."""


SPLIT = 1.5
"""How often the second matrix of an unfolded convolution is reckoned with beside the first, which is so large
that it is sometimes split when it is freed, and room for the next is found elsewhere: as measured,
between never and four times."""


@dataclass(frozen=True)
class Load:
    """What there is to do.

    Args:
        sides: Voxels of the volume along x, y and z.
        streamed: Bytes a voxel of each scan that is read slab by slab; scans in memory count as held.
        result: Bytes a voxel of a result that is kept in memory; 0 where it is written slab by slab.
        tile: What the network takes for a tile, where it works in this process' memory.
        held: Bytes that the process holds before the start.
        highest: Bytes that it held at most so far.
        scale: How many times finer the result's grid is.
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
    """How the work is cut, and the memory that it takes at most.

    Args:
        tiling: The tiles.
        slices: How many of the input are mapped back to HU at a time.
        peak: Bytes that the process will hold at most.
        room: Bytes of them that the network takes for a tile.
        limit: Bytes that it may hold; None for no limit.
    """

    tiling: Tiling
    slices: int
    peak: int
    room: int
    limit: int | None

    @property
    def line(self) -> str:
        """The prediction in a line."""
        limit = "" if self.limit is None else f", of {in_gb(self.limit)} allowed"
        tiling = self.tiling
        return (
            f"memory: {in_gb(self.peak)} at most{limit}; tiles of {tiling.tile} voxels, overlap"
            f" {tiling.overlap}, halo {tiling.cut}"
        )


def make_plan(load: Load, tilings: Iterable[Tiling], limit: int | None, fixed: bool) -> Plan:
    """Takes the first tiling that stays within the limit, and as many slices at a time as do.

    Args:
        load: What there is to do.
        tilings: The one that is wanted, then others that take less.
        limit: Bytes that the process may hold; None for no limit.
        fixed: Whether the first tiling must be kept: the others are then only advised.

    Raises:
        InputError: None does; says what to do.
    """
    plans = [_with_most_slices(load, tiling, limit) for tiling in tilings]
    first = plans[0]
    fitting = [plan for plan in plans if _fits(plan)]
    if fitting and (not fixed or fitting[0] is first):
        return fitting[0]
    assert limit is not None
    least = min(plans, key=lambda plan: plan.peak)
    if fitting:
        advice = f"take --tile {fitting[0].tiling.tile} ({in_gb(fitting[0].peak)})"
    else:
        advice = f"the least, with --tile {least.tiling.tile}, is {in_gb(least.peak)}"
    sides = "x".join(map(str, load.sides))
    raise InputError(
        f"to enhance {sides} voxels with tiles of {first.tiling.tile} takes {in_gb(first.peak)} of memory,"
        f" {in_gb(limit)} are allowed; {advice}, or allow more with --max-memory GB"
    )


def predict(load: Load, tiling: Tiling, slices: int) -> int:
    """Bytes that the process will hold at most.

    The scans' slabs, of which one is moved at a time; the sums of a layer of tiles, and those that are done;
    a tile in the network; and the slices that are mapped back to HU. The last two are never needed at once,
    but what the one frees is not all fit for the other.
    """
    x, y, z = load.sides
    layer = min(tiling.tile, z)
    slab = min(layer + REACH, z)
    finer = load.scale**3
    scans = x * y * slab * (sum(load.streamed) + max(load.streamed, default=0))
    sums = 2 * x * y * layer * SUM_BYTES * finer
    restored = x * y * min(min(slices, layer) + 2 * REACH, z) * BYTES_A_VOXEL
    if finer > 1:
        restored += x * y * min(slices + 2, layer) * FINER_BYTES_A_VOXEL * finer
    result = x * y * z * load.result * finer
    tile = load.tile.of(tiling, load.sides) + int(SPLIT * load.tile.matrices(tiling, load.sides)[1])
    work = scans + sums + tile + restored + result
    return max(load.highest, load.held + UNSEEN + work)


def in_gb(count: float) -> str:
    """Bytes as messages show them: "1.84 GB"."""
    return f"{count / GB:.3g} GB"


def _with_most_slices(load: Load, tiling: Tiling, limit: int | None) -> Plan:
    room = load.tile.of(tiling, load.sides)
    plans = (Plan(tiling, slices, predict(load, tiling, slices), room, limit) for slices in _slices(load))
    smallest = next(plans)
    for plan in [smallest, *plans]:
        smallest = plan
        if _fits(plan):
            break
    return smallest


def _slices(load: Load) -> Iterator[int]:
    slices = min(Restorer(load.sides, 0.0, scale=load.scale).step, load.sides[2])
    while slices > 1:
        yield slices
        slices //= 2
    yield 1


def _fits(plan: Plan) -> bool:
    return plan.limit is None or plan.peak <= plan.limit


SMALL, LARGE = 8, 16  # edges of the tiles that are tried, in voxels


@dataclass(frozen=True)
class Unfolded:
    """A float32 convolution on a CPU, which PyTorch may do by unfolding its input into a matrix.

    Args:
        weight: The shape of its weight.
        padding: Of its input.
    """

    weight: tuple[int, ...]
    padding: tuple[int, ...]

    def bytes(self, sides: Sequence[int]) -> int:
        """What the matrix takes for a tile; 0 where PyTorch leaves the convolution to oneDNN."""
        _, channels, *kernel = self.weight
        number = torch.empty(1)
        tile, weight = number.expand(1, channels, *sides), number.expand(self.weight)
        ones, none = (1, 1, 1), (0, 0, 0)
        # Private, and there is no public one: the rule depends on sizes and changes between versions.
        backend = torch._C._select_conv_backend(tile, weight, None, ones, self.padding, ones, False, none, 1)
        unfolds = str(backend).endswith("Slow3d")
        return channels * math.prod(kernel) * math.prod(sides) * tile.itemsize if unfolds else 0


@dataclass(frozen=True)
class TileCost:
    """Bytes that are taken at once while a network works on a tile.

    Args:
        fixed: Of tensors, whatever the tile's size.
        a_voxel: Of tensors, for each voxel.
        unfolded: Every call of a convolution that may take more.
    """

    fixed: float = 0.0
    a_voxel: float = 0.0
    unfolded: tuple[Unfolded, ...] = ()

    def of(self, tiling: Tiling, sides: Sequence[int]) -> int:
        """Bytes for a tile of a volume with these sides."""
        voxels = math.prod(min(tiling.tile, side) for side in sides)
        return int(self.fixed + self.a_voxel * voxels) + self.matrices(tiling, sides)[0]

    def matrices(self, tiling: Tiling, sides: Sequence[int]) -> tuple[int, int]:
        """Bytes of the largest matrix of an unfolded convolution, and of the one that comes next in size."""
        tile = [min(tiling.tile, side) for side in sides]
        sizes = {convolution: convolution.bytes(tile) for convolution in set(self.unfolded)}
        largest = sorted((sizes[convolution] for convolution in self.unfolded), reverse=True)
        first, second, *_ = [*largest, 0, 0]
        return first, second


@torch.inference_mode()
def tile_cost(runner: TileRunner, phases: int) -> TileCost:
    """Runs a network on two small tiles, and counts the bytes of all tensors that are alive at once.

    Feature maps, which are nearly all of it, grow with the tile's voxels; so does the attention of the
    non-local block, which stores no matrix of pairs. What libraries beneath take is not seen, but for
    unfolded convolutions.

    Args:
        runner: Runs the network.
        phases: How many it is given.
    """

    def count(edge: int) -> _Counting:
        tile = torch.full((phases, edge, edge, edge), 0.5)
        counting = counted(lambda: runner(tile))
        counting.most += tile.nbytes
        return counting

    with torch.compiler.set_stance("force_eager"):
        small, large = count(SMALL), count(LARGE)
    a_voxel = (large.most - small.most) / (LARGE**3 - SMALL**3)
    return TileCost(max(0.0, small.most - a_voxel * SMALL**3), a_voxel, tuple(large.unfolded))


def live_bytes(run: Callable[[], object]) -> int:
    """The most bytes that the tensors made in a call take at one time."""
    return counted(run).most


def counted(run: Callable[[], object]) -> _Counting:
    """Counts what is made in a call."""
    with _Counting() as counting:
        run()
    return counting


class _Counting(TorchDispatchMode):
    """Adds up the storages that operations make, until each is freed; and notes convolutions."""

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
