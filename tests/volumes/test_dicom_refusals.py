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

from mpfnl.errors import InputError
from mpfnl.volumes import read_volume
from mpfnl.volumes.scan import content_files

MakeSeries: TypeAlias = Callable[..., list[Path]]
Refused: TypeAlias = Callable[[Path], str]


def change(file: Path, **elements: Any) -> None:
    data = pydicom.dcmread(file)
    for key, value in elements.items():
        if value is None:
            delattr(data, key)
        else:
            setattr(data, key, value)
    data.save_as(file)


WRONG = {
    "another modality": ({"Modality": "MR"}, "002.dcm is of modality 'MR'"),
    "no modality": ({"Modality": None}, "modality 'unknown'"),
    "multi-frame": ({"NumberOfFrames": 2}, "multi-frame"),
    "enhanced": ({"SOPClassUID": EnhancedCTImageStorage}, "multi-frame.*dcm2niix"),
    "localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "002.dcm is a localizer"),
    "inverted": ({"PhotometricInterpretation": "MONOCHROME1"}, "MONOCHROME1"),
    "not HU": ({"RescaleType": "Z_EFF"}, "'Z_EFF'"),
    "no slope": ({"RescaleSlope": None}, "no rescale slope"),
    "empty intercept": ({"RescaleIntercept": ""}, "no rescale slope and intercept"),
    "slope 0": ({"RescaleSlope": 0}, "no rescale slope"),
    "no position": ({"ImagePositionPatient": None}, "does not say where it lies"),
    "no orientation": ({"ImageOrientationPatient": None}, "does not say where it lies"),
    "no spacing": ({"PixelSpacing": None}, "does not say where it lies"),
    "zero spacing": ({"PixelSpacing": [0, 0.7]}, "not positive"),
    "no rotation": ({"ImageOrientationPatient": [1, 0, 0, 0.2, 1, 0]}, "no rotation"),
    "another orientation": (
        {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
        r"differ in orientation: 5 files with .*e.g. 000.dcm; 1 file with .*e.g. 002.dcm",
    ),
    "slightly turned": (
        {"ImageOrientationPatient": ["0.99999", "0.00447", 0, "-0.00447", "0.99999", 0]},
        "differ in orientation",
    ),
    "another spacing": ({"PixelSpacing": [0.8, 0.701]}, r"spacing: .*\(0.7, 0.8\).*\(0.701, 0.8\)"),
    "another size": ({"Rows": 6}, "differ in size: 5 files with 9 by 7 .* 1 file with 9 by 6"),
}


@pytest.mark.parametrize("kind", list(WRONG))
def test_one_slice_is_wrong(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, kind: str
) -> None:
    elements, words = WRONG[kind]
    files = make_series(tmp_path, stored)
    change(files[2], **elements)
    message = refused(tmp_path)
    assert re.search(words, message), message


@pytest.mark.parametrize("rows", [6, 8, 1000])
def test_rows_that_the_pixels_do_not_have(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, rows: int
) -> None:
    for file in make_series(tmp_path, stored):
        change(file, Rows=rows)
    assert "the pixels of 000.dcm are not as many as its header says" in refused(tmp_path)


def test_eight_bits(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    make_series(tmp_path, np.zeros((6, 5, 3), np.uint8))
    assert "in 8 bits instead of 16" in refused(tmp_path)


def test_one_slice(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused) -> None:
    make_series(tmp_path, stored[:, :, :1])
    assert "one slice only (000.dcm)" in refused(tmp_path)


def test_no_dicom(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused) -> None:
    assert "without DICOM files" in refused(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing here")
    make_series(tmp_path / "below", stored)
    assert "without DICOM files" in refused(tmp_path)


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
    message = refused(tmp_path / "scan")
    if sorted(gaps)[(len(gaps) - 1) // 2] == 1:
        count = sum(gap - 1 for gap in gaps)
        assert f"{count} slice{'s are' if count > 1 else ' is'} missing" in message
        widest = gaps.index(max(gaps))
        before, after = sorted(kept)[widest : widest + 2]
        assert f"{files[before].name} and {files[after].name} {step * max(gaps):g} mm" in message
    else:
        assert "missing" in message or "unequal distances" in message


@pytest.mark.parametrize("shift", [0.06, 0.5, 1.5, -0.4])
def test_unequal_distances(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, shift: float
) -> None:
    files = make_series(tmp_path, stored)
    change(files[3], ImagePositionPatient=[-30, -20, 109 + shift])
    assert "unequal distances" in refused(tmp_path)


def test_a_slice_of_another_field_of_view(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    files = make_series(tmp_path, stored)
    change(files[2], ImagePositionPatient=[-28, -20, 106])
    assert "002.dcm lies 2 mm sideways" in refused(tmp_path)


def test_slices_beside_each_other(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    make_series(tmp_path, stored, step=(0, 6, 3))
    assert "63 degrees" in refused(tmp_path)


@pytest.mark.parametrize("apart", ["AcquisitionNumber", "ContentTime", None])
def test_two_acquisitions_in_one_series(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, apart: str | None
) -> None:
    make_series(tmp_path, stored)
    own: dict[str, Any] = {"AcquisitionNumber": 2} if apart == "AcquisitionNumber" else {}
    if apart == "ContentTime":
        own = {"ContentTime": "121314"}
    make_series(tmp_path, stored[:, :, ::-1], names=[f"second{index}.dcm" for index in range(6)], **own)
    message = refused(tmp_path)
    assert "(000.dcm and second0.dcm; 6 positions in all)" in message
    assert ("tells them apart" in message) == bool(apart)
    assert apart is None or f"{apart} tells them apart" in message
    assert "121314" not in message


def test_an_element_that_does_not_separate_acquisitions(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    halves = [{"AcquisitionNumber": 1 + index // 3} for index in range(6)]  # upper and lower, both twice
    make_series(tmp_path, stored, each=halves)
    make_series(tmp_path, stored[:, :, ::-1], names=[f"b{index}.dcm" for index in range(6)], each=halves)
    message = refused(tmp_path)
    assert "several acquisitions" in message
    assert "tells them apart" not in message


def test_the_same_pixels_at_another_place(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    files = make_series(tmp_path, stored)
    shutil.copy(files[2], tmp_path / "copy.dcm")
    change(tmp_path / "copy.dcm", ImagePositionPatient=[-25, -20, 106])
    assert "two different slices lie at one position (002.dcm and copy.dcm; 1 position" in refused(tmp_path)


def test_cut_off_anywhere(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    files = make_series(tmp_path, stored)
    whole = files[3].read_bytes()
    for kept in (0, 10, 131, 140, 400, len(whole) - 130, len(whole) - 60, len(whole) - 1):
        files[3].write_bytes(whole[:kept])
        assert "003.dcm is no readable DICOM image" in refused(tmp_path)
    with pytest.raises(InputError, match=r"003.dcm is no readable"):
        content_files(tmp_path)


@pytest.mark.parametrize("mark", [False, True])
def test_garbage(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, mark: bool
) -> None:
    make_series(tmp_path, stored)
    name = "IM9" if mark else "garbage.DCM"
    start = bytes(128) + b"DICM" if mark else b""
    (tmp_path / name).write_bytes(start + np.random.default_rng(0).bytes(3000))
    assert f"{name} is no readable DICOM image" in refused(tmp_path)


def test_no_pixels(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused) -> None:
    files = make_series(tmp_path, stored)
    change(files[1], PixelData=None)
    assert "001.dcm is no readable DICOM image" in refused(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_unreadable(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused) -> None:
    files = make_series(tmp_path, stored)
    files[4].chmod(0)
    assert "004.dcm: cannot be read" in refused(tmp_path)
    tmp_path.chmod(0)
    try:
        assert "cannot be read" in refused(tmp_path)
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
        assert "003.dcm" in refused(tmp_path)


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
    assert "IM0002.dcm" in refused(tmp_path)
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
