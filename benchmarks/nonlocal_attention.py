"""Times the non-local operator and its alternatives: python benchmarks/nonlocal_attention.py [--csv FILE].

The alternatives are the materialised form softmax(q k^T) v with autograd, the same through torch.compile, and
every backend of PyTorch's scaled dot-product attention. The library's methods are its own code for the device
by name (`blockwise` or `triton`), and the operator's automatic choice. Query and key are one tensor
(`gaussian`, the networks' default) or two (`embedded`). Gradients, where taken, are those of all inputs.

Each method first runs once alone, on the CPU in a fresh process, which measures its peak memory above the
inputs and checks its output (and gradients) against float64, on 256 rows for larger N. A wrong result, a
backend that refuses the case, and a lack of memory each give a row with the reason. The other methods are
timed in turn, A B A B, after a warm-up; times are medians. The exit status is 1 if a method of the library is
wrong or fails. Nothing is measured if the operator's tests fail.

The theoretical limit on CUDA is one exponential per score at 16 per clock and multiprocessor: N^2 / (16 *
multiprocessors * clock) seconds at the highest clock that the driver reports (an H100 at 1.75 GHz: N^2 /
3.7e12). With the backward pass it is two exponentials per score, because each is computed again.
`floor_fraction` is the limit over the measured time. Mode `gaussian` needs half of the exponentials if its
symmetry is used, so that the fraction could exceed 1.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from attention_cases import Case, Mode, Precision, Task, at_precision
from attention_methods import MATERIALISED, OK, Method, Trial, methods, task_on, trial, trial_by_name
from common import add_rows, device_provenance, tests_pass
from memory import available
from tiles import tune
from timing import Times, apart, in_turn

TESTS = ("tests/ops",)
DISPATCHED = "ours, dispatched"
EXPONENTIALS_A_CLOCK = 16  # of a multiprocessor
MATRICES = {Task.FORWARD: 2, Task.BOTH: 4}  # N x N, that the materialised form holds at a time
MB = 1e6


@dataclass(frozen=True)
class Defaults:
    """What is measured on a device if nothing else is asked for."""

    positions: tuple[int, ...]
    precisions: tuple[Precision, ...]
    large: tuple[int, ...]
    repeats: int


DEFAULTS = {
    "cpu": Defaults((4096, 13824), (Precision.FLOAT32, Precision.BFLOAT16), (110592,), 5),
    "cuda": Defaults(
        (4096, 32768, 110592, 262144), (Precision.FLOAT16, Precision.BFLOAT16, Precision.TF32), (), 7
    ),
}
QUICK = Defaults((256,), (Precision.FLOAT32,), (), 2)


def floor_seconds(case: Case, clock_ghz: float) -> float:
    """The shortest time that the exponentials alone take; see the top of this file."""
    units = torch.cuda.get_device_properties(0).multi_processor_count * EXPONENTIALS_A_CLOCK
    exponentials = case.positions**2 * (2 if case.task is Task.BOTH else 1)
    return exponentials / (units * clock_ghz * 1e9)


def highest_clock_ghz() -> float:
    """Of the multiprocessors, as the driver reports it; NaN where nvidia-smi is missing."""
    command = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    try:
        return (
            float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]) / 1e3
        )
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return math.nan


def free_memory(device: str) -> int:
    return torch.cuda.mem_get_info()[0] if device == "cuda" else available()


def reason_to_skip(method: Method, case: Case) -> str:
    """Why a method is not tried at all; empty if it is."""
    if method.quadratic:
        # On CUDA running out of memory is an error that can be caught, on the CPU the process is ended.
        matrices, size = MATRICES[case.task], 4
        if case.device == "cuda":
            matrices, size = 1, case.precision.dtype.itemsize
        needed = matrices * size * case.positions**2
        if needed > free_memory(case.device) / 2:
            return f"skipped: {needed / 1e9:.1f} GB of matrices"
    if case.device == "cuda" and method.ours and case.precision is Precision.FLOAT32:
        return "" if method.name == DISPATCHED else "skipped: it rounds float32 to tf32"
    return ""


def try_each(case: Case, candidates: Sequence[Method], threads: int) -> dict[str, Trial]:
    trials = {}
    for method in candidates:
        skipped = reason_to_skip(method, case)
        if skipped:
            trials[method.name] = Trial(skipped)
        elif case.device == "cuda":
            trials[method.name] = trial(case, method)
        else:
            try:
                trials[method.name] = apart(trial_by_name, case, method.name, threads)
            except MemoryError:
                trials[method.name] = Trial("out of memory")
    return trials


def time_each(case: Case, candidates: Sequence[Method], repeats: int) -> dict[str, Times]:
    if any(method.compiled for method in candidates):
        torch.compiler.reset()  # else the compiler gives up after some shapes
    inputs = case.inputs()
    with at_precision(case.precision):
        runs = {method.name: task_on(method, inputs, dense=True) for method in candidates}
        return in_turn(runs, repeats, case.device)


def measure(
    case: Case, candidates: Sequence[Method], repeats: int, threads: int, clock_ghz: float
) -> Iterator[dict[str, object]]:
    """The rows of a case, printed as they are made."""
    print(
        f"{case.mode}, {case.task}, N = {case.positions}, C = {case.channels}, {case.precision}", flush=True
    )
    trials = try_each(case, candidates, threads)
    sound = [method for method in candidates if trials[method.name].status == OK]
    times = time_each(case, sound, repeats) if repeats else {}
    for method in candidates:
        found = trials[method.name]
        taken = times.get(method.name)
        if taken is None and found.status == OK:  # a large case: the one run of the trial
            taken = Times(found.seconds, found.seconds, found.seconds, 1)
        yield row(case, method, found, taken, baselines(candidates, times), clock_ghz)


def baselines(candidates: Iterable[Method], times: dict[str, Times]) -> tuple[float, float]:
    """Seconds of the materialised form and of the fastest SDPA backend; NaN where there is none."""
    backends = [times[method.name].median for method in candidates if method.sdpa and method.name in times]
    materialised = times[MATERIALISED].median if MATERIALISED in times else math.nan
    return materialised, min(backends, default=math.nan)


def row(
    case: Case,
    method: Method,
    found: Trial,
    taken: Times | None,
    against: tuple[float, float],
    clock_ghz: float,
) -> dict[str, object]:
    """One row of the table; cells are empty where there is nothing to tell."""

    def cell(value: float, form: str) -> str:
        return "" if math.isnan(value) else format(value, form)

    ran, seconds = not math.isnan(found.error), taken.median if taken else math.nan
    floor = floor_seconds(case, clock_ghz) if case.device == "cuda" else math.nan
    cells: dict[str, object] = {
        "mode": case.mode,
        "task": case.task,
        "positions": case.positions,
        "channels": case.channels,
        "precision": case.precision,
        "method": method.name,
        "status": found.status,
        "error": cell(found.error, ".1e"),
        "gradient_error": cell(found.gradient_error, ".1e") if case.task is Task.BOTH else "",
        "median_ms": cell(seconds * 1e3, ".4g"),
        "fastest_ms": cell(taken.fastest * 1e3, ".4g") if taken else "",
        "slowest_ms": cell(taken.slowest * 1e3, ".4g") if taken else "",
        "samples": taken.samples if taken else 0,
        "peak_mb_above_inputs": cell(found.peak / MB, ".1f") if ran else "",
        "speed_over_materialised": cell(against[0] / seconds, ".3g"),
        "speed_over_fastest_sdpa": cell(against[1] / seconds, ".3g"),
        "floor_fraction": cell(floor / seconds, ".3f"),
        "clock_ghz": cell(clock_ghz, ".3f"),
    }
    print(f"  {method.name:28s} {describe(cells)}", flush=True)
    return cells


def describe(cells: dict[str, object]) -> str:
    if cells["status"] != OK:
        return str(cells["status"])
    told = f"{cells['median_ms']:>9} ms  {cells['peak_mb_above_inputs']:>9} MB  error {cells['error']}"
    if cells["gradient_error"]:
        told += f" (gradients {cells['gradient_error']})"
    for column, text in (
        ("speed_over_materialised", "{} x materialised"),
        ("speed_over_fastest_sdpa", "{} x fastest SDPA"),
        ("floor_fraction", "{} of the floor"),
    ):
        if cells[column]:
            told += "  " + text.format(cells[column])
    return told


def chosen_cases(options: argparse.Namespace, defaults: Defaults) -> Iterator[tuple[Case, bool]]:
    """The cases, and whether they are large: ours alone, one run."""
    precisions = options.precision or defaults.precisions
    given = options.n is not None or options.large is not None
    sizes = (options.n or (), options.large or ()) if given else (defaults.positions, defaults.large)
    for large in (False, True):
        for n in sizes[large]:
            for precision in precisions[: 1 if large else None]:
                for mode in options.mode:
                    for task in options.task:
                        yield Case(n, mode, task, precision, options.device), large


def report(options: argparse.Namespace, defaults: Defaults) -> list[dict[str, object]]:
    candidates = methods(options.device)
    if options.quick or options.no_compile:
        candidates = [method for method in candidates if not method.compiled]
    clock = math.nan
    if options.device == "cuda":
        clock = options.clock_ghz or highest_clock_ghz()
    repeats = options.repeats or defaults.repeats
    rows: list[dict[str, object]] = []
    for case, large in chosen_cases(options, defaults):
        kept = [method for method in candidates if method.name == DISPATCHED] if large else candidates
        rows += measure(case, kept, 0 if large else repeats, options.threads, clock)
    return rows


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--device", choices=sorted(DEFAULTS), default="cpu")
    made.add_argument("--n", type=int, nargs="+", help="numbers of positions")
    made.add_argument("--large", type=int, nargs="+", help="the same, for ours alone and one run")
    made.add_argument("--precision", "--dtype", type=Precision, nargs="+", choices=list(Precision))
    made.add_argument("--mode", type=Mode, nargs="+", choices=list(Mode), default=list(Mode))
    made.add_argument("--task", type=Task, nargs="+", choices=list(Task), default=list(Task))
    made.add_argument("--repeats", type=int, help="samples of each method")
    made.add_argument("--threads", type=int, default=2, help="on the CPU")
    made.add_argument("--clock-ghz", type=float, help="of the floor; the device's highest if left out")
    made.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    made.add_argument("--quick", action="store_true", help="small, seconds: whether it works")
    made.add_argument("--tune", action="store_true", help="try the Triton kernels' tiles instead")
    made.add_argument("--csv", type=Path, help="also write the rows here")
    made.add_argument("--append", action="store_true", help="keep the rows that the CSV has")
    made.add_argument("--skip-tests", action="store_true", help="where the tests were run before")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if not options.skip_tests and not tests_pass(TESTS):
        sys.exit("the tests of the operator fail: nothing is measured")
    defaults = QUICK if options.quick else DEFAULTS[options.device]
    torch.set_num_threads(options.threads)
    made_by = device_provenance(options.device)
    print(", ".join(f"{name} {value}" for name, value in made_by.items()))
    if options.tune:
        cases = [case for case, large in chosen_cases(options, defaults) if not large]
        return tune(cases, options.repeats or 3)
    rows = report(options, defaults)
    if options.csv:
        add_rows(options.csv, rows, made_by, keep=options.append)
    bad = [row for row in rows if str(row["method"]).startswith("ours") and row["status"] != OK]
    failed = [row for row in bad if not str(row["status"]).startswith("skipped")]
    if failed:
        print(f"{len(failed)} rows of ours are wrong or failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
