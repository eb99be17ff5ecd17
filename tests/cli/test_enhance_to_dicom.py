"""mpfnl enhance: DICOM in, a derived DICOM series out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

import mpfnl
from mpfnl.cli import main
from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.vindr import write_vindr_cohort
from mpfnl.volumes import read_volume


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One series of a phantom's, in a folder."""
    root = write_vindr_cohort(tmp_path_factory.mktemp("dicom") / "raw", 1, 3, SMALL, lacking=0)
    folders = {path.parent for path in (root if root.is_dir() else root.parent).rglob("*.dcm")}
    return max(folders, key=lambda folder: (len(list(folder.glob("*.dcm"))), folder.name))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return mpfnl.RCAN3D(channels=8, groups=1, blocks=1).save_pretrained(tmp_path_factory.mktemp("w") / "R")


def enhance(weights: Path, source: Path, output: Path) -> int:
    words = ["enhance", "--weights", str(weights), "--portal-venous", str(source), "-o", str(output)]
    return main([*words, "--precision", "fp32", "--tile", "48"])


def test_a_folder_becomes_a_series_of_the_same_scan(
    series: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enhance(weights, series, tmp_path / "enhanced") == 0
    assert "DICOM series" in capsys.readouterr().out
    assert enhance(weights, series, tmp_path / "enhanced.nii.gz") == 0
    made, as_nifti = (read_volume(tmp_path / name) for name in ("enhanced", "enhanced.nii.gz"))
    assert np.array_equal(made.data, np.maximum(as_nifti.data, -1024))
    np.testing.assert_allclose(made.affine, read_volume(series).affine, atol=1e-5)
    header = pydicom.dcmread(next((tmp_path / "enhanced").iterdir()))
    digest = hashlib.sha256((weights / "model.safetensors").read_bytes()).hexdigest()
    assert digest in header.DerivationDescription
    assert header.ImageType[:2] == ["DERIVED", "SECONDARY"]


def test_what_is_no_dicom_gives_none(
    series: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enhance(weights, series, tmp_path / "pv.nii.gz") == 0
    capsys.readouterr()
    assert enhance(weights, tmp_path / "pv.nii.gz", tmp_path / "folder") != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "pv.nii.gz") in line
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("name", ["out.nrrd", "out.mha", "out.dcm"])
def test_a_mistyped_name_makes_no_folder(
    name: str, series: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enhance(weights, series, tmp_path / name) != 0
    assert str(tmp_path / name) in capsys.readouterr().err
    assert not (tmp_path / name).exists()


def test_the_sources_folder_is_left_alone(
    series: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(series.iterdir())
    assert enhance(weights, series, series / "enhanced") != 0
    assert str(series / "enhanced") in capsys.readouterr().err
    assert sorted(series.iterdir()) == before
