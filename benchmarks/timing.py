"""Times and memory peaks of the benchmarks: methods in turn, the device's own clock, fresh processes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import ParamSpec, TypeAlias, TypeVar

import torch
from memory import rise

Run: TypeAlias = Callable[[], object]
P = ParamSpec("P")
T = TypeVar("T")

LEAST_SAMPLE_S = {"cpu": 0.1, "cuda": 0.05}
"""A sample is as many runs in a row as take so long: short ones drown in what else the machine does."""


@dataclass(frozen=True)
class Times:
    """Seconds a run: of the samples the median, the shortest and the longest."""

    median: float
    fastest: float
    slowest: float
    samples: int


def sample(run: Run, device: str, launches: int = 1) -> float:
    """Seconds a run, over several in a row; on CUDA between two events on the stream."""
    if device != "cuda":
        start = time.perf_counter()
        for _ in range(launches):
            run()
        return (time.perf_counter() - start) / launches
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    first.record()
    for _ in range(launches):
        run()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1000 / launches


def in_turn(
    runs: Mapping[str, Run],
    repeats: int,
    device: str = "cpu",
    *,
    settle: bool = False,
    before: Mapping[str, float] | None = None,
) -> dict[str, Times]:
    """Times several runs in turn, A B A B, after one warm-up run of each, or two of short ones.

    Args:
        runs: Functions by name.
        repeats: Samples of each.
        device: "cpu" or "cuda".
        settle: On CUDA, give cached memory back before each sample, and run once more: for runs that fill
            the device's memory.
        before: Seconds of a run that was done already: where it took a second or more on the CPU, it was
            the warm-up.
    """
    launches = {}
    for name, run in runs.items():
        if before and device == "cpu" and before[name] >= 1:
            launches[name] = 1
            continue
        if settle and device == "cuda":
            torch.cuda.empty_cache()
        seconds = sample(run, device)
        if seconds < 1:  # the first run of all may have compiled and loaded
            seconds = max(sample(run, device), 1e-6)
        launches[name] = max(1, math.ceil(LEAST_SAMPLE_S[device] / seconds))
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            if settle and device == "cuda":
                torch.cuda.empty_cache()
                run()
            taken[name].append(sample(run, device, launches[name]))
    return {
        name: Times(statistics.median(each), min(each), max(each), len(each)) for name, each in taken.items()
    }


def peak_above(run: Run, device: str) -> int:
    """Bytes that a run takes at its highest, above what is held before it.

    On CUDA what PyTorch's allocator hands out; on the CPU what the process holds (see `memory.rise`), which
    is right only in a process that has not done other work before.
    """
    if device != "cuda":
        return rise(run)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def apart(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls a function of an importable module in a fresh process, where PyTorch is already imported.

    Raises:
        MemoryError: If the system ended the process, as it does where memory runs out.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload(["torch", "mpfnl.ops"])
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(function, *arguments, **named).result()
    except BrokenProcessPool:
        raise MemoryError("the process was ended") from None
