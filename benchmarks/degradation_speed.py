"""Times the degradation of a sample against TorchIO's: python benchmarks/degradation_speed.py [--csv FILE].

A sample is three phases of 96x96x96 voxels of 0.8 x 0.8 x 1.5 mm, each degraded by its own draw, on one CPU
core. mpfnl runs `second-order-v1` as drawn (two stages, random operations), the same with every operation of
both stages, and one stage with every operation. TorchIO's nearest composition is RandomBlur, RandomAnisotropy
and RandomNoise on a subject of the three phases, with the ranges of the first stage; it degrades once, blurs
all phases alike and makes one axis coarse. All run the same number of draws, in turn, A B A B, after a
warm-up; the report holds medians and the ratio to TorchIO in the same run. Nothing is measured if the tests
of the transforms fail.

With --device cuda: a batch of patches of three phases at once on the GPU (`apply_batch`), against the same
volumes one by one on the GPU, and on one CPU core.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import device_provenance, tests_pass, write_csv
from timing import Times, in_turn

from mpfnl.phases import PHASES
from mpfnl.transforms import Preset, apply_parameters, sample_parameters
from mpfnl.transforms.degradation import SECOND_ORDER_V1, apply_batch
from mpfnl.transforms.degradation.convolution import FWHM_PER_SIGMA
from mpfnl.transforms.degradation.second_order import SecondOrderStage

TESTS = ("tests/transforms",)
SPACING = (0.8, 0.8, 1.5)
TORCHIO = "TorchIO: RandomBlur, RandomAnisotropy, RandomNoise"
DRAWN = "second-order-v1"


@dataclass(frozen=True)
class Row:
    """The time of one method."""

    method: str
    edge: int
    median_ms: float
    fastest_ms: float
    slowest_ms: float
    to_alternative: float


def in_full(preset: Preset, stages: int) -> Preset:
    """The preset with every operation of its first stages."""
    full = [
        replace(stage, blur_probability=1.0, resize_probability=1.0, noise_probability=1.0)
        for stage in preset.stages[:stages]
        if isinstance(stage, SecondOrderStage)
    ]
    return replace(preset, stages=tuple(full))


def volumes(count: int, edge: int) -> torch.Tensor:
    """Soft tissue with noise, `(count, edge, edge, edge)` in HU."""
    return torch.randn((count, edge, edge, edge), generator=torch.Generator().manual_seed(0)) * 60 + 40


def ours(preset: Preset, phases: torch.Tensor, draws: int) -> Callable[[], None]:
    """Degrades `draws` samples, each phase by its own draw."""

    def run() -> None:
        for draw in range(draws):
            for place, hu in enumerate(phases):
                apply_parameters(hu, SPACING, sample_parameters(preset, len(PHASES) * draw + place))

    return run


def torchios(phases: torch.Tensor, draws: int) -> Callable[[], None]:
    """TorchIO's composition, with the ranges of our first stage."""
    import SimpleITK
    import torchio as tio

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    stage = SECOND_ORDER_V1.stages[0]
    assert isinstance(stage, SecondOrderStage)
    low, high = (fwhm / FWHM_PER_SIGMA for fwhm in stage.blur_fwhm_mm)
    composition = tio.Compose(
        [
            tio.RandomBlur(std=(low, high)),
            tio.RandomAnisotropy(axes=(0, 1, 2), downsampling=(1.5, stage.max_factor)),
            tio.RandomNoise(std=stage.noise_sd_hu),
        ]
    )
    affine = np.diag([*SPACING, 1.0])
    scans = {
        phase.value: tio.ScalarImage(tensor=hu[None], affine=affine)
        for phase, hu in zip(PHASES, phases, strict=True)
    }

    def run() -> None:
        torch.manual_seed(0)
        for _ in range(draws):
            composition(tio.Subject(scans))

    return run


def on_gpu(patches: torch.Tensor) -> Mapping[str, Callable[[], object]]:
    """A batch at once and one by one on the GPU, and one by one on the CPU."""
    records: list[dict[str, Any]] = [sample_parameters(SECOND_ORDER_V1, seed) for seed in range(len(patches))]
    moved, spacings = patches.cuda(), [SPACING] * len(patches)

    def one_by_one(hu: torch.Tensor) -> list[torch.Tensor]:
        return [apply_parameters(each, SPACING, record) for each, record in zip(hu, records, strict=True)]

    return {
        "batch on the GPU": lambda: apply_batch(moved, spacings, records),
        "one by one on the GPU": lambda: one_by_one(moved),
        "one by one on one CPU core": lambda: one_by_one(patches),
    }


def table(times: Mapping[str, Times], edge: int, runs: int, against: str) -> list[Row]:
    """Milliseconds a sample, and the ratio of medians to the method that it is measured against."""
    base, scale = times[against].median, 1e3 / runs
    return [
        Row(
            name,
            edge,
            round(taken.median * scale, 3),
            round(taken.fastest * scale, 3),
            round(taken.slowest * scale, 3),
            round(taken.median / base, 3),
        )
        for name, taken in times.items()
    ]


def report(rows: list[Row], against: str) -> None:
    """Prints the table."""
    print(f"{'':54s} median  fastest  slowest   ratio to {against.split(':')[0]}")
    for row in rows:
        numbers = f"{row.median_ms:7.2f}  {row.fastest_ms:7.2f}  {row.slowest_ms:7.2f} ms"
        print(f"{row.method:52s} {numbers}   {row.to_alternative:.2f}")


def main() -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--edge", type=int, help="voxels along an edge (default 96; cuda: 40)")
    parser.add_argument("--draws", type=int, default=12, help="samples a measurement (default 12)")
    parser.add_argument("--repeats", type=int, default=7, help="measurements (default 7)")
    parser.add_argument("--batch", type=int, default=24, help="cuda: volumes a batch (default 24)")
    parser.add_argument("--skip-tests", action="store_true", help="where the tests' packages are missing")
    parser.add_argument("--csv", type=Path, help="where to write the table")
    chosen = parser.parse_args()
    if not chosen.skip_tests and not tests_pass(TESTS):
        print("the tests of the transforms fail: nothing is measured", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    edge = chosen.edge or (96 if chosen.device == "cpu" else 40)
    versions: dict[str, object] = {"numpy": np.__version__}
    if chosen.device == "cuda":
        runs, count, against = on_gpu(volumes(chosen.batch, edge)), 1, "one by one on one CPU core"
    else:
        phases, count, against = volumes(len(PHASES), edge), chosen.draws, TORCHIO
        runs = {
            f"{DRAWN}, as drawn": ours(SECOND_ORDER_V1, phases, count),
            f"{DRAWN}, both stages in full": ours(in_full(SECOND_ORDER_V1, 2), phases, count),
            f"{DRAWN}, one stage in full": ours(in_full(SECOND_ORDER_V1, 1), phases, count),
            TORCHIO: torchios(phases, count),
        }
        versions["torchio"] = version("torchio")
    rows = table(in_turn(runs, chosen.repeats, chosen.device), edge, count, against)
    report(rows, against)
    if chosen.csv:
        write_csv(chosen.csv, [asdict(row) for row in rows], device_provenance(chosen.device) | versions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
