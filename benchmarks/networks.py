"""Times PFNL3D and RCAN3D against straight ports of them: python benchmarks/networks.py [--csv FILE].

One run on one device: naive in float32, the library's in bfloat16 with channels_last_3d, in turn, several
times. Prints medians and their ratio. The networks' tests run first and the outputs are compared; nothing is
timed while tests are red or outputs differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import cpu_name, provenance, tests_pass, write_csv
from naive_ports import NaivePFNL3D, NaiveRCAN3D
from torch import Tensor, nn

from mpfnl.networks import PFNL3DNet, RCAN3DNet

REPEATS = 5
RATIO = "ratio_naive_fp32_over_ours_bf16"
TESTS = ("tests/networks/test_networks.py",)


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def in_turn(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Medians of several runs, A B A B, after one warm-up each."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(timed(run))
    return {name: statistics.median(values) for name, values in times.items()}


def pair(naive: nn.Module, ours: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Both with the same drawn weights; checks that they agree."""
    generator = torch.Generator().manual_seed(0)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.02, generator=generator)
    naive.load_state_dict(ours.state_dict())
    phases = ours.get_parameter("first.weight").shape[1] if isinstance(ours, RCAN3DNet) else 3
    x = torch.rand(1, phases, 8, 8, 8, generator=generator)
    with torch.no_grad():
        difference = (naive(x) - ours(x)).norm() / naive(x).norm()
    if difference > 1e-4:
        sys.exit(f"the networks differ by {difference:.1e}: nothing is timed")
    return naive, ours.to(memory_format=torch.channels_last_3d)


def forward(network: nn.Module, x: Tensor, bf16: bool) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return network(x)

    return run


def step(network: nn.Module, x: Tensor, bf16: bool) -> Callable[[], object]:
    def run() -> object:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = network(x).float().square().mean()
        return loss.backward()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--csv", type=Path, help="also write the rows here")
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--skip-tests", action="store_true", help="for quick tries: nothing to publish")
    options = parser.parse_args()
    if not options.skip_tests and not tests_pass(TESTS):
        sys.exit("the tests of the networks fail: nothing is timed")
    torch.set_num_threads(options.threads)
    print(f"{cpu_name()}, {options.threads} threads, torch {torch.__version__}, median of {options.repeats}")
    made_by = provenance()
    rows: list[dict[str, object]] = []
    for name, phases, (naive, ours) in (
        ("PFNL3D", 3, pair(NaivePFNL3D(), PFNL3DNet())),
        ("RCAN3D", 1, pair(NaiveRCAN3D(), RCAN3DNet())),
    ):
        x = torch.rand(1, phases, 32, 32, 32)
        for task, make in (("forward", forward), ("forward and backward", step)):
            runs = {"naive fp32": make(naive, x, False), "ours bf16": make(ours, x, True)}
            times = in_turn(runs, options.repeats)
            ratio = times["naive fp32"] / times["ours bf16"]
            print(f"{name} {task}, {phases}x32x32x32: {ratio:.2f} times the naive fp32 port's speed")
            rows.append({"network": name, "task": task, RATIO: f"{ratio:.3f}"})
    if options.csv:
        write_csv(options.csv, rows, made_by)


if __name__ == "__main__":
    main()
