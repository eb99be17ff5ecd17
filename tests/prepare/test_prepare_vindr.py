"""From DICOM in VinDr's layout to a prepared cohort, through the command line."""

from __future__ import annotations

import gzip
from statistics import mean

import numpy as np
import pytest
from preparation import MOVING, pancreas_dice, with_all_phases, zeros_outside

from mpfnl.cli import main
from mpfnl.data.manifest import Manifest, read_manifest
from mpfnl.phantoms import PhantomConfig
from mpfnl.phantoms.vindr import write_vindr_cohort
from mpfnl.phases import Phase
from mpfnl.volumes import read_volume
from mpfnl.window import UNCOVERED_HU

COARSE = PhantomConfig(
    in_plane_mm=(3.4, 3.6),
    slice_mm=(3.8, 4.0),
    field_of_view_mm=(345.0, 365.0),
    depth_fraction=0.78,
    coverage_mm=(136.0, 144.0),
    misalignment=2.0,
)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Manifest]:
    """The raw and the prepared cohort of three coarse phantoms."""
    folder = tmp_path_factory.mktemp("vindr")
    write_vindr_cohort(folder / "raw", 3, 11, COARSE, lacking=1)
    masks = str(folder / "raw" / "masks")
    assert (
        main(["manifest", "vindr", str(folder / "raw"), "--masks", masks, "-o", str(folder / "raw.csv")]) == 0
    )
    steps = ["--steps", "rigid", "deformable-fast", "--grid-mm", "6", "--jobs", "2"]
    assert main(["prepare", str(folder / "raw.csv"), "-o", str(folder / "prepared"), *steps]) == 0
    raw, prepared = read_manifest(folder / "raw.csv"), read_manifest(folder / "prepared" / "cohort.csv")
    pairs = zip(raw, prepared, strict=True)
    studies = tuple(with_all_phases(before, after, folder / "prepared") for before, after in pairs)
    return raw, Manifest(prepared.path, studies)


def test_the_pancreas_comes_together(cohorts: tuple[Manifest, Manifest]) -> None:
    """Quick: coarse phantoms on a coarse grid must gain; for figures see benchmarks/preparation.py."""
    before, after = (
        mean(pancreas_dice(study, phase) for study in cohort for phase in MOVING) for cohort in cohorts
    )
    assert after > before + 0.1


def test_outside_of_the_scans_is_marked(cohorts: tuple[Manifest, Manifest]) -> None:
    raw, prepared = cohorts
    assert sum(zeros_outside(study) for study in prepared) == 0
    slices = {read_volume(study.file(phase)).shape[2] for study in raw for phase in study.phases}
    assert len(slices) > 1  # or nothing would lie outside
    darkest = [read_volume(study.file(phase)).data.min() for study in prepared for phase in MOVING]
    assert min(darkest) == UNCOVERED_HU


def test_patients_are_not_named(cohorts: tuple[Manifest, Manifest]) -> None:
    raw, prepared = cohorts
    name = b"phantom-11"
    slices = list(raw.studies[0].file(Phase.ARTERIAL).iterdir())
    assert name in slices[0].read_bytes()  # as PatientName and PatientID
    for path in prepared.path.parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert name not in (gzip.decompress(content) if path.suffix == ".gz" else content), path


def test_studies_keep_their_patients_and_splits(cohorts: tuple[Manifest, Manifest]) -> None:
    raw, prepared = cohorts
    assert len(raw) == 3
    assert [(s.study_id, s.patient_id, s.split) for s in raw] == [
        (s.study_id, s.patient_id, s.split) for s in prepared
    ]


def test_the_portal_venous_scan_is_not_interpolated(cohorts: tuple[Manifest, Manifest]) -> None:
    raw, prepared = cohorts
    for before, after in zip(raw, prepared, strict=True):
        found, given = (
            read_volume(after.file(Phase.PORTAL_VENOUS)),
            read_volume(before.file(Phase.PORTAL_VENOUS)),
        )
        place = np.linalg.inv(given.affine) @ found.affine
        index = np.indices(found.shape).reshape(3, -1).T @ place[:3, :3].T + place[:3, 3]
        np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
        x, y, z = np.rint(index).astype(int).T
        np.testing.assert_array_equal(found.data.ravel(), given.data[x, y, z])
