"""Checks the preparation of a cohort: python benchmarks/preparation.py FOLDER.

The script writes phantom patients as DICOM in VinDr's layout, by default with twice the misalignment measured
on patients (with the measured one the pancreases start at a Dice of about 0.68), makes the manifest and
prepares the cohort, all through the command line: once with two processes and once with one. It reports

- the Dice of the pancreas between each phase and the portal venous one, before and after,
- voxels of exactly 0 HU outside of the body,
- the time of two processes over that of one, and whether both wrote the same files.

The exit status is 1 if a requirement is not met. These are phantoms: nothing here is evidence about patients.
"""

from __future__ import annotations

import hashlib
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import SimpleITK as sitk
from common import cpu_name, provenance, write_csv
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.cli import main as mpfnl
from mpfnl.data.manifest import Study, read_manifest
from mpfnl.metrics.overlap import dice
from mpfnl.phases import Phase
from mpfnl.prepare.cropping import body_mask
from mpfnl.prepare.record import STUDIES, file_name
from mpfnl.prepare.resampling import resample, to_image, to_voxels
from mpfnl.volumes import read_volume
from mpfnl.volumes.masks import read_label_volume

MOVING = (Phase.NONCONTRAST, Phase.ARTERIAL)
MOST_BEFORE, LEAST_AFTER = 0.6, 0.88
MOST_TIME = 0.65
SKIN_MM = 8.0  # around the body; the table and the air beyond are outside


def with_all_phases(raw: Study, prepared: Study, output: Path) -> Study:
    """A prepared study with the phases that its cohort leaves out, whose files remain for review."""
    folder = output / STUDIES / raw.study_id
    return raw.located(lambda column, _: folder / file_name(column), prepared.quality)


def pancreas_dice(study: Study, phase: Phase) -> float:
    """Between a phase and the portal venous one, both in the scanner's coordinates."""
    target = read_label_volume(study.masks["pancreas"]).canonical()
    other = read_label_volume(study.masks[f"{phase}_pancreas"]).canonical()
    grid = to_image(target.data, target.affine)
    moved = resample(to_image(other.data, other.affine), grid, None, sitk.sitkNearestNeighbor, 0)
    return dice(to_voxels(moved) > 0, target.data > 0)


def zeros_outside(study: Study) -> int:
    """Voxels of exactly 0 HU that lie outside of the portal venous body, over the moving phases."""
    target = read_volume(study.file(Phase.PORTAL_VENOUS))
    body: NDArray[np.bool_] = body_mask(target.data, target.spacing)
    reach = [int(np.ceil(SKIN_MM / spacing)) for spacing in target.spacing]
    near = ndimage.maximum_filter(body, [2 * r + 1 for r in reach])
    return sum(int((read_volume(study.file(phase)).data[~near] == 0).sum()) for phase in MOVING)


@dataclass(frozen=True)
class Row:
    """The pancreas of one phase against that of the portal venous phase."""

    study: str
    phase: str
    dice_before: float
    dice_after: float
    quality: str

    def line(self) -> str:
        change = f"{self.dice_before:.3f} -> {self.dice_after:.3f}"
        return f"{self.study}  {self.phase:<12} {change}  {self.quality}"


def compare(raw: Study, prepared: Study, phase: Phase) -> Row:
    before, after = pancreas_dice(raw, phase), pancreas_dice(prepared, phase)
    return Row(raw.study_id[-8:], phase.value, round(before, 4), round(after, 4), str(prepared.quality))


def means(rows: Sequence[Row], phases: Sequence[Phase]) -> tuple[float, float]:
    chosen = [row for row in rows if row.phase in phases]
    return mean(row.dice_before for row in chosen), mean(row.dice_after for row in chosen)


def checksums(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def run(*words: str) -> float:
    """Runs a command and returns its time in seconds."""
    start = time.perf_counter()
    status = mpfnl(words)
    if status != 0:
        raise SystemExit(f"mpfnl {' '.join(words)}: ended with status {status}")
    return time.perf_counter() - start


@dataclass(frozen=True)
class Phantoms:
    """Which phantoms are prepared; the words of `mpfnl phantom`."""

    patients: int
    seed: int
    misalignment: float
    small: bool

    def words(self) -> list[str]:
        numbers = {"patients": self.patients, "seed": self.seed, "misalignment": self.misalignment}
        given = [word for name, value in numbers.items() for word in (f"--{name}", f"{value:g}")]
        return [*given, *(["--small"] if self.small else [])]


def prepare(folder: Path, phantoms: Phantoms) -> tuple[dict[int, float], bool]:
    """Phantoms, manifest, preparation by one process and by two: the times, and whether the files agree."""
    raw, table = str(folder / "raw"), str(folder / "raw.csv")
    run("phantom", "--dicom", *phantoms.words(), "-o", raw)
    run("manifest", "vindr", raw, "--masks", f"{raw}/masks", "-o", table)
    times = {}
    for jobs in (2, 1):
        output = str(folder / f"prepared{jobs}")
        times[jobs] = run("prepare", table, "-o", output, "--deterministic", "--jobs", str(jobs))
    return times, checksums(folder / "prepared1") == checksums(folder / "prepared2")


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="for everything that it makes; new")
    parser.add_argument("--patients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--misalignment", type=float, default=2.0, help="1 is as measured on patients")
    parser.add_argument("--small", action="store_true", help="small phantoms of about 3 mm")
    parser.add_argument("--csv", type=Path, help="a table to write")
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    phantoms = Phantoms(options.patients, options.seed, options.misalignment, options.small)
    times, same = prepare(options.folder, phantoms)

    raw = read_manifest(options.folder / "raw.csv")
    output = options.folder / "prepared1"
    cohort = {study.study_id: study for study in read_manifest(output / "cohort.csv")}
    after = {study.study_id: with_all_phases(study, cohort[study.study_id], output) for study in raw}
    rows = [compare(study, after[study.study_id], phase) for study in raw for phase in MOVING]
    for row in rows:
        print(row.line())
    if options.csv:
        write_csv(options.csv, [asdict(row) for row in rows], provenance())
    print(f"\n{cpu_name()}; {len(raw)} phantoms, {phantoms}")
    for name, phases in (("noncontrast", MOVING[:1]), ("arterial", MOVING[1:]), ("both", MOVING)):
        before, found = means(rows, phases)
        print(f"pancreas Dice, {name}: {before:.3f} -> {found:.3f}")
    before, found = means(rows, MOVING)
    zeros = sum(zeros_outside(study) for study in after.values())
    ratio = times[2] / times[1]
    seconds = f"{times[2]:.0f} s / {times[1]:.0f} s = {ratio:.2f}"
    checks = {
        f"mean Dice before at most {MOST_BEFORE} ({before:.3f})": before <= MOST_BEFORE,
        f"mean Dice after at least {LEAST_AFTER} ({found:.3f})": found >= LEAST_AFTER,
        f"no voxel outside of the body is 0 HU ({zeros})": zeros == 0,
        f"two processes take at most {MOST_TIME} of one's time ({seconds})": ratio <= MOST_TIME,
        "one process and two leave the same files": same,
    }
    for text, holds in checks.items():
        print(f"{'holds' if holds else 'DOES NOT HOLD'}: {text}")
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
