"""Times PFNL3D and RCAN3D against straight ports of them: python benchmarks/networks.py [--csv FILE].

There are three tasks, at the networks' default sizes: the forward pass without gradients; a training step
(forward, loss, backward, Adam); a whole volume in overlapping tiles. The library's networks run in bfloat16
with channels_last_3d; the naive ports (naive_ports.py) in float32 and bfloat16 on the CPU, in bfloat16 on
CUDA, and through torch.compile. Each task is one run on one device, in turn, A B A B; times are medians.
"frozen" is the forward pass of inference: weights cast once, freed memory retained.

On CUDA each variant uses the largest batch that fits, at most --batch; times and speeds are per sample. Peak
memory is that above the network and the input, taken in the first run (compiled: the second).

Whole volumes go through the library's `tiled_forward`, the naive ports' too, which gain by its frozen weights
and CUDA graphs.

The networks' tests run first, and each variant is checked against the naive port in float32: the output of
the forward pass, a gradient in training, and for a volume the naive port's volume in bfloat16. Nothing is
timed if the tests fail; a variant that differs is not timed, and the exit status is 1.

Full runs take minutes; --network and --task choose a part, --append preserves the rows of a CSV.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from common import add_rows, device_provenance, tests_pass
from network_methods import (
    FULL,
    NAIVE_BF16,
    NAIVE_FP32,
    OK,
    TINY,
    VARIANTS,
    Job,
    Task,
    Trial,
    Variant,
    expected_of,
    halved,
    trial,
)
from timing import Times, in_turn

from mpfnl.inference.tiling import Tiling

TESTS = ("tests/networks",)
PATCH = {"cpu": 32, "cuda": 64}
VOLUME = {"cpu": (96, 96, 64), "cuda": (256, 256, 128)}
BATCH = {"cpu": 1, "cuda": 8}
REPEATS = {"cpu": 3, "cuda": 5}
COMPILED = {"cpu": (Task.FORWARD,), "cuda": tuple(Task)}  # on the CPU the others take minutes to compile
MB = 1e6


def jobs(options: argparse.Namespace) -> Iterator[Job]:
    networks = TINY if options.quick else FULL
    patch = 8 if options.quick else options.patch or PATCH[options.device]
    volume = (12, 10, 8) if options.quick else VOLUME[options.device]
    tiling = Tiling(8, 4) if options.quick else Tiling()
    for network in networks:
        for task in options.task:
            sides = volume if task is Task.VOLUME else (patch, patch, patch)
            if network.name in options.network:
                yield Job(network, task, sides, options.device, tiling)


def variants(options: argparse.Namespace, task: Task) -> list[Variant]:
    tasks = set(Task) if options.compile_all else set(COMPILED[options.device])
    compiled = set() if options.quick or options.no_compile else tasks
    return [
        variant
        for variant in VARIANTS[options.device]
        if task in variant.tasks and (task in compiled or not variant.compiled)
    ]


def try_each(job: Job, candidates: Sequence[Variant], batch: int) -> dict[str, Trial]:
    """One trial of each, against the reference; of whole volumes against the first that runs."""
    # The first variant on the CPU is the reference itself.
    first = job.task is Task.VOLUME or candidates[0].name == NAIVE_FP32
    expected = None if first else expected_of(job)
    batches = [1] if job.task is Task.VOLUME else list(halved(batch))
    trials = {}
    for variant in candidates:
        found = trials[variant.name] = trial(variant, job, batches, expected)
        if expected is None and found.prepared is not None:
            expected = found.prepared.witness().float()
        if job.device == "cuda":
            torch.cuda.empty_cache()
    return trials


def measure(job: Job, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """The rows of a job, printed as they are made."""
    print(f"{job.network.name}, {job.task}, {job.input}", flush=True)
    candidates = variants(options, job.task)
    if any(variant.compiled for variant in candidates):
        torch.compiler.reset()
    trials = try_each(job, candidates, options.batch or BATCH[job.device])
    sound = {name: found for name, found in trials.items() if found.status == OK and found.prepared}
    if job.task is Task.VOLUME and job.device == "cpu":  # minutes: the trial is the measurement
        times = {name: Times(found.seconds, found.seconds, found.seconds, 1) for name, found in sound.items()}
    else:
        runs = {name: found.prepared.run for name, found in sound.items() if found.prepared}
        repeats = options.repeats or (2 if options.quick else REPEATS[job.device])
        before = {name: found.seconds for name, found in sound.items()}
        settle = job.task is not Task.VOLUME
        times = in_turn(runs, repeats, job.device, settle=settle, before=before)
    each = {name: taken.median / sound[name].batch for name, taken in times.items()}
    for variant in candidates:
        yield row(job, variant.name, trials[variant.name], times.get(variant.name), each)


def row(job: Job, name: str, found: Trial, taken: Times | None, each: dict[str, float]) -> dict[str, object]:
    """One row of the table.

    Args:
        job: Finished job.
        name: The variant's.
        found: Its trial.
        taken: Its times, if any.
        each: Seconds a sample of every variant that was timed.
    """

    def milliseconds(seconds: float) -> str:
        return "" if taken is None else f"{seconds / found.batch * 1e3:.4g}"

    def speed_over(other: str) -> str:
        return f"{each[other] / each[name]:.3g}" if name in each and other in each else ""

    cells: dict[str, object] = {
        "network": job.network.name,
        "task": job.task,
        "input": job.input,
        "method": name,
        "status": found.status,
        "batch": found.batch,
        "error": "" if math.isnan(found.error) else f"{found.error:.1e}",
        "median_ms_per_sample": milliseconds(taken.median if taken else math.nan),
        "fastest_ms_per_sample": milliseconds(taken.fastest if taken else math.nan),
        "slowest_ms_per_sample": milliseconds(taken.slowest if taken else math.nan),
        "samples": taken.samples if taken else 0,
        "peak_mb": f"{found.peak / MB:.0f}" if found.batch else "",
        "speed_over_naive_fp32": speed_over(NAIVE_FP32),
        "speed_over_naive_bf16": speed_over(NAIVE_BF16),
    }
    print(f"  {name:27s} {describe(cells)}", flush=True)
    return cells


def describe(cells: dict[str, object]) -> str:
    if cells["status"] != OK:
        return str(cells["status"])
    told = (
        f"{cells['median_ms_per_sample']:>8} ms a sample, batch {cells['batch']}, peak {cells['peak_mb']} MB"
    )
    for column, name in (("speed_over_naive_fp32", NAIVE_FP32), ("speed_over_naive_bf16", NAIVE_BF16)):
        if cells[column]:
            told += f", {cells[column]} x {name}"
    return told


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--device", choices=sorted(VARIANTS), default="cpu")
    names = [network.name for network in FULL]
    made.add_argument("--network", nargs="+", choices=names, default=names)
    made.add_argument("--task", type=Task, nargs="+", choices=list(Task), default=list(Task))
    made.add_argument("--patch", type=int, help="edge in voxels")
    made.add_argument("--batch", type=int, help="the largest to try")
    made.add_argument("--repeats", type=int)
    made.add_argument("--threads", type=int, default=2, help="on the CPU")
    made.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    made.add_argument("--compile-all", action="store_true", help="compile for every task on the CPU too")
    made.add_argument("--quick", action="store_true", help="tiny, seconds: whether it works")
    made.add_argument("--csv", type=Path, help="also write the rows here")
    made.add_argument("--append", action="store_true", help="keep the rows that the CSV has")
    made.add_argument("--skip-tests", action="store_true", help="where the tests were run before")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not options.skip_tests and not tests_pass(TESTS):
        sys.exit("the tests of the networks fail: nothing is timed")
    # Variants with other batch sizes share the memory: without this it falls to pieces.
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    torch.set_num_threads(options.threads)
    made_by = device_provenance(options.device)
    print(", ".join(f"{name} {value}" for name, value in made_by.items()))
    rows = [row for job in jobs(options) for row in measure(job, options)]
    if options.csv:
        add_rows(options.csv, rows, made_by, keep=options.append)
    wrong = [row for row in rows if str(row["status"]).startswith("wrong")]
    if wrong:
        print(f"{len(wrong)} rows differ from the reference", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
