"""A DICOM folder reads as SimpleITK and pydicom read it, whatever its files are called."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from scipy.spatial.transform import Rotation

from mpfnl.errors import ConflictError, FormatError, NotFoundError
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_mask, read_volume, write_volume
from mpfnl.volumes.dicom.headers import read_header
from mpfnl.volumes.scan import content_files, scan_exists

MakeSeries: TypeAlias = Callable[..., list[Path]]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def itk_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """SimpleITK's own reader: HU (x, y, z) and the affine (RAS+)."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, LPS_TO_RAS @ affine


def assert_reads_as_itk(folder: Path, atol: float = 1e-4) -> Volume:
    scan = read_volume(folder, Phase.PORTAL_VENOUS)
    hu, affine = itk_series(folder)
    assert np.array_equal(scan.data, hu.clip(-1024))
    np.testing.assert_allclose(scan.affine, affine, atol=atol)
    return scan


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(6)),
    numbers=st.permutations(range(6)),
    angles=st.tuples(*[st.sampled_from([0.0, 90.0]) | st.floats(-180, 180)] * 3),
    step=st.floats(0.5, 8),
)
def test_any_names_in_any_orientation(
    tmp_path: Path,
    make_series: MakeSeries,
    stored: np.ndarray,
    order: list[int],
    numbers: list[int],
    angles: tuple[float, float, float],
    step: float,
) -> None:
    shutil.rmtree(tmp_path / "scan", ignore_errors=True)
    axes = np.round(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), 9) + 0.0
    make_series(
        tmp_path / "scan",
        stored,
        step=axes[:, 2] * step,
        names=[f"I{index}.dcm" for index in order],
        each=[{"InstanceNumber": number} for number in numbers],
        ImageOrientationPatient=[f"{value:.9f}" for value in axes[:, :2].T.ravel()],
    )
    scan = assert_reads_as_itk(tmp_path / "scan")
    assert np.array_equal(scan.data, stored.astype(int) - 1024)
    assert scan.data.dtype == scan.storage == np.int16
    np.testing.assert_allclose(scan.spacing, (0.7, 0.8, step), rtol=1e-5)
    expected = [tmp_path / "scan" / f"I{index}.dcm" for index in order]
    assert content_files(tmp_path / "scan") == expected


RESCALING = [
    {"RescaleSlope": 1, "RescaleIntercept": -1024},
    {"RescaleSlope": "1.0", "RescaleIntercept": "-1024.0"},
    {"RescaleSlope": 2, "RescaleIntercept": -8192},
    {"RescaleSlope": 0.5, "RescaleIntercept": -1000.25},
    {"RescaleSlope": "0.1", "RescaleIntercept": 0},
    {"RescaleSlope": "2.44140625e-2", "RescaleIntercept": -3},
]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("same", [True, False])
def test_rescaling_as_pydicom(
    tmp_path: Path, make_series: MakeSeries, signed: bool, bits: int, same: bool
) -> None:
    rng = np.random.default_rng(bits)
    low = -(1 << bits - 1) if signed else 0
    stored = rng.integers(low, low + (1 << bits), (6, 5, len(RESCALING)))
    stored = stored.astype(np.int16 if signed else np.uint16)
    for number in range(len(RESCALING)):
        each = [RESCALING[number]] * len(RESCALING) if same else RESCALING
        if not same and number:
            break
        files = make_series(tmp_path / str(number), stored, each=each, BitsStored=bits, HighBit=bits - 1)
        slices = [pydicom.dcmread(file) for file in files]
        expected = [pydicom.pixels.apply_rescale(data.pixel_array, data).T for data in slices]
        scan = read_volume(tmp_path / str(number))
        np.testing.assert_allclose(scan.data, np.stack(expected, axis=-1).clip(-1024), rtol=1e-6, atol=1e-9)
        whole = same and number < 3
        assert (scan.data.dtype.kind == "i") == whole


def packed_by_itk(pixels: np.ndarray, compressor: str, folder: Path) -> pydicom.Dataset:
    """An image whose pixels (rows, columns) ITK packed losslessly."""
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(folder / "packed.dcm"))
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.Execute(sitk.GetImageFromArray(pixels[None]))
    return pydicom.dcmread(folder / "packed.dcm")


@pytest.mark.parametrize("kind", ["implicit", "no meta header", "RLE", "JPEG", "JPEG2000"])
def test_other_transfer_syntaxes(tmp_path: Path, make_series: MakeSeries, kind: str) -> None:
    stored = np.random.default_rng(0).integers(0, 3024, (32, 20, 4)).astype(np.uint16)
    for file in make_series(tmp_path / "scan", stored):
        data = pydicom.dcmread(file)
        if kind == "RLE":
            data.compress(RLELossless)
        elif kind.startswith("JPEG"):
            other = packed_by_itk(data.pixel_array, kind, tmp_path)
            data.file_meta.TransferSyntaxUID = other.file_meta.TransferSyntaxUID
            data["PixelData"] = other["PixelData"]
            assert data.file_meta.TransferSyntaxUID.is_compressed
        else:
            data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        if kind == "no meta header":
            data.file_meta.clear()
            data.preamble = None
            data.save_as(file, implicit_vr=True, little_endian=True, enforce_file_format=False)
        else:
            data.save_as(file)
    assert np.array_equal(read_volume(tmp_path / "scan").data, stored.astype(int) - 1024)


def test_padding_becomes_air(tmp_path: Path, make_series: MakeSeries) -> None:
    rng = np.random.default_rng(0)
    hu = rng.integers(-1024, 3000, (9, 7, 4))
    outside = rng.random(hu.shape) < 0.3
    expected = np.where(outside, -1024, hu)
    ge = np.where(outside, -3024, hu)
    make_series(tmp_path / "ge", (ge + 1024).astype(np.int16), PixelPaddingValue=-2000)
    unsigned = np.where(outside, 63536 - 1024, hu)
    make_series(tmp_path / "unsigned", (unsigned + 1024).astype(np.uint16), PixelPaddingValue=63536)
    tissue = np.where(outside, 0, hu)  # a padding value that is also water: no voxel may turn into air
    make_series(tmp_path / "zero", tissue.astype(np.int16), PixelPaddingValue=0, RescaleIntercept=0)
    assert np.array_equal(read_volume(tmp_path / "ge").data, expected)
    assert np.array_equal(read_volume(tmp_path / "unsigned").data, expected)
    assert np.array_equal(read_volume(tmp_path / "zero").data, tissue)


def test_the_upper_end_is_kept(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray) -> None:
    stored[0, 0, 0] = 31000
    make_series(tmp_path / "extended", stored)
    assert read_volume(tmp_path / "extended").data[0, 0, 0] == 31000 - 1024
    stored[0, 0, 1] = 65535
    make_series(tmp_path / "beyond", stored)
    scan = read_volume(tmp_path / "beyond")
    assert scan.data[0, 0, 1] == 65535 - 1024
    assert scan.data.dtype == np.int32


def test_what_lies_beside_the_slices(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray) -> None:
    names = [f"IM{index}" for index in range(6)]  # no suffix
    make_series(tmp_path, stored, names=names)
    (tmp_path / "notes.txt").write_text("a note")
    (tmp_path / "dose.xml").write_text("<dose/>")
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM an index")
    (tmp_path / "._IM0.dcm").write_bytes(b"a Mac was here")
    (tmp_path / "empty").touch()
    make_series(tmp_path / "other series", stored[:, :, :2], SeriesInstanceUID="1.2.3.4.5.6.7.8")
    assert np.array_equal(read_volume(tmp_path).data, stored.astype(int) - 1024)
    assert content_files(tmp_path) == [tmp_path / name for name in names]


def test_positions_rounded_by_the_scanner(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray
) -> None:
    step = 0.625  # rounded to 0.1 mm
    each = [{"ImagePositionPatient": [-30.04, -20, round(index * step, 1)]} for index in range(6)]
    each[3]["ImagePositionPatient"][0] = -30.0
    make_series(tmp_path, stored, each=each)
    scan = read_volume(tmp_path)
    np.testing.assert_allclose(scan.spacing, (0.7, 0.8, step), atol=0.01)


def test_copies_of_a_slice_count_once(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray) -> None:
    files = make_series(tmp_path / "scan", stored)
    before = read_volume(tmp_path / "scan")
    for number, file in enumerate(files[1:4]):
        shutil.copy(file, tmp_path / "scan" / f"{'az'[number % 2]}{number}.dcm")
    after = read_volume(tmp_path / "scan")
    assert np.array_equal(after.data, before.data)
    assert np.array_equal(after.affine, before.affine)
    assert len(content_files(tmp_path / "scan")) == 9


FIRST, SECOND = "1.2.826.0.1.9999.1111.20240101", "1.2.826.0.1.9999.2222.20240101"


@pytest.fixture
def two_series(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray) -> Path:
    names = [f"{letter}.dcm" for letter in "aceg"]
    make_series(tmp_path, stored[:, :, :4], names=names, SeriesInstanceUID=FIRST, SeriesNumber=2)
    names = [f"{letter}.dcm" for letter in "bdf"]
    second: dict[str, Any] = {"SeriesInstanceUID": SECOND, "SeriesNumber": 7, "SeriesDescription": "V\xe9n 5"}
    make_series(tmp_path, stored[:, :, 3:], names=names, SpecificCharacterSet="ISO_IR 192", **second)
    return tmp_path


def test_two_series_are_refused(two_series: Path, refused: Callable[..., str]) -> None:
    message = refused(two_series, ConflictError)
    assert f"number 2 'Portal 3.0' (4 files, UID ..{FIRST[-12:]})" in message
    assert f"number 7 'V\xe9n 5' (3 files, UID ..{SECOND[-12:]})" in message
    assert f"{two_series.name}#UID" in message


@pytest.mark.parametrize(("uid", "first", "last"), [(FIRST, 0, 4), (SECOND, 3, 6)])
@pytest.mark.parametrize("ending", [0, -13])
def test_one_series_is_named(
    two_series: Path, stored: np.ndarray, uid: str, first: int, last: int, ending: int
) -> None:
    path = Path(f"{two_series}#{uid[ending:]}")
    scan = read_volume(path, Phase.ARTERIAL)
    assert np.array_equal(scan.data, stored[:, :, first:last].astype(int) - 1024)
    assert scan.path == path
    assert scan_exists(path)
    assert len(content_files(path)) == last - first


def test_a_name_that_fits_no_series(two_series: Path, refused: Callable[..., str]) -> None:
    assert " 1.2.3.4.5 " in refused(Path(f"{two_series}#1.2.3.4.5"), NotFoundError)
    assert " .20240101 " in refused(Path(f"{two_series}#.20240101"), NotFoundError)
    assert " 1 " in refused(Path(f"{two_series}#1"), NotFoundError)  # both end in it: too short
    refused(Path(f"{two_series}-not#{FIRST}"), NotFoundError)


def test_what_exists(tmp_path: Path, two_series: Path) -> None:
    (tmp_path / "scan#3.nii").touch()
    (tmp_path / "folder#1.2").mkdir()
    assert scan_exists(tmp_path / "scan#3.nii")
    assert scan_exists(tmp_path / "folder#1.2")
    assert scan_exists(str(two_series))
    assert not scan_exists(tmp_path / "none")
    assert not scan_exists(tmp_path / "none#1.2.3")
    assert not scan_exists(tmp_path / "a.dcm#1.2.3")
    with pytest.raises(NotFoundError, match=r"none\.nii"):
        content_files(tmp_path / "none.nii")


def test_a_folder_whose_name_looks_like_a_selector(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray
) -> None:
    make_series(tmp_path / "scan#1.2", stored)
    assert read_volume(tmp_path / "scan#1.2").shape == stored.shape


def test_a_mask_is_no_folder(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray) -> None:
    make_series(tmp_path, stored)
    with pytest.raises(FormatError, match=tmp_path.name):
        read_mask(tmp_path)


def test_one_dicom_file_is_no_scan(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Callable[..., str]
) -> None:
    for file in make_series(tmp_path, stored, names=["a.dcm", *"bcdef"])[:2]:
        assert "DICOM" in refused(file, FormatError)


def test_nothing_names_the_patient(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, leaks: Callable[[str], list[str]]
) -> None:
    make_series(tmp_path / "scan", stored)
    scan = read_volume(tmp_path / "scan", Phase.ARTERIAL)
    write_volume(tmp_path / "out.nii", scan.data, scan)
    assert leaks("zelda secretname")  # the search finds what it looks for
    assert not leaks(repr(vars(scan)).replace(str(tmp_path), ""))
    assert not leaks((tmp_path / "out.nii").read_bytes().decode("latin-1"))


REAL = ["crlm_pv_1004/dicom_sub", "ts_pv_dicom_scrubbed/dicom", "dicom_venous_2slice"]


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
def test_real_series(real_data: Path, name: str) -> None:
    scan = assert_reads_as_itk(real_data / name, atol=1e-6)
    assert scan.data.dtype == np.int16
    assert scan.data.min() == -1024
    assert len(content_files(real_data / name)) == scan.shape[2]


@pytest.mark.realdata
@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_real_series_mixed(
    real_data: Path, tmp_path: Path, pair: tuple[int, int], refused: Callable[..., str]
) -> None:
    files = [[Path(entry) for entry in os.scandir(real_data / REAL[index])] for index in pair]
    for letter, series in zip("ab", files, strict=True):
        for file in series:
            shutil.copy(file, tmp_path / f"{letter}-{file.name}")
    message = refused(tmp_path, ConflictError)
    for series in files:
        assert f"({len(series)} files, UID ..{pydicom.dcmread(series[0]).SeriesInstanceUID[-12:]})" in message
    uid = pydicom.dcmread(files[1][0]).SeriesInstanceUID
    again = read_volume(f"{tmp_path}#{uid[-12:]}")
    assert np.array_equal(again.data, read_volume(real_data / REAL[pair[1]]).data)


@pytest.mark.parametrize("implicit", [False, True])
def test_the_sign_of_a_padding_value(tmp_path: Path, make_series: MakeSeries, implicit: bool) -> None:
    """A padding value within the scale is left alone, whether the file states its sign or the pixels do."""
    stored = np.random.default_rng(0).integers(-1000, 1000, (9, 7, 4)).astype(np.int16)
    stored[:3] = -2000
    for file in make_series(tmp_path, stored, PixelPaddingValue=-2000, RescaleIntercept=0):
        data = pydicom.dcmread(file)
        if implicit:
            data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        data.save_as(file, implicit_vr=implicit, little_endian=True)
        header = read_header(file, "scan")
        assert header.number("PixelPaddingValue") == -2000
    assert np.array_equal(read_volume(tmp_path).data, stored.clip(-1024))
