"""Registers good and bad phantom studies and reports their quality records.

The thresholds of `mpfnl.prepare.thresholds` were chosen on the studies of one seed ("chosen on"). Those of
another seed ("held out") were registered and measured by the same code, and not inspected during the choice.

Good: both phases of a study with the misalignment measured on patients, registered by the default steps. Bad:
the arterial phase of another patient (its volume's centre on that of the portal venous scan), and one flipped
left to right, both registered by the default steps; one shifted by 60 mm along each of six directions, not
registered. For information, without a required verdict: good studies without registration, and the 60 mm
shift with registration.

    python benchmarks/quality_calibration.py CACHE [--held-out 20] [--csv FILE]

Most studies are small phantoms (140 mm along the body); a few have the default size. A registration takes
about 15 s (about 50 s at the default size) on one thread. The folder CACHE holds the finished registrations,
from which an interrupted run continues. Nothing is reported if the tests of the record fail.
"""

from __future__ import annotations

import os

os.environ.setdefault(
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1"
)  # before ITK is loaded: same result each run

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk
from common import provenance, tests_pass, write_csv

from mpfnl.data.manifest import Quality
from mpfnl.errors import InputError
from mpfnl.files import atomic_file
from mpfnl.phantoms import PhantomConfig, generate_study
from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.study import PhantomStudy
from mpfnl.phases import Phase
from mpfnl.prepare.alignment import Alignment
from mpfnl.prepare.quality import PhaseQuality, measure, study_verdict
from mpfnl.prepare.registration import register
from mpfnl.prepare.resampling import to_image
from mpfnl.prepare.settings import find_steps

TESTS = ("tests/prepare/test_quality.py",)
SEEDS = {"chosen on": 100, "held out": 200}
SIZES: dict[str, PhantomConfig] = {"small": SMALL, "default": PhantomConfig()}
STEPS = ("rigid", "affine", "deformable")
REGISTRATION_MM = 4.0
SHIFT_MM = 60.0
DIRECTIONS = {"+x": (0, 1), "-x": (0, -1), "+y": (1, 1), "-y": (1, -1), "+z": (2, 1), "-z": (2, -1)}
GOOD, OTHER, FLIPPED, SHIFTED = "good", "other patient", "flipped", "shifted"
UNREGISTERED, BROUGHT_BACK = "good, not registered", "shifted, registered"
BAD = (OTHER, FLIPPED, SHIFTED)


@dataclass(frozen=True)
class Case:
    """One moving phase of one study, and what was done to it."""

    group: str
    size: str
    kind: str
    patient: int
    phase: Phase
    direction: str = ""

    @property
    def seed(self) -> int:
        return SEEDS[self.group]

    @property
    def name(self) -> str:
        words = (self.size, str(self.seed), str(self.patient), self.phase, self.kind, self.direction)
        return "-".join(words).replace(" ", "_").replace(",", "")


@dataclass(frozen=True)
class Result:
    """A case and its record; none where the registration broke off, and the study is not prepared."""

    case: Case
    quality: PhaseQuality | None

    @property
    def verdict(self) -> Quality:
        return self.quality.verdict if self.quality else Quality.FAIL

    def row(self) -> dict[str, object]:
        reasons = "; ".join(self.quality.reasons) if self.quality else "the registration broke off"
        numbers = self.quality.numbers() if self.quality else {}
        return asdict(self.case) | {"verdict": self.verdict, "reasons": reasons} | numbers


def cases(group: str, size: str, good: int, bad: int) -> Iterator[Case]:
    """The cases of one seed, study by study."""
    for patient in range(good):
        for phase in (Phase.ARTERIAL, Phase.NONCONTRAST):
            for kind in (GOOD, UNREGISTERED):
                yield Case(group, size, kind, patient, phase)
        if patient >= bad:
            continue
        arterial = Case(group, size, OTHER, patient, Phase.ARTERIAL)
        yield arterial
        yield replace(arterial, kind=FLIPPED)
        for direction in DIRECTIONS:
            yield replace(arterial, kind=SHIFTED, direction=direction)
        yield replace(arterial, kind=BROUGHT_BACK, direction=list(DIRECTIONS)[patient % len(DIRECTIONS)])


@lru_cache(maxsize=2)
def study_of(seed: int, patient: int, size: str) -> PhantomStudy:
    return generate_study(seed, patient, SIZES[size])


def moving_of(case: Case, study: PhantomStudy) -> sitk.Image:
    """The phase, with what is wrong about it."""
    scan, affine = study.phases[case.phase].astype(np.float32), study.affine.copy()
    if case.kind == OTHER:
        other = study_of(case.seed, case.patient + 1, case.size)
        scan = other.phases[case.phase].astype(np.float32)
        affine[:3, :3] = other.affine[:3, :3]
        affine[:3, 3] = centre(study.affine, study.labels.shape) - centre(affine, scan.shape, at_zero=True)
    elif case.kind == FLIPPED:
        scan = scan[::-1]
    elif case.direction:
        axis, sign = DIRECTIONS[case.direction]
        affine[axis, 3] += sign * SHIFT_MM
    return to_image(scan, affine)


def centre(affine: np.ndarray, shape: tuple[int, ...], *, at_zero: bool = False) -> np.ndarray:
    """The middle of a volume in mm; with its first voxel at zero if so wished."""
    middle = affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return np.asarray(middle if at_zero else middle + affine[:3, 3])


def observed(case: Case, cache: Path) -> Alignment | None:
    """The case registered and brought onto the coarse grid; None where the registration broke off."""
    path = cache / f"{case.name}.npz"
    if not path.exists():
        print(f"registering {case.name}", file=sys.stderr)
        study = study_of(case.seed, case.patient, case.size)
        fixed = to_image(study.phases[Phase.PORTAL_VENOUS].astype(np.float32), study.affine)
        moving = moving_of(case, study)
        steps = () if case.kind in (SHIFTED, UNREGISTERED) else find_steps(STEPS)
        try:
            with TemporaryDirectory() as folder:
                transform = register(fixed, moving, steps, REGISTRATION_MM, Path(folder))
                seen = vars(Alignment.on_grid(fixed, moving, transform))
        except InputError as error:
            print(f"{case.name}: {error}")
            seen = {}
        with atomic_file(path) as file:
            np.savez_compressed(file, **seen)
    with np.load(path) as stored:
        if not stored.files:
            return None
        values = {name: stored[name] for name in stored.files}
    values["spacing"] = tuple(float(step) for step in values["spacing"])
    return Alignment(**values)


def report(results: Sequence[Result]) -> Iterator[str]:
    """Lines: how many good studies pass, how many bad phases fail, how far the two lie apart."""
    good = [result for result in results if result.case.kind == GOOD]
    verdicts = [
        study_verdict({r.case.phase: r.quality for r in good if r.case.patient == patient and r.quality})
        for patient in sorted({result.case.patient for result in good})
    ]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in Quality)
    yield f"  good studies, those phases used that do not fail: {len(verdicts)}, of them {counts}"
    for kind in (*BAD, BROUGHT_BACK, UNREGISTERED):
        found = [result.verdict for result in results if result.case.kind == kind]
        counts = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in Quality)
        yield f"  {kind}, phases: {len(found)}, of them {counts}"
    for name, sign in (("similarity_after", 1), ("mismatch_after", -1)):
        extremes = [f"worst good {sign * min(values(good, name, sign)):.3f}"]
        for kind in BAD:
            of_kind = [result for result in results if result.case.kind == kind]
            extremes.append(f"best {kind} {sign * max(values(of_kind, name, sign)):.3f}")
        yield f"  {name}: " + ", ".join(extremes)


def values(results: Sequence[Result], name: str, sign: int) -> list[float]:
    """A number of each case, the larger the better."""
    found = [sign * result.quality.numbers()[name] for result in results if result.quality]
    return [value for value in found if not np.isnan(value)] or [np.nan]


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("cache", type=Path, help="folder for what was registered")
    parser.add_argument("--chosen", type=int, default=12, help="good small studies to choose on (default 12)")
    parser.add_argument("--held-out", type=int, default=20, help="good small studies held out (default 20)")
    parser.add_argument("--bad", type=int, default=6, help="studies of each that are spoilt too (default 6)")
    parser.add_argument("--default", type=int, default=3, help="studies of the default size (default 3)")
    parser.add_argument("--csv", type=Path, help="where to write one row a case")
    arguments = parser.parse_args()
    if not tests_pass(TESTS):
        print("the tests of the quality record fail: nothing is reported", file=sys.stderr)
        return 1
    arguments.cache.mkdir(parents=True, exist_ok=True)
    made_by = provenance() | {name: version(name) for name in ("antspyx", "SimpleITK")}
    rows: list[dict[str, object]] = []
    for group, good in (("chosen on", arguments.chosen), ("held out", arguments.held_out)):
        for size, count, bad in (
            ("small", good, min(arguments.bad, good)),
            ("default", arguments.default, arguments.default),
        ):
            results = []
            for case in cases(group, size, count, bad):
                seen = observed(case, arguments.cache)
                results.append(Result(case, measure(seen) if seen else None))
            if results:
                print(f"{group} (seed {SEEDS[group]}), {size} phantoms")
                print(*report(results), sep="\n")
            rows += [result.row() for result in results]
    if arguments.csv:
        empty = dict.fromkeys((name for row in rows for name in row), "")
        write_csv(arguments.csv, [empty | row for row in rows], made_by)
    return 0


if __name__ == "__main__":
    sys.exit(main())
