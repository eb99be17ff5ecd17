"""Shared fixtures, and the run-time check of the shape annotations."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

# Without a GPU the Triton kernels run in Triton's interpreter. Triton reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from jaxtyping import install_import_hook

# Shapes and types of these rooms are checked at every call in the tests, and nowhere else.
# (Not the Triton kernels: Triton reads their source.)
CHECKED = [
    "mpfnl.ops.nonlocal_attention.attention",
    "mpfnl.ops.shuffle",
    "mpfnl.ops.sobel",
    "mpfnl.networks",
    "mpfnl.losses",
    "mpfnl.metrics.image",
]
install_import_hook(CHECKED, "beartype.beartype")

from mpfnl.data.manifest import Split, Study, write_manifest  # noqa: E402  # after the hook
from mpfnl.phases import PHASES, Phase  # noqa: E402
from mpfnl.volumes import Volume, write_volume  # noqa: E402

ENHANCEMENT_HU = {
    Phase.NONCONTRAST: 40.0,
    Phase.ARTERIAL: 70.0,
    Phase.PORTAL_VENOUS: 110.0,
    Phase.DELAYED: 85.0,
}


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the small real CT scans; skips where there is none."""
    named = os.environ.get("MPFNL_REAL_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real CT at {folder}; set MPFNL_REAL_DATA to its folder")
    return folder


def blob_scan(phase: Phase, seed: int, shape: tuple[int, int, int] = (40, 36, 30)) -> np.ndarray:
    """A cheap stand-in for a scan: a soft-tissue ellipsoid with organs in it, in air; HU."""
    rng = np.random.default_rng([seed, 7])
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij"))
    hu = np.full(shape, -1000.0)
    hu[(grid**2).sum(0) < 0.85] = -90.0
    for _ in range(5):
        centre, radius = rng.uniform(-0.5, 0.5, 3), rng.uniform(0.2, 0.45)
        inside = ((grid - centre[:, None, None, None]) ** 2).sum(0) < radius**2
        hu[inside] = ENHANCEMENT_HU[phase] + rng.normal(0, 25)
    hu[(grid[0] ** 2 + (grid[1] - 0.6) ** 2) < 0.02] = 500.0
    noise = np.random.default_rng([seed, list(Phase).index(phase)]).normal(0, 6, shape)
    return np.rint(hu + noise).clip(-1024, 3071).astype(np.int16)


def blob_cohort(
    folder: Path,
    splits: dict[Split, int],
    shape: tuple[int, int, int] = (40, 36, 30),
    phases: tuple[Phase, ...] = PHASES,
) -> Path:
    """Writes a cohort of such scans and its manifest; returns the CSV."""
    affine = np.diag([-1.5, -1.5, 2.5, 1.0])
    studies = []
    for split, count in splits.items():
        for number in range(count):
            name = f"{split}{number}"
            files = {phase: folder / name / f"{phase}.nii.gz" for phase in phases}
            (folder / name).mkdir(parents=True)
            for phase, file in files.items():
                data = blob_scan(phase, seed=len(studies), shape=shape)
                write_volume(file, data, like=Volume.from_array(data, affine, file, phase))
            studies.append(Study(name, f"p-{name}", split, files))
    write_manifest(folder / "cohort.csv", studies)
    return folder / "cohort.csv"


@pytest.fixture(scope="session")
def four_phases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cohort with the delayed phase, a study a split. Not to be written to."""
    splits = {Split.TRAIN: 1, Split.VAL: 1, Split.TEST: 1}
    return blob_cohort(tmp_path_factory.mktemp("four"), splits, phases=tuple(Phase))


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cohort: four studies to train on, one to validate, two to test. Not to be written to."""
    splits = {Split.TRAIN: 4, Split.VAL: 1, Split.TEST: 2}
    return blob_cohort(tmp_path_factory.mktemp("cohort"), splits)
