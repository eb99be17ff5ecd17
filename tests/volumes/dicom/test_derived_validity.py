"""Derived series pass dciodvfy and dcentvfy of dicom3tools without an error, whoever made the source."""

from __future__ import annotations

import os
import shutil
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file

from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.vindr import write_vindr_cohort
from mpfnl.volumes import read_volume
from mpfnl.volumes.dicom.derived import write_derived_series
from mpfnl.volumes.dicom.provenance import Derivation
from mpfnl.volumes.scan import content_files

ItkSeries: TypeAlias = Callable[[Path], tuple[np.ndarray, np.ndarray]]
Validate: TypeAlias = Callable[[list[Path]], list[str]]

REAL = ("crlm_pv_1004/dicom_sub", "dicom_venous_2slice", "ts_pv_dicom_scrubbed/dicom")


@pytest.fixture(scope="module")
def validate() -> Validate:
    """The errors of files, each on its own (dciodvfy) and together (dcentvfy)."""
    if not (shutil.which("dciodvfy") and shutil.which("dcentvfy")):
        pytest.skip("dciodvfy and dcentvfy are not installed (Debian's package dicom3tools)")

    def run(*command: str | Path) -> list[str]:
        result = subprocess.run([*map(str, command)], capture_output=True, text=True, errors="replace")
        return [line for line in result.stderr.splitlines() if line.startswith("Error")]

    def errors(files: list[Path]) -> list[str]:
        assert files
        return [line for file in files for line in run("dciodvfy", file)] + run("dcentvfy", *files)

    return errors


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a phantom's study."""
    folder = write_vindr_cohort(tmp_path_factory.mktemp("phantom"), 1, config=SMALL)
    (study,) = (folder / "abdomen_phases" / "batch_1").iterdir()
    return study


def assert_derives(source: Path, out: Path, about: Derivation, itk_series: ItkSeries) -> list[Path]:
    """The result reads as the source does, by SimpleITK and by mpfnl; returns its files."""
    scan = read_volume(source)
    enhanced = (scan.data // 2).astype(scan.data.dtype)
    files = write_derived_series(out, enhanced, source, about)
    hu, affine = itk_series(out)
    np.testing.assert_allclose(affine, itk_series(source)[1], atol=1e-6)
    assert np.array_equal(hu, enhanced)
    again = read_volume(out)
    assert np.array_equal(again.data, enhanced)
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-6)
    return files


def test_phantoms_and_what_is_derived_from_them(
    tmp_path: Path, phantom: Path, about: Derivation, itk_series: ItkSeries, validate: Validate
) -> None:
    for number, series in enumerate(sorted(phantom.iterdir())[:2]):
        files = assert_derives(series, tmp_path / str(number), about, itk_series)
        assert validate(content_files(series)[:2]) == []
        assert validate(files[:3]) == []
        # Patient, study and frame of reference are those of the source: one study for both.
        assert validate([files[0], *content_files(series)[:1]]) == []


def test_the_checker_finds_errors(
    tmp_path: Path, phantom: Path, about: Derivation, validate: Validate
) -> None:
    """Otherwise the tests around it would hold nothing."""
    series = sorted(phantom.iterdir())[0]
    files = write_derived_series(tmp_path / "out", read_volume(series).data, series, about)
    data = pydicom.dcmread(files[0])
    del data.RescaleSlope, data.PatientID
    data.save_as(files[0])
    errors = validate(files[:1])
    assert any("RescaleSlope" in line for line in errors)
    other = pydicom.dcmread(files[1])
    other.StudyDate = "20200202"
    other.save_as(files[1])
    assert any("StudyDate" in line for line in validate(files[1:3]))


def test_a_real_slice_of_pydicom(
    tmp_path: Path, about: Derivation, itk_series: ItkSeries, validate: Validate
) -> None:
    """A GE slice with private elements, three times above each other to make a stack."""
    (tmp_path / "source").mkdir()
    data = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    assert [element for element in data if element.tag.is_private]
    for number in range(3):
        data.ImagePositionPatient[2] = -77.2 + 5 * number
        data.InstanceNumber = number + 1
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.9999.1.{number + 1}"
        data.save_as(tmp_path / "source" / f"{number}.dcm")
    files = assert_derives(tmp_path / "source", tmp_path / "out", about, itk_series)
    assert validate(files) == []
    assert not [element for element in pydicom.dcmread(files[0]).iterall() if element.tag.is_private]


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of the sources
def test_real_series(
    tmp_path: Path,
    real_data: Path,
    about: Derivation,
    itk_series: ItkSeries,
    validate: Validate,
    name: str,
) -> None:
    files = assert_derives(real_data / name, tmp_path / "out", about, itk_series)
    assert validate(files[:4]) == []
    source = content_files(real_data / name)
    for file in files:
        data = pydicom.dcmread(file)
        (item,) = data.SourceImageSequence
        assert item.ReferencedSOPInstanceUID in {uid(each) for each in source}
        assert not [element for element in data.iterall() if element.tag.is_private]


def uid(file: Path) -> str:
    return str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID)


def test_a_bare_source_gives_a_valid_series(
    tmp_path: Path, source: Callable[..., Path], about: Derivation, stored: np.ndarray, validate: Validate
) -> None:
    """The slices lack much that the standard asks for; what is derived from them does not."""
    bare = source(FrameOfReferenceUID=None, SliceThickness=None, PatientIdentityRemoved="YES")
    assert validate(content_files(bare)[:1]) != []
    assert validate(write_derived_series(tmp_path / "out", stored - 1024.0, bare, about)) == []


def test_nothing_is_said_on_the_terminal(
    tmp_path: Path,
    phantom: Path,
    about: Derivation,
    capfd: pytest.CaptureFixture[str],
) -> None:
    series = sorted(phantom.iterdir())[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_derived_series(tmp_path / "out", read_volume(series).data, series, about)
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == ["out"]
