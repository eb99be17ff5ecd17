"""Headers of real series, and of files that are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from mpfnl.datasets.headers import read_series_header, series_files
from mpfnl.errors import InputError

SERIES = ["crlm_pv_1004/dicom_sub", "ts_pv_dicom_scrubbed/dicom", "dicom_venous_2slice"]


@pytest.mark.realdata
@pytest.mark.parametrize("name", SERIES)
def test_two_files_tell_what_all_files_tell(real_data: Path, name: str) -> None:
    """Against ITK's reader of whole series, which sorts all positions."""
    folder = real_data / name
    header = read_series_header(series_files(folder))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    scan = reader.Execute()
    assert header.slices == scan.GetSize()[2]
    assert header.spacing == pytest.approx(scan.GetSpacing()[2], abs=1e-3)
    assert (header.modality, header.axial, header.original) == ("CT", True, True)
    assert not header.localizer
    assert not header.sharp
    assert header.patient
    assert header.patient not in repr(header)


@pytest.mark.realdata
def test_a_single_file_has_its_thickness(real_data: Path) -> None:
    files = series_files(real_data / "dicom_venous_2slice")
    assert read_series_header(files[:1]).spacing == 5.0


def test_files_are_those_of_the_series_alone(tmp_path: Path) -> None:
    for name in ("b.dcm", "a.DCM", "._a.dcm", "readme.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in series_files(tmp_path)] == ["a.DCM", "b.dcm"]
    assert series_files(tmp_path / "none") == []


@pytest.mark.realdata
@pytest.mark.parametrize("kind", ["text", "empty", "nifti", "truncated"])
def test_what_is_no_dicom_is_named(real_data: Path, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "1.dcm"
    if kind == "nifti":
        shutil.copy(real_data / "ts_noncontrast" / "example_ct_sm.nii.gz", file)
    elif kind == "truncated":
        whole = series_files(real_data / "dicom_venous_2slice")[0].read_bytes()
        file.write_bytes(whole[:300])
    else:
        file.write_bytes(b"no DICOM" * 40 if kind == "text" else b"")
    with pytest.raises(InputError, match=r"1\.dcm") as caught:
        read_series_header([file])
    assert "\n" not in str(caught.value)
