"""Reads a DICOM series as SimpleITK does: python benchmarks/reading.py [--slices N] [--csv FILE].

The series is written into a temporary folder: uncompressed slices of 512 x 512 pixels of 16 bits. mpfnl's
`read_volume` and SimpleITK's ImageSeriesReader, with the file names that GetGDCMSeriesFileNames finds, read
it in turn, each time in a new process, after a small series that loads the libraries. The report holds the
medians of the time, its ratio to SimpleITK's, and the rise of the memory as a multiple of the voxels that are
read (int16). Nothing is measured if the tests of the pixels fail, and nothing is reported if the readers
differ in a voxel.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from common import provenance, tests_pass, write_csv

from mpfnl.phantoms.dicom import SliceHeader, phantom_uid, write_slice

TESTS = ("tests/volumes/dicom/test_pixels.py", "tests/volumes/dicom/test_pixel_oracles.py")
EDGE = 512
WARM_UP_SLICES = 3
MOST_TIME = 1.2
MOST_MEMORY = 2.0

OURS, THEIRS = "mpfnl", "SimpleITK"

READERS = {
    OURS: """
from mpfnl.volumes import read_volume
def read(folder):
    return read_volume(folder).data
""",
    THEIRS: """
import SimpleITK as sitk
def read(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(folder))
    image = reader.Execute()
    return sitk.GetArrayViewFromImage(image), image
""",
}
"""What each process runs: `read` returns voxels, and what must live as long as they do."""

PROCESS = """
import json, sys, time
import numpy as np
from memory import rise
read(sys.argv[1])
kept = []
def run():
    clocks = time.perf_counter(), time.process_time()
    kept.append(read(sys.argv[2]))
    kept.append((time.perf_counter() - clocks[0], time.process_time() - clocks[1]))
taken = rise(run)
voxels = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
sums = [int(plane.astype(np.int64).sum()) for plane in (voxels if isinstance(kept[0], tuple) else voxels.T)]
print(json.dumps({"wall_s": kept[1][0], "cpu_s": kept[1][1], "bytes": taken, "sums": sums}))
"""


@dataclass(frozen=True)
class Row:
    """Time and memory of one reader."""

    reader: str
    slices: int
    wall_s: float
    cpu_s: float
    wall_to_simpleitk: float
    cpu_to_simpleitk: float
    memory_per_voxels: float


def write_series(folder: Path, slices: int) -> None:
    """A series of noise around 40 HU, every slice another part of it."""
    folder.mkdir()
    noise = np.random.default_rng(0).normal(40, 60, (EDGE, 2 * EDGE)).astype(np.int16)
    for index in range(slices):
        header = SliceHeader(
            patient="phantom",
            study=phantom_uid("reading"),
            series=phantom_uid("reading", slices),
            instance=phantom_uid("reading", slices, index),
            frame=phantom_uid("reading", "frame"),
            series_number=1,
            number=index + 1,
            position=(-200.0, -200.0, 0.8 * index),
            spacing=(0.8, 0.8),
            thickness=0.8,
        )
        shift = 7 * index % EDGE
        write_slice(folder / f"{header.instance}.dcm", noise[:, shift : shift + EDGE], header)


def read_once(reader: str, small: Path, large: Path) -> Mapping[str, object]:
    """What a new process measures while it reads the large series."""
    command = [sys.executable, "-c", READERS[reader] + PROCESS, str(small), str(large)]
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths.rstrip(os.pathsep)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return json.loads(done.stdout)


def measure(slices: int, repeats: int) -> list[Row]:
    """The readers in turn.

    Raises:
        ValueError: They differ in a voxel.
    """
    found: dict[str, list[Mapping[str, object]]] = {reader: [] for reader in READERS}
    with tempfile.TemporaryDirectory() as place:
        small, large = Path(place) / "small", Path(place) / "large"
        write_series(small, WARM_UP_SLICES)
        write_series(large, slices)
        for _ in range(repeats):
            for reader, results in found.items():
                results.append(read_once(reader, small, large))
    if len({json.dumps(result["sums"]) for results in found.values() for result in results}) > 1:
        raise ValueError("the readers differ")
    return rows(found, slices)


def rows(found: Mapping[str, Sequence[Mapping[str, object]]], slices: int) -> list[Row]:
    """Medians, and their ratios to SimpleITK's."""
    medians = {
        reader: {key: _median(results, key) for key in ("wall_s", "cpu_s", "bytes")}
        for reader, results in found.items()
    }
    base, size = medians[THEIRS], slices * EDGE * EDGE * np.dtype(np.int16).itemsize
    return [
        Row(
            reader,
            slices,
            round(taken["wall_s"], 3),
            round(taken["cpu_s"], 3),
            round(taken["wall_s"] / base["wall_s"], 3),
            round(taken["cpu_s"] / base["cpu_s"], 3),
            round(taken["bytes"] / size, 3),
        )
        for reader, taken in medians.items()
    ]


def _median(results: Sequence[Mapping[str, object]], key: str) -> float:
    return statistics.median(float(str(result[key])) for result in results)


def report(table: Sequence[Row]) -> None:
    """Prints the table, and whether it is as it should be."""
    print(f"{EDGE} x {EDGE} x {table[0].slices}   time   processor   to {THEIRS}   memory, in volumes")
    for row in table:
        ratios = f"{row.wall_to_simpleitk:.2f} ({row.cpu_to_simpleitk:.2f})"
        times = f"{row.wall_s:6.2f} s {row.cpu_s:6.2f} s"
        print(f"{row.reader:15s} {times}     {ratios}     {row.memory_per_voxels:.2f}")
    ours = next(row for row in table if row.reader == OURS)
    good = ours.wall_to_simpleitk <= MOST_TIME and ours.memory_per_voxels <= MOST_MEMORY
    print(f"at most {MOST_TIME} times the time and {MOST_MEMORY} times the volume: {'yes' if good else 'no'}")


def main() -> int:
    """Measures, prints, writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, default=600, help="slices of the series (default 600)")
    parser.add_argument("--repeats", type=int, default=5, help="processes of each reader (default 5)")
    parser.add_argument("--skip-tests", action="store_true", help="where the tests' packages are missing")
    parser.add_argument("--csv", type=Path, help="where to write the table")
    chosen = parser.parse_args()
    if not chosen.skip_tests and not tests_pass(TESTS):
        print("the tests of the pixels fail: nothing is measured", file=sys.stderr)
        return 1
    table = measure(chosen.slices, chosen.repeats)
    report(table)
    if chosen.csv:
        versions: dict[str, object] = {name: version(name) for name in ("pydicom", "SimpleITK", "numpy")}
        write_csv(chosen.csv, [asdict(row) for row in table], provenance() | versions)
    return 0


if __name__ == "__main__":
    sys.exit(main())
