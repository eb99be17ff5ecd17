"""Several scans under one SeriesInstanceUID: told apart by their headers, offered by name, never mixed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
import pytest

from mpfnl.cli.enhancement import phase_files
from mpfnl.errors import ConflictError, GridError, NotFoundError
from mpfnl.phases import Phase
from mpfnl.volumes import read_volume
from mpfnl.volumes.dicom.derived import write_derived_series
from mpfnl.volumes.dicom.provenance import Derivation
from mpfnl.volumes.scan import content_files, scan_exists

MakeSeries: TypeAlias = Callable[..., list[Path]]
Refused: TypeAlias = Callable[..., str]
Elements: TypeAlias = dict[str, Any]

COUNT = 6
UID = "1.2.826.0.1.9999.20240101.1"


def place(z: float) -> Elements:
    return {"ImagePositionPatient": [-30.0, -20.0, 100.0 + z]}


def stored(seed: int, count: int = COUNT) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3000, (7, 6, count)).astype(np.uint16)


def hu(seed: int, count: int = COUNT) -> np.ndarray:
    return stored(seed, count).astype(int) - 1024


@pytest.fixture
def write_two(tmp_path: Path, make_series: MakeSeries) -> Callable[..., Path]:
    """Writes two scans of six slices, 3 mm apart, under one UID; the second begins `offset` mm higher."""

    def write(
        first: Sequence[Elements] | Elements, second: Sequence[Elements] | Elements, offset: float = 0
    ) -> Path:
        for letter, elements, low in (("a", first, 0.0), ("b", second, offset)):
            each = [elements] * COUNT if isinstance(elements, dict) else elements
            places = [place(low + 3 * z) for z in range(COUNT)]
            make_series(
                tmp_path / "scan",
                stored(ord(letter)),
                names=[f"{letter}{z}" for z in range(COUNT)],
                each=[{**there, **own} for there, own in zip(places, each, strict=True)],
            )
        return tmp_path / "scan"

    return write


def counted(keyword: str, *values: Any) -> list[Elements]:
    return [{keyword: str(value)} for value in values]


NUMBER, TIME = "AcquisitionNumber", "AcquisitionTime"
BOTH = {
    "numbers": ({NUMBER: 1}, {NUMBER: 2}, NUMBER, "1", "2"),
    "one number is missing": ({NUMBER: 2}, {NUMBER: None}, NUMBER, "2", "none"),
    "phases": ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, "Temporal", "1", "2"),
    "times": ({TIME: "101500"}, {TIME: "101530.25"}, TIME, "101500", "101530.25"),
    "a time for each slice": (
        counted(TIME, *range(101500, 101506)),
        counted(TIME, *range(101530, 101536)),
        TIME,
        "101500",
        "101530",
    ),
    "up, then down": (
        counted(TIME, *range(101500, 101506)),
        counted(TIME, *range(101535, 101529, -1)),
        TIME,
        "101500",
        "101530",
    ),
    "step and shoot twice": (
        counted(NUMBER, 1, 1, 2, 2, 3, 3),
        counted(NUMBER, 4, 4, 5, 5, 6, 6),
        NUMBER,
        "1",
        "4",
    ),
    "kernels": (
        {"ConvolutionKernel": "B30f"},
        {"ConvolutionKernel": ["I70f", "3"]},
        "Kernel",
        "B30f",
        "I70f-3",
    ),
    "series numbers": ({"SeriesNumber": 2}, {"SeriesNumber": 10}, "SeriesNumber", "2", "10"),
    "tube voltages": ({"KVP": 100}, {"KVP": 140}, "KVP", "100", "140"),
    "image types": (
        {"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
        {"ImageType": ["DERIVED", "SECONDARY", "NON CONTRAST"]},
        "ImageType",
        "ORIGINAL-PRIMARY-AXIAL",
        "DERIVED-SECONDARY-NON-CONTRAST",
    ),
    **{
        keyword: ({keyword: a}, {keyword: b}, keyword, a, b)
        for keyword, a, b in [
            ("TriggerTime", "0", "400"),
            ("AcquisitionDate", "20240101", "20240102"),
            ("AcquisitionDateTime", "20240101101500", "20240101101530"),
            ("SeriesDescription", "arterial", "venous"),
            ("FilterType", "A", "B"),
            ("ContentTime", "101500", "101700"),
            ("TemporalPositionIndex", 1, 2),
            ("NominalPercentageOfCardiacPhase", 40, 75),
        ]
    },
    "slices in turn": (
        counted("InstanceNumber", *range(1, 13, 2)),
        counted("InstanceNumber", *range(2, 14, 2)),
        "InstanceNumber",
        "1",
        "2",
    ),
    "times in turn": (
        counted(TIME, *range(101500, 101512, 2)),
        counted(TIME, *range(101501, 101513, 2)),
        TIME,
        "101500",
        "101501",
    ),
    "table to and fro": (
        counted(NUMBER, 1, 1, 3, 3, 5, 5),
        counted(NUMBER, 2, 2, 4, 4, 6, 6),
        NUMBER,
        "1",
        "2",
    ),
    "instance numbers": (
        counted("InstanceNumber", *range(1, 7)),
        counted("InstanceNumber", *range(7, 13)),
        "InstanceNumber",
        "1",
        "7",
    ),
}


@pytest.mark.parametrize("case", list(BOTH))
def test_two_scans_at_the_same_places(write_two: Callable[..., Path], refused: Refused, case: str) -> None:
    """innolitics/dicom-numpy#33 and dynamic studies: each is offered, and its name reads it and no other."""
    first, second, element, *labels = BOTH[case]
    folder = write_two(first, second)
    message = refused(folder, ConflictError)
    assert element in message
    assert f"{folder}#9.20240101.1@" in message
    for label, letter in zip(labels, "ab", strict=True):
        assert f"@{label} (6 files)" in message
        for selector in (f"{UID}@{label}", f"9.20240101.1@{label}", f"@{label}"):
            path = Path(f"{folder}#{selector}")
            assert np.array_equal(read_volume(path).data, hu(ord(letter)))
            assert scan_exists(path)
        assert [file.name for file in content_files(path)] == [f"{letter}{z}" for z in range(COUNT)]
    refused(Path(f"{folder}#{UID}"), ConflictError)


@pytest.mark.parametrize("offset", [1.5, 9.0, 30.0, 18.5])
def test_numbers_whose_slices_do_not_continue_each_other(
    write_two: Callable[..., Path], refused: Refused, offset: float
) -> None:
    """They alternate, overlap in part, or have another gap between them: two scans."""
    folder = write_two({NUMBER: 1}, {NUMBER: 2}, offset)
    assert NUMBER in refused(folder, ConflictError)
    for label, letter in (("1", "a"), ("2", "b")):
        scan = read_volume(f"{folder}#@{label}")
        assert np.array_equal(scan.data, hu(ord(letter)))
        assert scan.spacing[2] == 3


APART = {
    "TriggerTime": ("0", "400"),
    "ContentTime": ("101500", "101700"),
    "ImageType": (["ORIGINAL", "PRIMARY", "AXIAL"], ["DERIVED", "SECONDARY", "MPR"]),
    "KVP": ("80", "140"),
    "ConvolutionKernel": ("B30f", "B70f"),
    "SeriesNumber": ("2", "3"),
    "SliceThickness": ("1", "5"),
    "AcquisitionDate": ("20240101", "20240102"),
    "SeriesDescription": ("arterial", "venous"),
    "TemporalPositionIdentifier": ("1", "2"),
    "TemporalPositionIndex": (1, 2),
}


@pytest.mark.parametrize("keyword", list(APART))
@pytest.mark.parametrize("offset", [1.5, 0.3])
def test_scans_that_alternate(
    write_two: Callable[..., Path], refused: Refused, keyword: str, offset: float
) -> None:
    """Half a step apart they would make one regular stack; 0.3 mm apart slices seem to be missing."""
    first, second = APART[keyword]
    folder = write_two({keyword: first}, {keyword: second}, offset)
    message = refused(folder, ConflictError)
    assert keyword in message
    labels = re.findall(r"@([\w.-]+) \(6 files\)", message)
    scans = [read_volume(f"{folder}#@{each}").data for each in labels]
    assert len(scans) == 2
    for letter in "ab":
        assert any(np.array_equal(scan, hu(ord(letter))) for scan in scans)


@pytest.mark.parametrize("keyword", [NUMBER, TIME])
def test_a_value_for_each_slice_of_scans_that_alternate(
    write_two: Callable[..., Path], refused: Refused, keyword: str
) -> None:
    """Step and shoot counts along the stack; 1, 7, 2, 8 are two scans."""
    folder = write_two(
        counted(keyword, *range(101501, 101507)), counted(keyword, *range(101531, 101537)), 1.5
    )
    assert "@101531 (6 files)" in refused(folder, ConflictError)
    assert np.array_equal(read_volume(f"{folder}#@101531").data, hu(98))


@pytest.mark.parametrize(
    "keyword",
    sorted({*APART} - {"TriggerTime", "ContentTime", "SeriesDescription"}),
)
def test_scans_of_which_one_continues_the_other(
    write_two: Callable[..., Path], refused: Refused, keyword: str
) -> None:
    """What does not change within a scan: 12 slices at equal distances are two scans."""
    first, second = APART[keyword]
    assert keyword in refused(write_two({keyword: first}, {keyword: second}, 18), ConflictError)


def test_a_scan_that_crosses_midnight(write_two: Callable[..., Path]) -> None:
    date = "AcquisitionDate"
    folder = write_two({date: "20231231", TIME: "235959"}, {date: "20240101", TIME: "000002"}, 18)
    assert read_volume(folder).shape[2] == 2 * COUNT


@pytest.mark.parametrize("keyword", [NUMBER, "SeriesNumber", "ConvolutionKernel", "KVP", "SliceThickness"])
@pytest.mark.parametrize("where", [0, 3])
@pytest.mark.parametrize("value", [None, "01"])
def test_one_slice_without_an_element(
    tmp_path: Path, make_series: MakeSeries, keyword: str, where: int, value: str | None
) -> None:
    """It belongs to the others, and so does one whose number is written in another way (PS3.5, 6.2)."""
    if value and keyword == "ConvolutionKernel":
        return
    make_series(tmp_path, stored(0), each=[{keyword: value if z == where else "1"} for z in range(COUNT)])
    assert np.array_equal(read_volume(tmp_path).data, hu(0))


@pytest.mark.parametrize("offset", [0, 1.5, 18])
def test_a_number_that_two_scans_share(
    write_two: Callable[..., Path], refused: Refused, offset: float
) -> None:
    """AcquisitionNumber 1 with both kernels: the number names neither."""
    kernel = "ConvolutionKernel"
    folder = write_two({kernel: "B30", NUMBER: 1}, {kernel: "B70", NUMBER: 1}, offset)
    assert "@B70 (6 files)" in refused(Path(f"{folder}#@1"), ConflictError)


def test_chest_and_abdomen_that_share_a_position(
    tmp_path: Path, make_series: MakeSeries, refused: Refused
) -> None:
    """At whole millimetres, too, 40 slices in 39 mm are two scans of 20."""
    each = [
        {"ImagePositionPatient": [0, 0, 100 + z - z // 20], NUMBER: 1 + z // 20, "InstanceNumber": z + 1}
        for z in range(40)
    ]
    make_series(tmp_path, stored(0, 40), each=each, SliceThickness=1)
    assert "@2 (20 files)" in refused(tmp_path, ConflictError)


def test_acquisitions_that_continue_each_other(
    write_two: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    """One scan, told in the log; a number still names its part."""
    caplog.set_level("INFO", "mpfnl.volumes")
    folder = write_two({NUMBER: 1}, {NUMBER: 2}, 18)
    assert np.array_equal(read_volume(folder).data, np.concatenate([hu(97), hu(98)], axis=2))
    assert "2 acquisitions" in caplog.text
    assert np.array_equal(read_volume(f"{folder}#@2").data, hu(98))


@pytest.mark.parametrize("block", [1, 2, 3, 4])
def test_step_and_shoot(tmp_path: Path, make_series: MakeSeries, refused: Refused, block: int) -> None:
    """Each position of the table has its AcquisitionNumber and time: one scan; a missing slice shows."""
    each = [{NUMBER: 3 + z // block, TIME: f"1015{10 + z // block}"} for z in range(12)]
    files = make_series(tmp_path, stored(0, 12), each=each)
    assert np.array_equal(read_volume(tmp_path).data, hu(0, 12))
    files[4].unlink()
    assert "1 slice" in refused(tmp_path, GridError)


def test_three_phases_with_other_ranges(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    """A time for each slice; the liver in the arterial phase, the abdomen downwards, then the liver again."""
    for phase, (low, count, clock) in enumerate([(12, 8, 100000), (0, 16, 100030), (12, 8, 100200)]):
        times = range(clock, clock + count)
        make_series(
            tmp_path,
            stored(phase, count),
            names=[f"{phase}-{z}" for z in range(count)],
            each=[
                {**place(low + 3 * z), TIME: str(time)}
                for z, time in enumerate(times if phase != 1 else reversed(times))
            ],
        )
    message = refused(tmp_path, ConflictError)
    assert re.findall(r"@(\d+) \((\d+) files\)", message) == [
        ("100000", "8"),
        ("100030", "16"),
        ("100200", "8"),
    ]
    for phase, (label, count) in enumerate([("100000", 8), ("100030", 16), ("100200", 8)]):
        assert np.array_equal(read_volume(f"{tmp_path}#@{label}").data, hu(phase, count))


def test_two_elements_are_needed(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    for kernel in ("B30f", "B70f"):
        for number in (1, 2):
            seed = number + 10 * (kernel == "B70f")
            names = [f"{kernel}{number}{z}" for z in range(4)]
            own = {"ConvolutionKernel": kernel, NUMBER: number}
            make_series(tmp_path, stored(seed, 4), names=names, **own)
    assert "@B70f+2 (4 files)" in refused(tmp_path, ConflictError)
    assert np.array_equal(read_volume(f"{tmp_path}#@B70f+2").data, hu(12, 4))


def test_a_series_without_a_uid(write_two: Callable[..., Path], refused: Refused) -> None:
    folder = write_two({"SeriesInstanceUID": "", NUMBER: 1}, {"SeriesInstanceUID": "", NUMBER: 2})
    assert f"{folder}#@1 " in refused(folder, ConflictError)
    assert np.array_equal(read_volume(f"{folder}#@2").data, hu(98))


def test_a_name_that_fits_no_acquisition(write_two: Callable[..., Path], refused: Refused) -> None:
    folder = write_two({NUMBER: 1}, {NUMBER: 2})
    assert "@2 (6 files)" in refused(Path(f"{folder}#@3"), NotFoundError)
    for file in folder.glob("b*"):
        file.unlink()
    assert np.array_equal(read_volume(f"{folder}#@1").data, hu(97))  # the only one may be named, too
    refused(Path(f"{folder}#@2"), NotFoundError)
    assert not scan_exists(f"{folder}-none#@1")


@pytest.mark.parametrize("name", ["", "@", "1.2@", "UID"])
def test_a_name_that_is_none(write_two: Callable[..., Path], refused: Refused, name: str) -> None:
    """The folder is there: the message lists what it holds, and what it shows can be pasted."""
    folder = write_two({}, {}, 18)
    assert "..9.20240101.1" in refused(Path(f"{folder}#{name}"), NotFoundError)
    assert read_volume(f"{folder}#..9.20240101.1").shape[2] == 2 * COUNT
    assert not scan_exists(f"{folder}#scan.nii.gz")


IDENTITY = ["PatientID", "StudyInstanceUID", "FrameOfReferenceUID"]


@pytest.mark.parametrize("keyword", IDENTITY)
@pytest.mark.parametrize("values", [("1.2.3", "1.2.4"), ("1.2.3", None)])
@pytest.mark.parametrize("offset", [0, 1.5, 18])
def test_two_patients_studies_or_frames(
    write_two: Callable[..., Path],
    refused: Refused,
    keyword: str,
    values: tuple[str, str | None],
    offset: float,
) -> None:
    """innolitics/dicom-numpy#33; positions in two frames cannot be compared (PS3.3, C.7.4.1.1.1)."""
    folder = write_two({keyword: values[0]}, {keyword: values[1]}, offset)
    message = refused(folder, ConflictError)
    assert keyword in message
    assert "a0 and b0" in message
    for label in re.findall(r"@([\w.-]+) \(6 files\)", message):
        assert read_volume(f"{folder}#@{label}").shape[2] == COUNT
    assert "1.2.3" not in message.replace(str(folder), "")


@pytest.mark.parametrize("offset", [0, 1.5, 18])
def test_two_names_without_an_id(write_two: Callable[..., Path], refused: Refused, offset: float) -> None:
    first, second = ({"PatientID": "", "PatientName": name} for name in ("Quimby", "Zelda"))
    folder = write_two(first, second, offset)
    message = refused(folder, ConflictError)
    assert "PatientName" in message
    assert np.array_equal(read_volume(f"{folder}#@patient-2").data, hu(98))


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_a_uid_for_each_slice(
    tmp_path: Path, make_series: MakeSeries, caplog: pytest.LogCaptureFixture, keyword: str
) -> None:
    """A program replaced it file by file: as good as missing."""
    caplog.set_level("INFO", "mpfnl.volumes")
    make_series(tmp_path, stored(0), each=[{keyword: f"1.2.{z}"} for z in range(COUNT)])
    assert np.array_equal(read_volume(tmp_path).data, hu(0))
    assert keyword in caplog.text


@pytest.mark.parametrize("value", ["", None, "1.2.3"])
def test_identity_that_was_removed_or_replaced(
    tmp_path: Path, make_series: MakeSeries, value: str | None
) -> None:
    make_series(tmp_path, stored(0), **dict.fromkeys(IDENTITY, value))
    assert np.array_equal(read_volume(tmp_path).data, hu(0))


def test_a_named_acquisition_of_another_frame(write_two: Callable[..., Path], refused: Refused) -> None:
    """Where a number tells the two apart it is offered, and then positions are of one frame."""
    frame = "FrameOfReferenceUID"
    folder = write_two({NUMBER: 1, frame: "1.2"}, {NUMBER: 2, frame: "1.3"}, 1.5)
    message = refused(folder, ConflictError)
    assert frame in message
    assert "@2 (6 files)" in message
    assert np.array_equal(read_volume(f"{folder}#@2").data, hu(98))


def test_copies_are_no_acquisitions(tmp_path: Path, make_series: MakeSeries) -> None:
    """Files that an archive sent twice, under new instance numbers and content times."""
    for number, file in enumerate(make_series(tmp_path, stored(0), ContentTime="101500")):
        data = pydicom.dcmread(shutil.copy(file, tmp_path / f"copy{number}"))
        data.InstanceNumber, data.ContentTime = 100 + number, "111500"
        data.save_as(tmp_path / f"copy{number}")
    assert np.array_equal(read_volume(tmp_path).data, hu(0))


def test_a_series_is_derived_from_one_acquisition(
    tmp_path: Path, write_two: Callable[..., Path], about: Derivation
) -> None:
    study = {"StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.4"}
    folder = write_two({NUMBER: 1, **study}, {NUMBER: 2, **study})
    with pytest.raises(ConflictError, match="@2"):
        write_derived_series(tmp_path / "out", hu(98), folder, about)
    files = write_derived_series(tmp_path / "out", hu(98), f"{folder}#@2", about)
    slices = [pydicom.dcmread(file) for file in files]
    assert {data.AcquisitionNumber for data in slices} == {2}
    assert np.array_equal(read_volume(tmp_path / "out").data, hu(98))


def test_a_phase_of_the_command_line() -> None:
    files = phase_files(["arterial=scan#1.2.3@2", "portal_venous=scan#@101530.25"])
    assert files[Phase.ARTERIAL] == Path("scan#1.2.3@2")
    assert files[Phase.PORTAL_VENOUS] == Path("scan#@101530.25")
