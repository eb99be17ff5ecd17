"""Voxels that a phase does not cover, through files: the mark arrives everywhere, a scanner's fill is air."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import mpfnl
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import Split, Study, read_manifest, write_manifest
from mpfnl.evaluation.methods import PhaseSubset
from mpfnl.evaluation.scoring import EvaluateOptions, score_cohort
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import read_volume
from mpfnl.volumes.scan import open_scan
from mpfnl.window import AIR_HU, UNCOVERED_HU

NC, ART, PV = PHASES
SHAPE = (24, 22, 20)
UNCOVERED = {NC: np.s_[:, :, 12:], ART: np.s_[:], PV: np.s_[:0]}
"""Voxels that each phase does not cover."""


def make_scan(phase: Phase, fill: int = AIR_HU) -> np.ndarray:
    x, y, _ = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    distance = np.hypot(x - 12, y - 11)
    level = {NC: 50, ART: 70, PV: 100}[phase]
    hu = np.where(distance < 8, level, -1000) + np.random.default_rng(level).normal(0, 10, SHAPE)
    hu[distance > 11] = fill
    hu[UNCOVERED[phase]] = UNCOVERED_HU
    return hu.astype(np.int16)


def make_cohort(folder: Path, suffix: str, fill: int = AIR_HU) -> Path:
    """A study for each split; the surround of the target holds `fill`."""
    scans = {}
    for phase in PHASES:
        scans[phase] = folder / f"{phase}{suffix}"
        hu = make_scan(phase, fill if phase is PV else AIR_HU)
        nib.save(nib.Nifti1Image(hu, np.diag([2.0, 2.0, 3.0, 1.0])), scans[phase])
    studies = [Study(f"s-{split}", f"p-{split}", split, scans) for split in Split]
    return write_manifest(folder / "cohort.csv", studies).path


def make_model() -> mpfnl.PFNL3D:
    torch.manual_seed(0)
    return mpfnl.PFNL3D(features=4, blocks=1, phase_dropout=0.2)


def make_data(cohort: Path, **options: object) -> MultiphaseDataModule:
    sizes: dict[str, object] = {"batch_size": 4, "patch_size": 16, "patches_per_study": 4, "workers": 0}
    return MultiphaseDataModule(cohort, **(sizes | options))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=[".nii", ".nii.gz"])
def cohort(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cohort(tmp_path_factory.mktemp("cohort"), request.param)


def test_the_mark_is_read_as_it_is(cohort: Path) -> None:
    study = read_manifest(cohort).studies[0]
    for phase in PHASES:
        expected = make_scan(phase)
        assert np.array_equal(read_volume(study.file(phase), phase).data, expected)
        scan = open_scan(study.file(phase), phase)
        assert np.array_equal(scan.read(scan.grid.box), expected)
        scan.close()


@pytest.mark.parametrize("degradation", [None, "second-order-v1"])
def test_batches_are_nan_there_and_nowhere_else(cohort: Path, degradation: str | None) -> None:
    data = make_data(cohort, degradation=degradation)
    data.setup("fit")
    for batch in [next(iter(data.train_dataloader())), next(iter(data.test_dataloader()))]:
        unknown = batch["phases"].isnan()
        assert unknown[:, 1].all()
        assert not unknown[:, 2].any()
        assert not batch["target"].isnan().any()
    assert 0.3 < unknown[:, 0].float().mean() < 0.5  # of the whole volume: 8 of 20 slices


def test_the_device_degrades_as_the_workers_do(cohort: Path) -> None:
    on_device = make_data(cohort, degrade_on="device", augmentation=None)
    raw = next(iter(on_device.train_dataloader()))
    here = on_device.on_after_batch_transfer(raw, 0)
    there = next(iter(make_data(cohort, augmentation=None).train_dataloader()))
    torch.testing.assert_close(here["phases"], there["phases"], equal_nan=True, atol=2e-3, rtol=0)


def test_enhance_and_evaluate_meet_the_mark(cohort: Path, tmp_path: Path) -> None:
    model, manifest = make_model(), read_manifest(cohort)
    models = {"mine": model, "two-phases": PhaseSubset(model, [NC, PV])}
    evaluation = score_cohort(manifest, models, tmp_path, EvaluateOptions(degradation=None))
    assert [case.failure for case in evaluation.cases] == ["", "", ""]
    written = tmp_path / "volumes" / f"s-{Split.TEST}"
    for phase in (NC, ART):
        degraded = read_volume(written / f"degraded_{phase}.nii.gz").data
        assert np.array_equal(degraded == UNCOVERED_HU, make_scan(phase) == UNCOVERED_HU)
    degraded_files = {phase: written / f"degraded_{phase}.nii.gz" for phase in (NC, PV)}
    alone = model.enhance(degraded_files, precision=torch.float32).data
    for name in models:
        result = read_volume(written / f"{name}.nii.gz").data
        assert np.abs(result.astype(int) - alone).max() <= 2


@pytest.mark.parametrize("fill", [-2000, -3024, -32768])
def test_the_surround_of_the_target_is_air(fill: int, tmp_path: Path) -> None:
    found = make_data(make_cohort(tmp_path, ".nii", fill), degradation=None)
    (tmp_path / "air").mkdir()
    expected = make_data(make_cohort(tmp_path / "air", ".nii"), degradation=None)
    batches = [next(iter(data.test_dataloader())) for data in (found, expected)]
    for name in ("phases", "target"):
        torch.testing.assert_close(batches[0][name], batches[1][name], equal_nan=True)
    results = []
    for data in (found, expected):
        scans = data.manifest.studies[0].scans
        results.append(make_model().enhance(scans, precision=torch.float32).data)
    body = make_scan(PV) > -500
    assert np.abs(results[0].astype(int) - results[1])[body].max() <= 1
