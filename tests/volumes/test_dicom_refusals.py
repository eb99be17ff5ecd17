"""Every DICOM folder that is not one regular stack of CT slices is refused in one line, without a guess."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydicom.uid import EnhancedCTImageStorage, RLELossless

from mpfnl.errors import (
    ConflictError,
    DamagedError,
    FormatError,
    GridError,
    InputError,
    IntensityError,
    NotFoundError,
)
from mpfnl.volumes import read_volume
from mpfnl.volumes.scan import content_files

MakeSeries: TypeAlias = Callable[..., list[Path]]
Refused: TypeAlias = Callable[..., str]


def change(file: Path, **elements: Any) -> None:
    data = pydicom.dcmread(file)
    for key, value in elements.items():
        if value is None:
            delattr(data, key)
        else:
            setattr(data, key, value)
    data.save_as(file)


WRONG: dict[str, tuple[dict[str, Any], type[InputError], str]] = {
    "another modality": ({"Modality": "MR"}, FormatError, "002.dcm .*'MR'"),
    "no modality, no class": ({"Modality": None, "SOPClassUID": None}, FormatError, "002.dcm .*modality"),
    "multi-frame": ({"NumberOfFrames": 2}, FormatError, "002.dcm .*multi-frame"),
    "enhanced": ({"SOPClassUID": EnhancedCTImageStorage}, FormatError, "002.dcm .*Enhanced CT"),
    "localizer": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        GridError,
        "1 slice .*001.dcm .*003.dcm",
    ),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, FormatError, "MONOCHROME1"),
    "not HU": ({"RescaleType": "Z_EFF"}, IntensityError, "002.dcm .*'Z_EFF'"),
    "no slope": ({"RescaleSlope": None}, IntensityError, "002.dcm .*slope"),
    "empty intercept": ({"RescaleIntercept": ""}, IntensityError, "002.dcm .*intercept"),
    "slope 0": ({"RescaleSlope": 0}, IntensityError, "002.dcm .*slope"),
    "no position": ({"ImagePositionPatient": None}, GridError, "002.dcm .*position"),
    "no orientation": ({"ImageOrientationPatient": None}, GridError, "002.dcm .*orientation"),
    "no spacing": ({"PixelSpacing": None}, GridError, "002.dcm .*pixel spacing"),
    "zero spacing": ({"PixelSpacing": [0, 0.7]}, GridError, r"002.dcm .*\(0, 0.7\)"),
    "no rotation": ({"ImageOrientationPatient": [1, 0, 0, 0.2, 1, 0]}, GridError, "002.dcm .*0.2"),
    "another orientation": (
        {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
        ConflictError,
        r"orientation: 5 files .*000.dcm; 1 file .*002.dcm",
    ),
    "slightly turned": (
        {"ImageOrientationPatient": ["0.99999", "0.00447", 0, "-0.00447", "0.99999", 0]},
        ConflictError,
        "orientation: .*002.dcm",
    ),
    "another spacing": (
        {"PixelSpacing": [0.8, 0.701]},
        ConflictError,
        r"spacing: .*\(0.7, 0.8\).*\(0.701, 0.8\)",
    ),
    "another size": ({"Rows": 6}, ConflictError, "size: 5 files with 9 by 7 .* 1 file with 9 by 6"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_one_slice_is_wrong(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, case: str
) -> None:
    elements, kind, named = WRONG[case]
    files = make_series(tmp_path, stored)
    change(files[2], **elements)
    message = refused(tmp_path, kind)
    assert re.search(named, message), message


@pytest.mark.parametrize("rows", [6, 8, 1000])
def test_rows_that_the_pixels_do_not_have(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, rows: int
) -> None:
    for file in make_series(tmp_path, stored):
        change(file, Rows=rows)
    assert "000.dcm" in refused(tmp_path, DamagedError)


def test_eight_bits(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    make_series(tmp_path, np.zeros((6, 5, 3), np.uint8))
    assert "8 bits" in refused(tmp_path, FormatError)


def test_one_slice(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused) -> None:
    make_series(tmp_path, stored[:, :, :1])
    assert "000.dcm" in refused(tmp_path, GridError)


def test_no_dicom(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused) -> None:
    assert "DICOM" in refused(tmp_path, NotFoundError)
    (tmp_path / "notes.txt").write_text("nothing here")
    make_series(tmp_path / "below", stored)
    assert "DICOM" in refused(tmp_path, NotFoundError)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.sets(st.integers(0, 8), min_size=3), step=st.sampled_from([0.5, 1.0, 3.0, 5.0]))
def test_missing_slices(
    tmp_path: Path, make_series: MakeSeries, refused: Refused, kept: set[int], step: float
) -> None:
    gaps = [after - before for before, after in pairwise(sorted(kept))]
    assume(len(set(gaps)) > 1)  # every second slice of a series is a series of twice the spacing
    shutil.rmtree(tmp_path / "scan", ignore_errors=True)
    stored = np.random.default_rng(0).integers(0, 3000, (4, 5, 9)).astype(np.uint16)
    files = make_series(tmp_path / "scan", stored, step=(0, 0, step))
    for index in set(range(9)) - kept:
        files[index].unlink()
    message = refused(tmp_path / "scan", GridError)
    if sorted(gaps)[(len(gaps) - 1) // 2] == 1:
        count = sum(gap - 1 for gap in gaps)
        assert f"{count} slice{'s are' if count > 1 else ' is'} missing" in message
        widest = gaps.index(max(gaps))
        before, after = sorted(kept)[widest : widest + 2]
        assert f"{files[before].name} and {files[after].name} {step * max(gaps):g} mm" in message


@pytest.mark.parametrize("shift", [0.06, 0.5, 1.5, -0.4])
def test_unequal_distances(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, shift: float
) -> None:
    files = make_series(tmp_path, stored)
    change(files[3], ImagePositionPatient=[-30, -20, 109 + shift])
    refused(tmp_path, GridError)


def test_a_slice_of_another_field_of_view(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    files = make_series(tmp_path, stored)
    change(files[2], ImagePositionPatient=[-28, -20, 106])
    assert re.search("002.dcm .*2 mm", refused(tmp_path, GridError))


def test_slices_beside_each_other(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    make_series(tmp_path, stored, step=(0, 6, 3))
    assert "63 degrees" in refused(tmp_path, GridError)


@pytest.mark.parametrize("apart", ["AcquisitionNumber", "ContentTime", None])
def test_two_acquisitions_in_one_series(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, apart: str | None
) -> None:
    make_series(tmp_path, stored)
    own: dict[str, Any] = {"AcquisitionNumber": 2} if apart == "AcquisitionNumber" else {}
    if apart == "ContentTime":
        own = {"ContentTime": "121314"}
    make_series(tmp_path, stored[:, :, ::-1], names=[f"second{index}.dcm" for index in range(6)], **own)
    message = refused(tmp_path, ConflictError)
    assert "(000.dcm and second0.dcm; 6 positions in all)" in message
    assert ("AcquisitionNumber" in message, "ContentTime" in message) == (
        apart == "AcquisitionNumber",
        apart == "ContentTime",
    )
    assert ("@121314" in message) == (apart == "ContentTime")


def test_an_element_that_does_not_separate_acquisitions(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    halves = [{"AcquisitionNumber": 1 + index // 3} for index in range(6)]  # upper and lower, both twice
    make_series(tmp_path, stored, each=halves)
    make_series(tmp_path, stored[:, :, ::-1], names=[f"b{index}.dcm" for index in range(6)], each=halves)
    assert "AcquisitionNumber" not in refused(tmp_path, ConflictError)


def test_the_same_pixels_at_another_place(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    files = make_series(tmp_path, stored)
    shutil.copy(files[2], tmp_path / "copy.dcm")
    change(tmp_path / "copy.dcm", ImagePositionPatient=[-25, -20, 106])
    assert "(002.dcm and copy.dcm; 1 position" in refused(tmp_path, ConflictError)


def test_cut_off_anywhere(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    files = make_series(tmp_path, stored)
    whole = files[3].read_bytes()
    for kept in (0, 10, 131, 140, 400, len(whole) - 130, len(whole) - 60, len(whole) - 1):
        files[3].write_bytes(whole[:kept])
        assert "003.dcm" in refused(tmp_path, DamagedError)
    with pytest.raises(DamagedError, match=r"003\.dcm"):
        content_files(tmp_path)


@pytest.mark.parametrize("mark", [False, True])
def test_garbage(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, mark: bool
) -> None:
    make_series(tmp_path, stored)
    name = "IM9" if mark else "garbage.DCM"
    start = bytes(128) + b"DICM" if mark else b""
    (tmp_path / name).write_bytes(start + np.random.default_rng(0).bytes(3000))
    assert name in refused(tmp_path, DamagedError)


def test_no_pixels(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused) -> None:
    files = make_series(tmp_path, stored)
    change(files[1], PixelData=None)
    assert "001.dcm" in refused(tmp_path, DamagedError)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_unreadable(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused) -> None:
    files = make_series(tmp_path, stored)
    files[4].chmod(0)
    assert "004.dcm" in refused(tmp_path, DamagedError)
    tmp_path.chmod(0)
    try:
        refused(tmp_path, DamagedError)
    finally:
        tmp_path.chmod(0o700)


def test_packed_pixels_cut_off(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    files = make_series(tmp_path, stored)
    data = pydicom.dcmread(files[3])
    data.compress(RLELossless)
    data.save_as(files[3])
    whole = files[3].read_bytes()
    for lost in (30, 60):
        files[3].write_bytes(whole[:-lost])
        assert "003.dcm" in refused(tmp_path, DamagedError)


@pytest.mark.realdata
@pytest.mark.parametrize("place", ["cut off", "no start", "no code"])
def test_damaged_jpeg_2000(
    real_data: Path, tmp_path: Path, refused: Refused, capfd: pytest.CaptureFixture[str], place: str
) -> None:
    for number in range(4):
        shutil.copy(real_data / "ts_pv_dicom_scrubbed" / "dicom" / f"IM000{number}.dcm", tmp_path)
    bad = tmp_path / "IM0002.dcm"
    content = bytearray(bad.read_bytes())
    start = content.find(b"\xff\x4f\xff\x51")
    if place == "cut off":
        del content[len(content) // 2 :]
    else:
        begin = start if place == "no start" else start + 40
        content[begin : begin + 20] = bytes(20)
    bad.write_bytes(content)
    assert "IM0002.dcm" in refused(tmp_path, DamagedError)
    assert capfd.readouterr().err == ""  # OpenJPEG complains on its own
    os.write(2, b"still open")
    assert capfd.readouterr().err == "still open"


def test_threads_leave_the_standard_error_open(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    make_series(tmp_path, stored)
    read: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: read.append(read_volume(tmp_path).data)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"still open")
    assert capfd.readouterr().err == "still open"
    assert all(np.array_equal(data, read[0]) for data in read)
    assert len(read) == 4
