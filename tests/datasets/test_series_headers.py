"""Headers of real and of made-up series, and of files that are none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, XRayRadiationDoseSRStorage

from mpfnl.datasets import headers
from mpfnl.datasets.headers import SAMPLE, SeriesHeader, read_series_header, series_files
from mpfnl.errors import InputError
from mpfnl.phantoms.dicom import SliceHeader, write_slice
from mpfnl.volumes.dicom.headers import Header, PixelPlace

SERIES = ["crlm_pv_1004/dicom_sub", "ts_pv_dicom_scrubbed/dicom", "dicom_venous_2slice"]


@pytest.mark.realdata
@pytest.mark.parametrize("name", SERIES)
def test_a_few_files_tell_what_all_files_tell(real_data: Path, name: str) -> None:
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


def write_series(folder: Path, numbers: list[int], suffix: str = ".dcm", step: float = 2.5) -> list[Path]:
    folder.mkdir(parents=True)
    for index, number in enumerate(numbers):
        header = SliceHeader(
            patient="Doe",
            study="1.2",
            series="1.2.3",
            instance=f"1.2.3.{index + 1}",
            frame="2.25.1",
            series_number=1,
            number=number,
            position=(0.0, 0.0, step * index),
            spacing=(0.8, 0.8),
            thickness=5.0,
        )
        write_slice(folder / f"{7 * index % 31:02d}{suffix}", np.full((4, 4), -1000, np.int16), header)
    return series_files(folder)


@pytest.mark.parametrize("suffix", [".dcm", ".DCM", ".dicom", ".ima", "", ".1", ".2.840.113619"])
def test_files_of_any_suffix(tmp_path: Path, suffix: str) -> None:
    """fastai#3119: files that end in .dicom; others end in a part of a UID."""
    files = write_series(tmp_path / "series", list(range(1, 13)), suffix)
    for name in ("._01.dcm", "readme.txt", "DICOMDIR"):
        (tmp_path / "series" / name).write_bytes(b"x")
    assert len(files) == 12
    assert read_series_header(files).spacing == pytest.approx(2.5)
    assert series_files(tmp_path / "none") == []


NUMBERS = {
    "in their order": list(range(1, 21)),
    "backward": list(range(20, 0, -1)),
    "every second": list(range(1, 41, 2)),
    "every second and third": [1, 3, 6, 8, 11, 13, 16, 18, 21, 23, 26, 28, 31, 33, 36, 38, 41, 43, 46, 48],
    "all the same": [1] * 20,
    "in any order": [11, 3, 17, 5, 1, 20, 9, 14, 2, 8, 19, 6, 13, 4, 16, 10, 7, 18, 12, 15],
}


@pytest.mark.parametrize("numbers", list(NUMBERS))
def test_the_spacing_is_that_of_neighbours(tmp_path: Path, numbers: str) -> None:
    """Numbers may leave gaps: what counts is ImagePositionPatient (PS3.3, C.7.6.2.1.1)."""
    header = read_series_header(write_series(tmp_path / "series", NUMBERS[numbers]))
    assert header.spacing == pytest.approx(2.5)
    assert header.coverage == pytest.approx(50)


def test_what_lies_beside_the_slices_does_not_count(tmp_path: Path) -> None:
    """pyvoxel#32: a dose report; and a localizer, which is not across the body."""
    write_series(tmp_path / "series", list(range(1, 13)))
    localizer = dcmread(tmp_path / "series" / "00.dcm")
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    localizer.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    localizer.save_as(tmp_path / "series" / "-localizer.dcm")
    report = Dataset()
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = XRayRadiationDoseSRStorage, "1.2.9", "SR"
    report.file_meta.MediaStorageSOPClassUID = report.SOPClassUID
    dcmwrite(tmp_path / "series" / "99.dcm", report, enforce_file_format=True)
    header = read_series_header(series_files(tmp_path / "series"))
    assert (header.slices, header.axial, header.localizer, header.modality) == (12, True, False, "CT")
    assert header.spacing == pytest.approx(2.5)


def read_made_up(monkeypatch: pytest.MonkeyPatch, slices: list[dict[str, str]]) -> tuple[SeriesHeader, int]:
    """The header of a series of which no file exists, and the number of files that were read for it."""
    read: set[int] = set()

    def made_up(path: Path, name: str) -> Header:
        read.add(int(path.name))
        plain = {"Modality": "CT", "ImageOrientationPatient": "1\\0\\0\\0\\1\\0", "SliceThickness": "5"}
        values = {key: tuple(text.split("\\")) for key, text in (plain | slices[int(path.name)]).items()}
        return Header(path, values, PixelPlace(0, 0, ExplicitVRLittleEndian))

    monkeypatch.setattr(headers, "read_any_header", made_up)
    return read_series_header([Path(str(index)) for index in range(len(slices))]), len(read)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(2, 120),
    step=st.sampled_from([0.625, 1.25, 2.5, 3.0, 5.0]),
    jump=st.integers(1, 3),
    digits=st.integers(1, 4),
    missing=st.sets(st.integers(1, 118), max_size=3),
    random=st.randoms(use_true_random=False),
)
def test_the_spacing_of_any_series(
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    step: float,
    jump: int,
    digits: int,
    missing: set[int],
    random: object,
) -> None:
    """Rounding to 0.1 mm moves a distance between two slices by 0.1 mm at most; it is spread over all."""
    kept = [index for index in range(count) if index not in missing or index in (0, 1, count - 1)]
    slices = [
        {"ImagePositionPatient": f"0\\0\\{index * step:.{digits}f}", "InstanceNumber": str(1 + jump * index)}
        for index in kept
    ]
    random.shuffle(slices)  # type: ignore[attr-defined]
    header, read = read_made_up(monkeypatch, slices)
    assert header.slices == len(kept)
    assert header.spacing == pytest.approx(step, abs=0.1 if digits == 1 else 0.01)
    assert read <= len(kept)


def test_a_few_headers_are_enough_where_numbers_and_positions_go_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slices = [
        {"ImagePositionPatient": f"0\\0\\{-1.25 * index}", "InstanceNumber": str(index)}
        for index in range(401)
    ]
    header, read = read_made_up(monkeypatch, [*slices[1:], slices[0]])
    assert (header.spacing, read) == (1.25, SAMPLE)
    for index, each in enumerate(slices):
        each["InstanceNumber"] = str(2 * index)
    header, read = read_made_up(monkeypatch, slices)
    assert (header.spacing, read) == (1.25, 401)


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
