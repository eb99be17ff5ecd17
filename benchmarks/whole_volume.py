"""Memory and seams of whole volumes: python benchmarks/whole_volume.py [--long] [--csv FILE] [--picture PNG].

Memory: a network processes a synthetic study of three phases (int16; two .nii.gz, one .nii) in its own
process, slab by slab, from file to file. The prediction before the start stands beside the kernel's peak of
the whole process (VmHWM), with everything imported. --long adds a study of 512x512x2350 voxels, which takes
about 6 GB of disk and, on one core, a good quarter of an hour.

Seams: networks process a noisy phantom in tiles of 32 voxels: side by side; with an overlap of a quarter, of
which a quarter is cut off; and by the networks' own tiling, whose halo covers their receptive field. The
steps between neighbouring voxels across tile borders are compared with those elsewhere: for the result; for
the untiled result at the same positions, which shows the steps of the anatomy; and for the difference between
the two. The networks have random weights, including those of the non-local block; --weights NAME=FOLDER adds
trained ones. --picture draws the differences.

The tests of tiling and memory run first; nothing is measured if they fail.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from common import provenance, tests_pass, write_csv
from seams import columns, find_seams
from torch import Tensor, nn

from mpfnl.inference.enhancement import EnhanceOptions, open_study
from mpfnl.inference.memory import highest
from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling, network_tiling
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Grid, Volume
from mpfnl.volumes.writing import volume_writer

TESTS = (
    "tests/inference/test_whole_volume.py",
    "tests/inference/test_seams.py",
    "tests/volumes/test_slabs.py",
)
SPACING = np.diag([-0.7, -0.7, 1.0, 1.0])
PACKED = {Phase.NONCONTRAST: ".nii", Phase.ARTERIAL: ".nii.gz", Phase.PORTAL_VENOUS: ".nii.gz"}
DRAWN = 32  # slices of noise that are drawn, and then come again
EDGE = 4  # voxels at the volume's own border that do not count

Row: TypeAlias = dict[str, object]


@dataclass(frozen=True)
class Case:
    """A study and a network.

    Args:
        network: The model's class.
        arguments: Arguments of its constructor.
        shape: Shape of the study.
        tile: Edge of the tiles; the overlap is the network's.
        precision: Precision of the convolutions.
    """

    network: str
    arguments: dict[str, object]
    shape: tuple[int, int, int]
    tile: int
    precision: str = "bfloat16"


SMALL_RCAN: dict[str, object] = {"phases": 3, "channels": 8, "groups": 1, "blocks": 1}
SMALL_PFNL: dict[str, object] = {"features": 8, "blocks": 1}
DOT: dict[str, object] = {**SMALL_PFNL, "nonlocal_mode": "dot_product"}
CASES = [
    Case("RCAN3D", SMALL_RCAN, (512, 512, 64), 128),
    Case("RCAN3D", SMALL_RCAN, (512, 512, 256), 128),
    Case("RCAN3D", SMALL_RCAN, (512, 512, 64), 128, "float32"),
    Case("RCAN3D", SMALL_RCAN, (256, 256, 96), 64, "float32"),
    Case("RCAN3D", {**SMALL_RCAN, "scale": 2}, (256, 256, 64), 64),
    Case("RCAN3D", {}, (192, 192, 64), 64),
    Case("PFNL3D", DOT, (384, 384, 64), 64),
    Case("PFNL3D", SMALL_PFNL, (160, 160, 96), 64),
    Case("PFNL3D", SMALL_PFNL, (128, 128, 64), 32, "float32"),
    Case("PFNL3D", {}, (64, 64, 64), 48),
]
LONG = [Case("RCAN3D", SMALL_RCAN, (512, 512, 2350), 128)]
QUICK = [Case("RCAN3D", SMALL_RCAN, (48, 40, 36), 32)]


def write_study(folder: Path, shape: tuple[int, int, int]) -> dict[Phase, Path]:
    """A body of smooth structures in air, with noise; each phase in a file."""
    x, y, depth = shape
    across = np.hypot(*np.meshgrid(np.linspace(-1, 1, x), np.linspace(-1, 1, y), indexing="ij"))
    files = {}
    for seed, (phase, suffix) in enumerate(PACKED.items()):
        rng = np.random.default_rng(seed)
        noise = (25 * rng.standard_normal((x, y, DRAWN))).astype(np.float32)
        files[phase] = folder / f"{phase}{suffix}"
        with volume_writer(files[phase], Grid(shape, SPACING), np.dtype(np.int16)) as writer:
            for z in range(depth):
                organs = 40 * np.sin(12 * across + 0.05 * z) + 40 * seed + 20
                hu = np.where(across < 0.9, organs + np.roll(noise[..., z % DRAWN], z, axis=0), -1000)
                writer.write(hu.astype(np.int16)[..., None])
    return files


def enhance_here(case: Case, folder: Path) -> Row:
    """Enhances the study in a folder in this process, and tells what was predicted and what it took."""
    import mpfnl

    torch.manual_seed(0)
    model = {"RCAN3D": mpfnl.RCAN3D, "PFNL3D": mpfnl.PFNL3D}[case.network](**case.arguments)
    files: dict[Phase, str | Path | Volume] = {p: folder / f"{p}{PACKED[p]}" for p in model.phases}
    tiling = network_tiling(model.network, case.tile)
    options = EnhanceOptions(tiling, getattr(torch, case.precision))
    start = time.perf_counter()
    with open_study(model, files, options, keeps_result=False) as study:
        plan, survey = study.plan, time.perf_counter() - start
        study.write(folder / "out.nii.gz")
    return {
        "predicted_gb": plan.peak / 1e9,
        "peak_gb": highest() / 1e9,
        "overlap": tiling.overlap,
        "halo": tiling.cut,
        "survey_s": survey,
        "total_s": time.perf_counter() - start,
    }


def measure_memory(case: Case) -> Row:
    """`enhance_here` in a fresh process, on a study made for it."""
    with tempfile.TemporaryDirectory() as name:
        write_study(Path(name), case.shape)
        command = [sys.executable, __file__, "--case", json.dumps(asdict(case)), "--folder", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    sizes = "x".join(map(str, case.shape))
    made = " ".join(f"{name}={value}" for name, value in case.arguments.items()) or "defaults"
    row: Row = {"network": case.network, "arguments": made, "voxels": sizes, "tile": case.tile}
    row |= {"overlap": int(found.pop("overlap")), "halo": int(found.pop("halo")), "precision": case.precision}
    row |= {name: round(value, 3) for name, value in found.items()}
    row["predicted_over_peak"] = round(found["predicted_gb"] / found["peak_gb"], 3)
    return row


def phantom() -> Tensor:
    """Three phases of a phantom with noise of 30 HU, correlated over about a voxel; `(3, x, y, z)`."""
    from scipy.ndimage import gaussian_filter

    from mpfnl.phantoms import generate_study
    from mpfnl.phantoms.config import SMALL
    from mpfnl.window import ABDOMEN

    study, rng = generate_study(5, 0, SMALL), np.random.default_rng(0)
    scans = []
    for phase in PHASES:
        noise = gaussian_filter(rng.standard_normal(study.phases[phase].shape), 0.7)
        scans.append(study.phases[phase] + 30 * noise / noise.std())
    hu = torch.from_numpy(np.stack(scans)).float()
    return ABDOMEN.normalize(hu)[:, 10:98, 10:74].contiguous()


def networks(weights: Sequence[str], volume: Tensor) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Networks by name, each with the phases that it takes."""
    from mpfnl.models.loading import load_model
    from mpfnl.networks import PFNL3DNet, RCAN3DNet

    pfnl3d, rcan3d = PFNL3DNet(features=8, blocks=3), RCAN3DNet(1, 8, groups=2, blocks=2)
    yield "PFNL3D drawn", _drawn(pfnl3d, pfnl3d.reconstruct[-1], volume, volume[-1]), volume
    yield "RCAN3D drawn", _drawn(rcan3d, rcan3d.last, volume[-1:], 0.5), volume[-1:]
    for word in weights:
        name, _, path = word.partition("=")
        model = load_model(path)
        places = [PHASES.index(phase) for phase in model.phases]
        yield name, model.network.eval(), volume[places]


@torch.no_grad()
def _drawn(network: nn.Module, last: nn.Module, volume: Tensor, skip: Tensor | float) -> nn.Module:
    """Drawn weights; what the network adds has a standard deviation of 0.15 of the window."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 2500
        nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
    assert isinstance(last, nn.Conv3d)
    assert last.bias is not None
    network.eval()
    last.bias.zero_()
    last.weight *= 0.15 / (network(volume[None])[0, 0] - skip).std()
    last.bias -= (network(volume[None])[0, 0] - skip).mean()
    return network


def measure_seams(weights: Sequence[str], picture: Path | None) -> Iterator[Row]:
    """The steps across borders and elsewhere, in HU, of each network and tiling."""
    volume, panels = phantom(), []
    for name, network, taken in networks(weights, volume):
        with torch.no_grad():
            untiled = network(taken[None])[0, 0].clamp(0, 1)
        own = network_tiling(network, 32)
        slices = {}
        for what, tiling in (("side by side", Tiling(32, 0)), ("quarter", Tiling(32, 8)), ("own", own)):
            tiled = tiled_forward(network, taken, tiling, torch.float32)
            made = {"result": tiled, "untiled": untiled, "result minus untiled": tiled - untiled}
            for of, values in made.items():
                found = find_seams(450 * values, tiling, EDGE)
                row: Row = {"network": name, "tiling": what, "overlap": tiling.overlap, "halo": tiling.cut}
                row |= {"steps_of": of} | {key: float(f"{value:.4g}") for key, value in columns(found)}
                yield row
            middle = tiled.shape[2] // 2
            slices[what] = tiled[:, :, middle].numpy()
            slices[f"{what}, change"] = (tiled - untiled)[:, :, middle].numpy()
        panels.append(slices)
    if picture is not None:
        draw(panels, picture)


def draw(panels: list[dict[str, np.ndarray]], picture: Path) -> None:
    """A row a network: the result of each tiling, and what it changes against the untiled result."""
    from mpfnl.plots.page import small_png
    from mpfnl.plots.slices import montage

    changes = [name for name in panels[0] if name.endswith("change")]
    picture.write_bytes(small_png(montage(panels, errors=changes)))


def show(rows: Iterator[Row]) -> list[Row]:
    kept = []
    for row in rows:
        kept.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--long", action="store_true", help="only the study of 512x512x2350 voxels")
    parser.add_argument("--quick", action="store_true", help="one small study, for a try")
    parser.add_argument("--weights", nargs="*", default=[], metavar="NAME=FOLDER", help="trained networks")
    parser.add_argument("--csv", type=Path, help="write the memory rows here, the seams into NAME_seams.csv")
    parser.add_argument("--append", action="store_true", help="keep the memory rows that the CSV has")
    parser.add_argument("--picture", type=Path, help="write a PNG of the seams")
    parser.add_argument("--skip-tests", action="store_true", help="for a try; then no CSV is written")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(enhance_here(Case(**json.loads(options.case)), options.folder)))
        return 0
    if not options.skip_tests and not tests_pass(TESTS):
        print("the tests are red: nothing is measured", file=sys.stderr)
        return 1
    cases = LONG if options.long else QUICK if options.quick else CASES
    memory = show(measure_memory(case) for case in cases)
    seams = [] if options.long else show(measure_seams(options.weights, options.picture))
    if options.csv and not options.skip_tests:
        from common import add_rows

        add_rows(options.csv, memory, provenance(), keep=options.append)
        if seams:
            write_csv(options.csv.with_stem(f"{options.csv.stem}_seams"), seams, provenance())
    return 0


if __name__ == "__main__":
    sys.exit(main())
