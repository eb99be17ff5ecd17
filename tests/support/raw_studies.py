"""Small raw cohorts for the preparation, and how to compare folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from mpfnl.data.manifest import Manifest, Split, Study, write_manifest
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Volume, write_volume

AFFINE = np.diag([3.0, 3.0, 4.0, 1.0])
AFFINE[:3, 3] = (-60.0, -50.0, 100.0)
SHAPE = (40, 34, 24)
ENHANCEMENT = {Phase.NONCONTRAST: 0.0, Phase.ARTERIAL: 60.0, Phase.PORTAL_VENOUS: 40.0, Phase.DELAYED: 25.0}


def body(seed: int, phase: Phase) -> np.ndarray:
    """A trunk in air with a spine and some organs, by the seed; HU."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij"))
    hu = np.full(SHAPE, -1000.0)
    hu[(grid[0] / 0.85) ** 2 + (grid[1] / 0.8) ** 2 < 1] = -100
    for _ in range(6):
        centre, radius = rng.uniform(-0.45, 0.45, 3), rng.uniform(0.2, 0.4)
        hu[((grid - centre[:, None, None, None]) ** 2).sum(0) < radius**2] = 45 + ENHANCEMENT[phase]
    hu[grid[0] ** 2 + (grid[1] + 0.55) ** 2 < 0.02] = 400
    noise = np.random.default_rng([seed, list(Phase).index(phase)]).normal(0, 8, SHAPE)
    return np.rint(ndimage.gaussian_filter(hu, 0.5) + noise).clip(-1024, 3071).astype(np.int16)


def write_scan(path: Path, hu: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, hu, like=Volume.from_array(hu, affine, path))
    return path


def raw_study(folder: Path, number: int, split: Split = Split.TRAIN) -> Study:
    """Writes the phases and a pancreas mask of a study."""
    name = f"s{number}"
    files = {phase: write_scan(folder / name / f"{phase}.nii.gz", body(number, phase)) for phase in PHASES}
    mask = np.zeros(SHAPE, np.uint8)
    mask[15:22, 12:18, 9:14] = 1
    pancreas = write_scan(folder / name / "pancreas.nii.gz", mask)
    arterial = write_scan(folder / name / "arterial_labels.nii.gz", mask * 7)
    return Study(name, f"p{number}", split, files, {"pancreas": pancreas, "arterial_labels": arterial})


def raw_cohort(folder: Path, count: int) -> Manifest:
    """Writes that many studies and their manifest."""
    return write_manifest(folder / "raw.csv", [raw_study(folder, number) for number in range(count)])
