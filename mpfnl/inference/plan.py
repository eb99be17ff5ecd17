"""Memory is predicted before the start, and the work cut so that it stays within what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mpfnl.errors import InputError
from mpfnl.inference.footprint import TileCost
from mpfnl.inference.memory import GB
from mpfnl.inference.restore import BYTES_A_VOXEL, FINER_BYTES_A_VOXEL, REACH, Restorer
from mpfnl.inference.tiles import Tiling

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
