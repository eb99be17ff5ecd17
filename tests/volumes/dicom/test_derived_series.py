"""A derived series lies where its source lies and holds the given HU, as SimpleITK and pydicom read it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import CTImageStorage, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from scipy.spatial.transform import Rotation

from mpfnl.phases import Phase
from mpfnl.volumes import read_volume
from mpfnl.volumes.dicom.ct_image import make_uid
from mpfnl.volumes.dicom.derived import derived_series_writer, write_derived_series
from mpfnl.volumes.dicom.provenance import Derivation

Derive: TypeAlias = Callable[..., list[pydicom.Dataset]]
Source: TypeAlias = Callable[..., Path]
ItkSeries: TypeAlias = Callable[[Path], tuple[np.ndarray, np.ndarray]]

GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
DATES = ("SeriesDate", "SeriesTime", "ContentDate", "ContentTime", "InstanceCreationDate")


def assert_lies_as(derived: list[pydicom.Dataset], source: Path) -> None:
    """Each derived slice names a source slice of its own and lies where that lies."""
    originals = {data.SOPInstanceUID: data for data in map(pydicom.dcmread, source.iterdir())}
    for data in derived:
        (item,) = data.SourceImageSequence
        other = originals.pop(item.ReferencedSOPInstanceUID)
        assert item.ReferencedSOPClassUID == other.SOPClassUID
        for keyword in GEOMETRY:
            ours, theirs = (np.array(each[keyword].value, dtype=float) for each in (data, other))
            np.testing.assert_allclose(ours, theirs, atol=1e-9, err_msg=keyword)
        assert (data.Rows, data.Columns) == (other.Rows, other.Columns)
        assert data.FrameOfReferenceUID == other.FrameOfReferenceUID
        assert data.StudyInstanceUID == other.StudyInstanceUID
        assert data.SeriesInstanceUID != other.SeriesInstanceUID
    assert not originals


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    order=st.permutations(range(6)),
    angles=st.tuples(*[st.sampled_from([0.0, 90.0]) | st.floats(-180, 180)] * 3),
    step=st.floats(0.5, 8),
    seed=st.integers(0, 1000),
)
def test_geometry_and_hu_as_itk_reads_them(
    tmp_path: Path,
    source: Source,
    derive: Derive,
    itk_series: ItkSeries,
    order: list[int],
    angles: tuple[float, float, float],
    step: float,
    seed: int,
) -> None:
    for name in ("source", "derived"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    axes = np.round(Rotation.from_euler("xyz", angles, degrees=True).as_matrix(), 9) + 0.0
    folder = source(
        step=axes[:, 2] * step,
        names=[f"I{index}.dcm" for index in order],
        each=[{"InstanceNumber": number} for number in order],
        ImageOrientationPatient=[f"{value:.9f}" for value in axes[:, :2].T.ravel()],
    )
    hu = np.random.default_rng(seed).integers(-1024, 3072, (9, 7, 6)).astype(np.int16)
    derived = derive(folder, hu)
    assert_lies_as(derived, folder)
    found, affine = itk_series(tmp_path / "derived")
    np.testing.assert_allclose(affine, itk_series(folder)[1], atol=1e-6)
    assert np.array_equal(found, hu)
    planes = [pydicom.pixels.apply_rescale(data.pixel_array, data).T for data in derived]
    assert np.array_equal(np.stack(planes, axis=-1), hu)
    again, before = read_volume(tmp_path / "derived"), read_volume(folder)
    assert np.array_equal(again.data, hu)
    np.testing.assert_allclose(again.affine, before.affine, atol=1e-6)
    numbers = {data.SourceImageSequence[0].ReferencedSOPInstanceUID: data.InstanceNumber for data in derived}
    assert numbers == {
        data.SOPInstanceUID: data.InstanceNumber for data in map(pydicom.dcmread, folder.iterdir())
    }


def test_more_digits_than_a_decimal_string_has(source: Source, derive: Derive) -> None:
    """16 characters are allowed; many writers give more, which must be cut without moving the slice."""
    folder = source()
    for file in folder.iterdir():
        text = file.read_bytes()
        assert text.count(b"\\-20\\") == 1
        with pydicom.config.disable_value_validation():
            data = pydicom.dcmread(file)
            data.ImagePositionPatient[1] = pydicom.valuerep.DSfloat("-20.123456789012345678901")
            data.save_as(file)
        assert b"-20.123456789012345678901" in file.read_bytes()
    for data in derive(folder):  # reads strictly
        assert abs(data.ImagePositionPatient[1] + 20.123456789012345) < 1e-9


def test_fractions_and_what_lies_below(source: Source, derive: Derive, stored: np.ndarray) -> None:
    hu = np.random.default_rng(3).uniform(-3000, 3000, stored.shape)
    planes = [pydicom.pixels.apply_rescale(data.pixel_array, data).T for data in derive(source(), hu)]
    found = np.stack(planes, axis=-1)
    assert (found.min(), found.dtype.kind) == (-1024, "f")
    assert np.abs(found - hu.clip(-1024)).max() <= 0.5


def test_the_whole_range_of_16_bits(source: Source, derive: Derive, stored: np.ndarray) -> None:
    hu = np.linspace(-1024, 64511, stored.size).round().astype(np.int32).reshape(stored.shape)
    planes = [pydicom.pixels.apply_rescale(data.pixel_array, data).T for data in derive(source(), hu)]
    assert np.array_equal(np.stack(planes, axis=-1), hu)


def test_voxels_mapped_from_a_file(
    tmp_path: Path, source: Source, derive: Derive, stored: np.ndarray
) -> None:
    mapped = np.memmap(tmp_path / "voxels", np.float32, "w+", shape=stored.shape, order="F")
    mapped[:] = stored - 1024.0
    plain = stored.astype(np.int16) - 1024
    folder = source()
    assert derive(folder, mapped) == derive(folder, plain, out="plain")


@pytest.mark.parametrize("cuts", [[6], [1, 4, 1], [2, 2, 2]])
def test_slab_by_slab(
    tmp_path: Path, source: Source, derive: Derive, stored: np.ndarray, about: Derivation, cuts: list[int]
) -> None:
    folder, hu = source(), stored.astype(np.float32) - 1024
    with derived_series_writer(tmp_path / "slabs", folder, about, datetime(2026, 5, 4, 3, 2, 1)) as writer:
        assert writer.shape == hu.shape
        for slab in np.split(hu, np.cumsum(cuts)[:-1], axis=2):
            writer.write(slab)
        assert not (tmp_path / "slabs").exists()
    derive(folder, hu)
    names = [file.name for file in sorted((tmp_path / "derived").iterdir())]
    assert [file.name for file in sorted((tmp_path / "slabs").iterdir())] == names
    for name in names:
        assert (tmp_path / "slabs" / name).read_bytes() == (tmp_path / "derived" / name).read_bytes()


@pytest.mark.parametrize("kind", ["implicit", "big endian", "RLE", "no meta header"])
def test_other_transfer_syntaxes(source: Source, derive: Derive, stored: np.ndarray, kind: str) -> None:
    """Whatever the source's, the result is explicit little endian, and otherwise the same."""
    folder = source(BodyPartExamined="ABDOMEN", OtherPatientIDsSequence=[patient_id()], PregnancyStatus=4)
    plain = derive(folder, out="plain")
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        if kind == "RLE":
            data.compress(RLELossless, generate_instance_uid=False)
            data.save_as(file)
            continue
        little = kind != "big endian"
        data.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if little else ExplicitVRBigEndian
        if not little:
            data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
        if kind == "no meta header":
            data.file_meta.clear()
            data.preamble = None
        pydicom.dcmwrite(file, data, implicit_vr=little, little_endian=little, enforce_file_format=False)
    derived = derive(folder)
    assert [data.file_meta.TransferSyntaxUID.name for data in derived] == ["Explicit VR Little Endian"] * 6
    assert derived == plain
    assert derived[0].PregnancyStatus == 4
    assert derived[0].OtherPatientIDsSequence[0].PatientID == "other"


def patient_id() -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.PatientID, item.TypeOfPatientID = "other", "TEXT"
    return item


def test_one_of_several_series(source: Source, derive: Derive, stored: np.ndarray) -> None:
    folder = source()
    source(pixels=stored[:, :, :3], SeriesInstanceUID="1.2.3.4.5.6.777", names=["a", "b", "c"])
    derived = derive(Path(f"{folder}#4.5.6.777"), stored[:, :, :3] - 1024.0)
    assert [data.SourceImageSequence[0].ReferencedSOPInstanceUID for data in derived] == [
        pydicom.dcmread(folder / name).SOPInstanceUID for name in "abc"
    ]


def test_copies_of_a_slice_count_once(source: Source, derive: Derive, stored: np.ndarray) -> None:
    folder = source()
    shutil.copy(folder / "003.dcm", folder / "copy.dcm")
    assert read_volume(folder).shape == stored.shape
    assert len(derive(folder)) == stored.shape[2]


def test_instance_numbers_that_tell_nothing_apart(source: Source, derive: Derive) -> None:
    derived = derive(source(each=[{"InstanceNumber": 7}] * 6))
    assert [data.InstanceNumber for data in derived] == [1, 2, 3, 4, 5, 6]


def uids(derived: list[pydicom.Dataset]) -> set[str]:
    found = {data.SeriesInstanceUID for data in derived} | {data.SOPInstanceUID for data in derived}
    assert len(found) == 1 + len(derived)
    assert all(pydicom.uid.UID(uid).is_valid for uid in found)
    assert all(data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID for data in derived)
    assert all(
        data.SOPClassUID == data.file_meta.MediaStorageSOPClassUID == CTImageStorage for data in derived
    )
    return found


def test_identifiers_depend_on_what_was_done(
    source: Source, derive: Derive, stored: np.ndarray, about: Derivation
) -> None:
    folder, hu = source(), stored.astype(np.int16) - 1024
    once = uids(derive(folder, hu))
    assert uids(derive(folder, hu.astype(np.float64), out="again", when=datetime(2031, 1, 1))) == once
    touched = hu.copy()
    touched[4, 3, 2] += 1
    others: list[dict[str, Any]] = [
        {"hu": touched},
        {"about": replace(about, model="RCAN3D")},
        {"about": replace(about, weights="f" * 64)},
        {"about": replace(about, version="1.2.4")},
        {"about": replace(about, phases=(Phase.PORTAL_VENOUS,))},
    ]
    seen = [once, uids(derive(source("other", SeriesInstanceUID="1.2.3.4"), hu, out="other series"))]
    for number, other in enumerate(others):
        seen.append(uids(derive(folder, **{"hu": hu, "out": f"out {number}", **other})))
    assert len(set().union(*seen)) == sum(map(len, seen))


def test_made_uids_are_those_of_uuids() -> None:
    import uuid

    number = int(make_uid("a", 1).removeprefix("2.25."))
    assert uuid.UUID(int=number).version == 5
    assert uuid.UUID(int=number).variant == uuid.RFC_4122
    assert make_uid("a", 1) == make_uid("a", "1")
    assert make_uid("ab", "c") != make_uid("a", "bc")


def test_the_same_bytes_again(tmp_path: Path, source: Source, derive: Derive) -> None:
    folder = source()
    derive(folder)
    derive(folder, out="again")
    derive(folder, out="later", when=datetime(2030, 12, 11, 10, 9, 8))
    for file in (tmp_path / "derived").iterdir():
        content = file.read_bytes()
        assert content == (tmp_path / "again" / file.name).read_bytes()
        later = (tmp_path / "later" / file.name).read_bytes()
        assert content.replace(b"20260504", b"20301211").replace(b"030201", b"100908") == later


def test_times_are_in_the_zone_of_the_source(source: Source, derive: Derive) -> None:
    at = datetime(2026, 1, 1, 1, 30, tzinfo=timezone(timedelta(hours=7)))
    (first, *_) = derive(source(TimezoneOffsetFromUTC="-0330"), when=at)
    assert (first.ContentDate, first.ContentTime) == ("20251231", "150000")
    assert first.TimezoneOffsetFromUTC == "-0330"
    (first, *_) = derive(source("plain"), when=at, out="plain out")
    assert (first.ContentDate, first.ContentTime) == ("20260101", "013000")


def test_now_is_the_default(tmp_path: Path, source: Source, about: Derivation, stored: np.ndarray) -> None:
    before = datetime.now().replace(microsecond=0)
    (file, *_) = write_derived_series(tmp_path / "out", stored - 1024.0, source(), about)
    data = pydicom.dcmread(file)
    found = datetime.strptime(data.ContentDate + data.ContentTime, "%Y%m%d%H%M%S")
    assert before <= found <= datetime.now()
