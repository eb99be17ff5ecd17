"""The search for the Triton kernels' tiles, for `benchmarks/nonlocal_attention.py --tune`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import Any

from attention_cases import Case, Task, at_precision, errors
from attention_methods import Method, attempt, by_implementation, complaint, task_on
from timing import in_turn

from mpfnl.ops.nonlocal_attention import Implementation

ROWS, COLUMNS, WARPS, STAGES = (64, 128), (32, 64, 128), (4, 8), (2, 3, 4)
SHOWN = 3
TRITON = Method("ours, triton", by_implementation(Implementation.TRITON), ours=True)


@dataclass(frozen=True)
class Timed:
    tiles: Any  # launch.Tiles: that module needs Triton
    seconds: float


def tune(cases: Sequence[Case], repeats: int) -> int:
    """Prints the fastest tiles of each case; those of the forward kernel also hold in its backward cases.

    Returns:
        The exit status: 1 where there are no kernels.
    """
    try:
        from mpfnl.ops.nonlocal_attention.kernels import launch
    except ImportError as error:
        print(f"no kernels to tune: {error}", file=sys.stderr)
        return 1
    for case in cases:
        which = "forward" if case.task is Task.FORWARD else "backward"
        found, tried = [], 0
        for shape in product(ROWS, COLUMNS, WARPS, STAGES):
            tiles, tried = launch.Tiles(*shape), tried + 1
            seconds = timed(case, launch.use_tiles(**{which: tiles}), repeats)
            if seconds is not None:
                found.append(Timed(tiles, seconds))
        print(f"{case.mode}, {case.task}, N = {case.positions}, {case.precision}: ", end="")
        print(f"{len(found)} of {tried} tiles of the {which} kernel run and are right")
        for line in best(found):
            print(f"  {line}", flush=True)
    return 0


def timed(case: Case, cut: AbstractContextManager[None], repeats: int) -> float | None:
    """Seconds with these tiles; None if they do not run or give a wrong result."""
    inputs = case.inputs()
    with cut, at_precision(case.precision):
        results, _ = attempt(task_on(TRITON, inputs))
        if results is None or complaint(TRITON, case, *errors(results, inputs)):
            return None
        runs = {TRITON.name: task_on(TRITON, inputs, dense=True)}
        return in_turn(runs, repeats, case.device)[TRITON.name].median


def best(found: Sequence[Timed]) -> Iterator[str]:
    for each in sorted(found, key=lambda each: each.seconds)[:SHOWN]:
        yield f"{each.seconds * 1e3:8.3f} ms  {each.tiles}"
