"""One study stored in five orders of axes: degrading, enhancing, training and evaluating give the same.

Reported as neheller/kits19#9 (slices first) and wasserth/TotalSegmentator#509.
"""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy.ndimage import gaussian_filter

import mpfnl
from mpfnl.cli import main
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import read_manifest
from mpfnl.data.studies import StudyCache, StudyReader
from mpfnl.evaluation import EvaluateOptions, evaluate
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Volume, read_volume


class BrightVoxels:
    """A segmenter: whatever lies above 70 HU, counted from the first voxel on so that the order matters."""

    structures = ("pancreas",)
    notice = ""

    def segment(self, scan: Volume) -> dict[str, np.ndarray]:
        mask = scan.data > 70
        mask[: scan.shape[0] // 4] = False
        return {"pancreas": mask}

    def describe(self) -> dict[str, str]:
        return {"name": "bright voxels"}


ORDERS = ("RAS", "LPS", "LAS", "SAR", "ASR")
SHAPE = (34, 30, 26)
AFFINE = np.array([[1.5, 0, 0, -20], [0, 1.25, 0, -11], [0, 0, 3, 400], [0, 0, 0, 1.0]])


def stored_as(voxels: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    turn = ornt_transform(io_orientation(AFFINE), axcodes2ornt(codes))
    turned = nib.orientations.apply_orientation(voxels, turn)
    return np.ascontiguousarray(turned), AFFINE @ inv_ornt_aff(turn, voxels.shape)


def in_ras(path: Path) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


def make_scans() -> dict[Phase, np.ndarray]:
    """A body with an organ that only one phase enhances, asymmetric along every axis, int16."""
    x, y, z = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = np.where((x - 16) ** 2 / 200 + (y - 14) ** 2 / 150 < 1, 50.0, -1000.0)
    organ = (x - 12) ** 2 + (y - 17) ** 2 + 4 * (z - 9) ** 2 < 60
    rng = np.random.default_rng(5)
    return {
        phase: (gaussian_filter(body + (30 + 40 * place) * organ, 0.6) + rng.normal(0, 20, SHAPE)).astype(
            np.int16
        )
        for place, phase in enumerate(PHASES)
    }


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with the three phases, a mask and a manifest for each order of axes."""
    scans, folders = make_scans(), {}
    for codes in ORDERS:
        folder = folders[codes] = tmp_path_factory.mktemp(codes)
        for place, (phase, hu) in enumerate(scans.items()):
            suffix = ".nii" if place == 1 else ".nii.gz"
            data, affine = stored_as(hu, codes)
            nib.save(nib.Nifti1Image(data, affine), folder / f"{phase}{suffix}")
        data, affine = stored_as((scans[Phase.PORTAL_VENOUS] > 80).astype(np.uint8), codes)
        nib.save(nib.Nifti1Image(data, affine), folder / "pancreas.nii.gz")
        lines = ["study_id,patient_id,split,noncontrast,arterial,portal_venous,pancreas"]
        row = "noncontrast.nii.gz,arterial.nii,portal_venous.nii.gz,pancreas.nii.gz"
        lines += [f"s{n},p{n},{split},{row}" for n, split in enumerate(("train", "val", "test"))]
        (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folders


def files(folder: Path) -> dict[Phase, Path]:
    return dict(read_manifest(folder / "cohort.csv").studies[0].scans)


@pytest.fixture(scope="module")
def model() -> mpfnl.PFNL3D:
    torch.manual_seed(3)
    model = mpfnl.PFNL3D(features=4, blocks=1)
    for parameter in model.parameters():  # a fresh network returns its input
        torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize("codes", ORDERS[1:])
def test_enhancement_is_the_same_to_the_last_bit(
    codes: str, studies: dict[str, Path], model: mpfnl.PFNL3D, tmp_path: Path
) -> None:
    expected = model.enhance(files(studies["RAS"]), tmp_path / "ras.nii.gz").data
    written = model.enhance(files(studies[codes]), tmp_path / "out.nii.gz")
    source = nib.load(files(studies[codes])[Phase.PORTAL_VENOUS])
    np.testing.assert_array_equal(in_ras(tmp_path / "out.nii.gz"), expected)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii.gz").affine, source.affine)
    np.testing.assert_array_equal(written.data, np.asarray(nib.load(tmp_path / "out.nii.gz").dataobj))
    volumes = {phase: read_volume(file, phase) for phase, file in files(studies[codes]).items()}
    np.testing.assert_array_equal(model.enhance(volumes).data, written.data)
    assert not np.array_equal(expected, in_ras(files(studies["RAS"])[Phase.PORTAL_VENOUS]))


def test_phases_of_one_study_may_have_different_orders(studies: dict[str, Path], model: mpfnl.PFNL3D) -> None:
    expected = model.enhance(files(studies["RAS"])).data
    mixed = {phase: files(studies[codes])[phase] for phase, codes in zip(PHASES, ORDERS[2:], strict=True)}
    result = model.enhance(mixed)
    np.testing.assert_array_equal(result.canonical().data, expected)
    np.testing.assert_array_equal(result.affine, read_volume(mixed[Phase.PORTAL_VENOUS]).affine)


@pytest.mark.parametrize("codes", ORDERS[1:])
def test_a_finer_result_is_the_same(codes: str, studies: dict[str, Path], tmp_path: Path) -> None:
    torch.manual_seed(4)
    finer = mpfnl.PFNL3D(features=4, blocks=1, scale=2)
    expected = finer.enhance(files(studies["RAS"])).data
    finer.enhance(files(studies[codes]), tmp_path / "out.nii")
    np.testing.assert_array_equal(in_ras(tmp_path / "out.nii"), expected)


@pytest.mark.parametrize("preset", ["thick-slices", "low-dose", "paper", "metal"])
@pytest.mark.parametrize("codes", ORDERS[1:])
def test_degradation_is_the_same(codes: str, preset: str, studies: dict[str, Path], tmp_path: Path) -> None:
    for each in ("RAS", codes):
        scan = str(studies[each] / "arterial.nii")
        arguments = ["degrade", scan, "--output", str(tmp_path / f"{each}.nii.gz"), "--preset", preset]
        assert main(arguments) == 0
    np.testing.assert_array_equal(in_ras(tmp_path / f"{codes}.nii.gz"), in_ras(tmp_path / "RAS.nii.gz"))
    source = nib.load(studies[codes] / "arterial.nii")
    np.testing.assert_array_equal(nib.load(tmp_path / f"{codes}.nii.gz").affine, source.affine)


@pytest.mark.parametrize("codes", ORDERS[1:])
def test_training_patches_are_the_same(codes: str, studies: dict[str, Path]) -> None:
    batches = {}
    for each in ("RAS", codes):
        data = MultiphaseDataModule(
            studies[each] / "cohort.csv", patch_size=16, patches_per_study=4, batch_size=2, workers=0
        )
        data.setup("fit")
        torch.manual_seed(0)
        batches[each] = list(data.train_dataloader())
    for one, other in zip(*batches.values(), strict=True):
        torch.testing.assert_close(one["phases"], other["phases"], rtol=0, atol=0)
        torch.testing.assert_close(one["target"], other["target"], rtol=0, atol=0)


@pytest.mark.parametrize("codes", ORDERS)
def test_plain_files_are_read_in_parts_in_any_order(codes: str, studies: dict[str, Path]) -> None:
    study = read_manifest(studies[codes] / "cohort.csv").studies[0]
    reader = StudyReader(StudyCache([study], [Phase.ARTERIAL], 0))
    scans = reader[0]
    assert not scans.scans[0].in_memory
    box = (slice(3, 20), slice(4, 29), slice(5, 9))
    np.testing.assert_array_equal(scans.read(0, box), make_scans()[Phase.ARTERIAL][box])


@pytest.mark.parametrize("codes", ["SAR"])
def test_an_evaluation_has_the_same_scores(
    codes: str, studies: dict[str, Path], model: mpfnl.PFNL3D, tmp_path: Path
) -> None:
    rows = {}
    for each in ("RAS", codes):
        folder = tmp_path / each
        evaluate(
            studies[each] / "cohort.csv",
            {"mine": model},
            folder,
            EvaluateOptions(seed=2),
            segmenter=BrightVoxels(),
        )
        rows[each] = list(csv.DictReader((folder / "cases.csv").read_text().splitlines()))
    assert rows["RAS"] == rows[codes]
    assert {row["failure"] for row in rows[codes]} == {""}
    for name in ("degraded_portal_venous", "mine"):
        paths = [next((tmp_path / each).rglob(f"{name}*.nii.gz")) for each in ("RAS", codes)]
        np.testing.assert_array_equal(in_ras(paths[0]), in_ras(paths[1]))
