"""Times the data module against TorchIO's queue: python benchmarks/patch_throughput.py [--csv FILE].

Both read the same prepared volumes (512x512x100, int16, uncompressed, three phases), with the same number of
worker processes, the same batch size and the same number of patches per study, mixed over the same number of
studies, and give the windowed phases in float32. Neither degrades or augments; the data module with its
degradation is a row of its own.

Each is measured in its own process. The first epoch is not timed: the workers start, and the training loop
waits once, so that they run ahead as they do with a slower model. The later epochs are timed; their batches
are discarded. Memory is that of the process and its workers: anonymous pages (pages shared since the fork
count once) and shared memory, including waiting batches; not the code of libraries. It is sampled throughout,
rarely in the timed epochs. "Above idle" is the difference to the process with everything imported (PyTorch,
Lightning, TorchIO) and nothing started, which both need. The files are read once before, so that all reads
come from the page cache. Linux only; about three minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torchio as tio
from common import cpu_name, provenance, tests_pass, write_csv
from memory import PeakMemory, tree_memory
from torch import Tensor

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import Split, Study, read_manifest, write_manifest
from mpfnl.data.sampling import MIXED_STUDIES
from mpfnl.phases import PHASES
from mpfnl.transforms.degradation import SECOND_ORDER_V1
from mpfnl.volumes import Volume, write_volume
from mpfnl.window import ABDOMEN

SHAPE = (512, 512, 100)
SPACING_MM = (0.75, 0.75, 2.5)
OURS, QUEUE, DEGRADED = "DataModule", "TorchIO queue", "DataModule with degradation"
TESTS = ("tests/data/test_datamodule.py", "tests/data/test_scans.py", "tests/benchmarks/test_memory.py")
MB = 1e6


@dataclass(frozen=True)
class Settings:
    """What both do.

    Args:
        manifest: Manifest of the cohort; all its studies are in the training split.
        patch: Edge of a patch in voxels.
        batch: Patches a batch.
        per_study: Patches a study and pass over it.
        workers: Processes that read.
        repeats: Timed epochs.
        pause_s: Pause of the first epoch after its first batch, in s, during which loaders run ahead.
    """

    manifest: str
    patch: int
    batch: int = 8
    per_study: int = 16
    workers: int = 2
    repeats: int = 3
    pause_s: float = 3.0


@dataclass(frozen=True)
class Measured:
    """What came out for one of the loaders; memory in bytes.

    Args:
        per_second: Patches a second, the median of the timed epochs.
        slowest: Speed of the slowest timed epoch.
        fastest: Speed of the fastest timed epoch.
        peak: The most that the process and its workers held.
        idle: The same with everything imported and nothing begun.
    """

    per_second: float
    slowest: float
    fastest: float
    peak: int
    idle: int


Epochs = Iterator[Iterator[Tensor]]
"""Endless epochs of batches: windowed phases `(batch, phase, x, y, z)`, float32."""


def our_epochs(settings: Settings, degradation: str | None) -> Epochs:
    data = MultiphaseDataModule(
        settings.manifest,
        batch_size=settings.batch,
        patch_size=settings.patch,
        patches_per_study=settings.per_study,
        degradation=degradation,
        augmentation=None,
        workers=settings.workers,
    )
    loader = data.train_dataloader()
    while True:
        yield (batch["phases"] for batch in loader)


def queue_epochs(settings: Settings) -> Epochs:
    subjects = [
        tio.Subject({str(phase): tio.ScalarImage(study.file(phase)) for phase in PHASES})
        for study in read_manifest(settings.manifest)
    ]
    queue = tio.Queue(
        tio.SubjectsDataset(subjects),
        max_length=MIXED_STUDIES * settings.per_study,
        samples_per_volume=settings.per_study,
        sampler=tio.UniformSampler(settings.patch),
        num_workers=settings.workers,
    )
    loader = tio.SubjectsLoader(queue, batch_size=settings.batch, drop_last=True)
    while True:
        yield (
            ABDOMEN.normalize(torch.cat([batch[phase][tio.DATA] for phase in PHASES], dim=1).float())
            for batch in loader
        )


LOADERS: dict[str, Callable[[Settings], Epochs]] = {
    OURS: lambda settings: our_epochs(settings, None),
    QUEUE: queue_epochs,
    DEGRADED: lambda settings: our_epochs(settings, SECOND_ORDER_V1.name),
}


def measure(epochs: Epochs, settings: Settings) -> Measured:
    """Drains epochs: the first, and those that are timed."""
    idle = tree_memory()
    with PeakMemory() as first:
        drain(next(epochs), settings, settings.pause_s)
    with PeakMemory(interval_s=1.0) as later:
        rates = [timed(next(epochs), settings) for _ in range(settings.repeats)]
    peak = max(first.peak, later.peak)
    return Measured(statistics.median(rates), min(rates), max(rates), peak, idle)


def timed(batches: Iterator[Tensor], settings: Settings) -> float:
    """Patches a second."""
    start = time.perf_counter()
    return drain(batches, settings) / (time.perf_counter() - start)


def drain(batches: Iterator[Tensor], settings: Settings, pause_s: float = 0.0) -> int:
    """Takes all batches, waits after the first, and counts the patches."""
    patches = 0
    for batch in batches:
        if batch.shape[1:] != (len(PHASES), *3 * [settings.patch]) or batch.dtype != torch.float32:
            raise ValueError(f"a batch of {batch.dtype} {tuple(batch.shape)}")
        time.sleep(0.0 if patches else pause_s)
        patches += len(batch)
    return patches


def measure_apart(name: str, settings: Settings) -> Measured:
    """Measures one loader in a fresh process."""
    command = [sys.executable, __file__, "--only", name, json.dumps(asdict(settings))]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Measured(**json.loads(result.stdout.splitlines()[-1]))


def make_cohort(folder: Path, studies: int, shape: tuple[int, int, int] = SHAPE) -> Path:
    """Writes studies as `mpfnl prepare` does: smooth random tissue in a round body, in air."""
    affine = np.diag([-SPACING_MM[0], -SPACING_MM[1], SPACING_MM[2], 1.0])
    rows = []
    for number in range(studies):
        name = f"study{number}"
        (folder / name).mkdir(parents=True)
        files = {phase: folder / name / f"{phase}.nii" for phase in PHASES}
        for place, file in enumerate(files.values()):
            hu = tissue(shape, seed=number * len(PHASES) + place)
            write_volume(file, hu, like=Volume.from_array(hu, affine, file))
        rows.append(Study(name, name, Split.TRAIN, files))
    return write_manifest(folder / "cohort.csv", rows).path


def tissue(shape: tuple[int, int, int], seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, 1, *(max(2, side // 16) for side in shape)), generator=generator)
    hu = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0, 0].mul_(80).add_(50)
    x, y = (torch.linspace(-1, 1, side) for side in shape[:2])
    hu[(x[:, None] / 0.85) ** 2 + (y / 0.65) ** 2 > 1] = -1000
    return hu.round_().short().numpy()


def list_often(manifest: Path, passes: int, path: Path) -> Path:
    """Writes a manifest with each study several times, all to train on: an epoch long enough to time."""
    rows = [
        replace(study, study_id=f"{study.study_id}-{n}", patient_id=f"{study.patient_id}-{n}")
        for n in range(passes)
        for study in read_manifest(manifest)
    ]
    return write_manifest(path, [replace(row, split=Split.TRAIN) for row in rows]).path


def into_page_cache(manifest: Path) -> None:
    for study in read_manifest(manifest):
        for phase in PHASES:
            with study.file(phase).open("rb", buffering=0) as file:
                while file.read(1 << 24):
                    pass


@contextmanager
def cohort(given: Path | None, studies: int, passes: int) -> Iterator[Path]:
    """The manifest to measure with: the given cohort's studies, or made ones, each several times."""
    with tempfile.TemporaryDirectory(prefix="mpfnl-patches-") as name:
        manifest = given or make_cohort(Path(name) / "cohort", studies)
        into_page_cache(manifest)
        yield list_often(manifest, passes, Path(name) / "often.csv")


def row(name: str, settings: Settings, found: Measured, queue: Measured) -> dict[str, object]:
    return {
        "loader": name,
        "patch": settings.patch,
        "batch": settings.batch,
        "patches_per_study": settings.per_study,
        "workers": settings.workers,
        "patches_per_s": f"{found.per_second:.1f}",
        "slowest": f"{found.slowest:.1f}",
        "fastest": f"{found.fastest:.1f}",
        "peak_mb": f"{found.peak / MB:.0f}",
        "peak_mb_above_idle": f"{(found.peak - found.idle) / MB:.0f}",
        "speed_over_queue": f"{found.per_second / queue.per_second:.2f}",
        "peak_over_queue": f"{found.peak / queue.peak:.2f}",
        "peak_over_queue_above_idle": f"{(found.peak - found.idle) / (queue.peak - queue.idle):.2f}",
    }


def compare(settings: Settings, names: Sequence[str]) -> Iterator[dict[str, object]]:
    """Measures loaders in turn, the queue first, and prints them."""
    print(f"{settings.patch}^3 voxels a patch, {settings.batch} a batch, {settings.workers} workers")
    found: dict[str, Measured] = {}
    for name in names:
        found[name] = measure_apart(name, settings)
        cells = row(name, settings, found[name], found[QUEUE])
        print(f"  {name}: {cells['patches_per_s']} patches/s, peak {cells['peak_mb']} MB", end=" ")
        print(f"({cells['peak_mb_above_idle']} above idle)", end=" ")
        print(f"= {cells['speed_over_queue']} times the queue's speed,", end=" ")
        print(f"{cells['peak_over_queue']} of its peak", end=" ")
        print(f"({cells['peak_over_queue_above_idle']} above idle)", flush=True)
        yield cells


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--csv", type=Path, help="also write the rows here")
    parser.add_argument("--cohort", type=Path, help="a prepared cohort's CSV; made if left out")
    parser.add_argument("--studies", type=int, default=6, help="how many to make")
    parser.add_argument("--passes", type=int, default=2, help="how often an epoch takes each study")
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--workers", type=int, default=Settings.workers)
    parser.add_argument("--repeats", type=int, default=Settings.repeats)
    parser.add_argument("--skip-tests", action="store_true", help="for quick tries: nothing to publish")
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.only:
        name, settings = options.only[0], Settings(**json.loads(options.only[1]))
        print(json.dumps(asdict(measure(LOADERS[name](settings), settings))))
        return
    if not options.skip_tests and not tests_pass(TESTS):
        sys.exit("the tests of the data module fail: nothing is measured")
    made_by = provenance() | {package: version(package) for package in ("torchio", "lightning")}
    print(
        f"{cpu_name()}, torch {torch.__version__}, torchio {version('torchio')}, median of {options.repeats}"
    )
    rows: list[dict[str, object]] = []
    with cohort(options.cohort, options.studies, options.passes) as manifest:
        for patch in options.patch:
            settings = Settings(str(manifest), patch, workers=options.workers, repeats=options.repeats)
            rows += compare(
                settings, [QUEUE, OURS, DEGRADED] if patch == min(options.patch) else [QUEUE, OURS]
            )
    if options.csv:
        write_csv(options.csv, rows, made_by)


if __name__ == "__main__":
    main()
