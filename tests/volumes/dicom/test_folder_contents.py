"""Folders as archives and viewers write them: what lies beside the slices is passed over, and told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    EncapsulatedPDFStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    KeyObjectSelectionDocumentStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    XRayRadiationDoseSRStorage,
)

from mpfnl.errors import ConflictError, DamagedError, FormatError, GridError
from mpfnl.volumes import read_volume
from mpfnl.volumes.scan import content_files

MakeSeries: TypeAlias = Callable[..., list[Path]]
Refused: TypeAlias = Callable[..., str]

UID = "1.2.826.0.1.9999.20240101.1"
OTHER = "1.2.826.0.1.9999.20240101.77"
CORONAL, SAGITTAL = [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]
LOCALIZER = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": CORONAL}


def numbers(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3000, (9, 7, count)).astype(np.uint16)


def write_other(file: Path, kind: str, modality: str | None, uid: str | None = OTHER) -> None:
    """A DICOM file without pixels."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = kind
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3.4"
    for keyword, value in (("SOPClassUID", kind), ("Modality", modality), ("SeriesInstanceUID", uid)):
        if value is not None:
            setattr(data, keyword, value)
    data.save_as(file, enforce_file_format=True)


REPORTS = {
    "dose report": (XRayRadiationDoseSRStorage, "SR"),
    "structured report": (BasicTextSRStorage, "SR"),
    "presentation state": (GrayscaleSoftcopyPresentationStateStorage, "PR"),
    "key objects": (KeyObjectSelectionDocumentStorage, "KO"),
    "structures": (RTStructureSetStorage, "RTSTRUCT"),
    "document": (EncapsulatedPDFStorage, "DOC"),
    "directory": (MediaStorageDirectoryStorage, None),
    "segmentation": (SegmentationStorage, "SEG"),
    "named CT by mistake": (XRayRadiationDoseSRStorage, "CT"),
}


@pytest.mark.parametrize("kind", list(REPORTS))
@pytest.mark.parametrize("uid", [OTHER, UID, None])
@pytest.mark.parametrize("name", ["report.dcm", "report"])
def test_reports_beside_the_slices(
    tmp_path: Path,
    make_series: MakeSeries,
    stored: np.ndarray,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    uid: str | None,
    name: str,
) -> None:
    """pyvoxel/pyvoxel#32, fo-dicom/fo-dicom#1217: by class, modality and series they are no slices."""
    caplog.set_level(logging.INFO, "mpfnl.volumes")
    files = make_series(tmp_path, stored)
    write_other(tmp_path / name, *REPORTS[kind], uid)
    for path in (tmp_path, Path(f"{tmp_path}#{UID}")):
        assert np.array_equal(read_volume(path).data, stored.astype(int) - 1024)
        assert content_files(path) == files
    assert caplog.text.count(f"(1 file: {name})") == 2


IMAGES: dict[str, tuple[int, dict[str, Any]]] = {
    "localizers": (2, LOCALIZER),
    "localizers without a slope": (2, {**LOCALIZER, "RescaleSlope": None, "RescaleIntercept": None}),
    "a scout without that word": (1, {"ImageOrientationPatient": SAGITTAL}),
    "scouts without that word": (2, {"ImageOrientationPatient": CORONAL}),
    "a screenshot": (
        1,
        {
            "SOPClassUID": SecondaryCaptureImageStorage,
            "ImagePositionPatient": None,
            "ImageOrientationPatient": None,
        },
    ),
    "MR": (5, {"SOPClassUID": MRImageStorage, "Modality": "MR"}),
    "PET": (5, {"SOPClassUID": PositronEmissionTomographyImageStorage, "Modality": "PT"}),
    "MR without a class": (5, {"SOPClassUID": None, "Modality": "MR"}),
}


def write_images(make_series: MakeSeries, folder: Path, kind: str, **elements: Any) -> list[Path]:
    count, own = IMAGES[kind]
    if "SOPClassUID" in own and own["SOPClassUID"] is None:
        files = make_series(
            folder, numbers(count), names=[f"x{n}" for n in range(count)], **{**own, **elements}
        )
        for file in files:
            data = pydicom.dcmread(file)
            del data.file_meta.MediaStorageSOPClassUID
            data.save_as(file)
        return files
    return make_series(folder, numbers(count), names=[f"x{n}" for n in range(count)], **{**own, **elements})


@pytest.mark.parametrize("kind", list(IMAGES))
@pytest.mark.parametrize("uid", [OTHER, UID])
def test_images_beside_the_slices(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, kind: str, uid: str
) -> None:
    """Also within the series of the slices, where GE keeps its localizers."""
    make_series(tmp_path, stored)
    write_images(make_series, tmp_path, kind, SeriesInstanceUID=uid)
    for path in (tmp_path, Path(f"{tmp_path}#{UID}")):
        assert np.array_equal(read_volume(path).data, stored.astype(int) - 1024)


@pytest.mark.parametrize(
    ("count", "step"), [(1, 3.0), (8, 0.0)], ids=["before the bolus", "the bolus over time"]
)
def test_series_that_are_no_stack(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, count: int, step: float
) -> None:
    make_series(tmp_path, stored)
    names = [f"x{index}" for index in range(count)]
    make_series(tmp_path, numbers(count), step=(0, 0, step), names=names, SeriesInstanceUID=OTHER)
    assert np.array_equal(read_volume(tmp_path).data, stored.astype(int) - 1024)


@pytest.mark.parametrize("count", [2, 5])
def test_two_scans_need_a_name(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, count: int
) -> None:
    """Two kernels, or a reformatted stack, as two series; what is no scan is not offered."""
    make_series(tmp_path, stored)
    names = [f"x{index}" for index in range(count)]
    make_series(tmp_path, numbers(count), names=names, SeriesInstanceUID=OTHER)
    write_other(tmp_path / "report.dcm", XRayRadiationDoseSRStorage, "SR", "1.2.3.4.5.6.7.8.9")
    message = refused(tmp_path, ConflictError)
    assert "2 series" in message
    assert "6.7.8.9" not in message
    assert np.array_equal(read_volume(f"{tmp_path}#{OTHER}").data, numbers(count).astype(int) - 1024)


@pytest.mark.parametrize("frames", [40, 1])
@pytest.mark.parametrize("uid", [OTHER, UID])
def test_enhanced_ct_is_no_rival(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, uid: str, frames: int
) -> None:
    """It cannot be read; alone or by its name it is refused for that reason."""
    own = {"SOPClassUID": EnhancedCTImageStorage, "NumberOfFrames": frames, "SeriesInstanceUID": uid}
    make_series(tmp_path, numbers(1), names=["x"], **own)
    write_other(tmp_path / "report.dcm", XRayRadiationDoseSRStorage, "SR", "1.2.3.4.5.6.7.8.9")
    assert "NumberOfFrames" in refused(tmp_path, FormatError)
    make_series(tmp_path, stored)
    for path in (tmp_path, Path(f"{tmp_path}#{UID}")):
        assert np.array_equal(read_volume(path).data, stored.astype(int) - 1024)
    if uid == OTHER:
        assert "NumberOfFrames" in refused(Path(f"{tmp_path}#{OTHER}"), FormatError)


UNPLACED: dict[str, Any] = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
SECONDARY = {"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}
COLOURS = {
    "SamplesPerPixel": 3,
    "PhotometricInterpretation": "RGB",
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
}
PAGES: dict[str, dict[str, Any]] = {
    "a screen save": {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    "a screen save without a place": {**UNPLACED, "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    "a page of another kind": {**UNPLACED, **SECONDARY},
    "a page of another size": {**UNPLACED, "Rows": 9, "Columns": 7},
    "a page in inverted grey": {**UNPLACED, "PhotometricInterpretation": "MONOCHROME1"},
    "a page without an image plane": {**UNPLACED, "PixelSpacing": None},
    "a page in colours": {**UNPLACED, **COLOURS},
    "a page in colours without a position": {**COLOURS, **SECONDARY, "ImagePositionPatient": None},
    "a map in colours with a place": {**COLOURS, **SECONDARY},
}


@pytest.mark.parametrize("kind", list(PAGES))
@pytest.mark.parametrize("uid", [OTHER, UID])
def test_pages_that_say_they_are_ct(
    tmp_path: Path,
    make_series: MakeSeries,
    stored: np.ndarray,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    uid: str,
) -> None:
    """Dose pages and screen saves whose class is CT Image Storage, as older stations write them."""
    caplog.set_level(logging.INFO, "mpfnl.volumes")
    make_series(tmp_path, stored)
    make_series(tmp_path, numbers(1), names=["page"], SeriesInstanceUID=uid, **PAGES[kind])
    for path in (tmp_path, Path(f"{tmp_path}#{UID}")):
        assert np.array_equal(read_volume(path).data, stored.astype(int) - 1024)
    assert caplog.text.count("(1 file: page)") == 2


def test_maps_in_colours_are_no_rival(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray) -> None:
    make_series(tmp_path, stored)
    names = [f"x{n}" for n in range(4)]
    make_series(tmp_path, numbers(4), names=names, SeriesInstanceUID=OTHER, **COLOURS)
    assert np.array_equal(read_volume(tmp_path).data, stored.astype(int) - 1024)


@pytest.mark.parametrize("kind", [{}, SECONDARY], ids=["original", "reformatted"])
@pytest.mark.parametrize(
    "lost", [UNPLACED, {"ImagePositionPatient": None}, {**UNPLACED, "ImageType": None}, COLOURS]
)
def test_a_slice_that_lost_its_place_is_no_page(
    tmp_path: Path,
    make_series: MakeSeries,
    stored: np.ndarray,
    refused: Refused,
    lost: dict[str, Any],
    kind: dict[str, Any],
) -> None:
    """At either end nothing else would show it."""
    make_series(tmp_path, stored, each=[lost if z == 5 else {} for z in range(6)], **kind)
    assert "005.dcm" in refused(tmp_path)


def test_a_secondary_capture_with_a_position(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray
) -> None:
    """Programs that convert images write CT so; where it says where it lies in HU, it is read."""
    make_series(tmp_path, stored, SOPClassUID=SecondaryCaptureImageStorage)
    assert np.array_equal(read_volume(tmp_path).data, stored.astype(int) - 1024)


@pytest.mark.parametrize("lost", [20, 140, 900])
def test_a_damaged_slice_stops(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, lost: int
) -> None:
    """At either end nothing else would show it."""
    files = make_series(tmp_path, stored)
    for file in (files[0], files[-1]):
        whole = file.read_bytes()
        file.write_bytes(whole[:-lost])
        assert file.name in refused(tmp_path, DamagedError)
        assert file.name in refused(Path(f"{tmp_path}#{UID}"), DamagedError)
        file.write_bytes(whole)


def test_damage_elsewhere_does_not_matter(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray
) -> None:
    make_series(tmp_path, stored)
    others = write_images(make_series, tmp_path, "localizers", SeriesInstanceUID=OTHER)
    others += write_images(make_series, tmp_path / "mr", "MR", SeriesInstanceUID=OTHER)
    for number, file in enumerate(others):
        (tmp_path / f"cut{number}").write_bytes(file.read_bytes()[:-30])
        file.unlink()
    for path in (tmp_path, Path(f"{tmp_path}#{UID}")):
        assert np.array_equal(read_volume(path).data, stored.astype(int) - 1024)


def test_a_slice_of_no_series(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    """It may belong to the other slices: nobody can tell."""
    make_series(tmp_path, stored)
    make_series(tmp_path, numbers(1), names=["x"], SeriesInstanceUID=None)
    refused(tmp_path, ConflictError)
    assert np.array_equal(read_volume(f"{tmp_path}#{UID}").data, stored.astype(int) - 1024)


@pytest.mark.parametrize("implicit", [False, True])
def test_files_without_a_preamble_and_a_suffix(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, implicit: bool
) -> None:
    """A data set as it goes over the network, saved as it is."""
    for file in make_series(tmp_path, stored, names=[f"IM{n}" for n in range(6)]):
        data = pydicom.dcmread(file)
        data.file_meta = FileMetaDataset()
        data.preamble = None
        data.save_as(file, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    (tmp_path / "notes").write_text("eight" * 100)
    (tmp_path / "numbers.bin").write_bytes(np.arange(8, 500, dtype="<i4").tobytes())
    assert np.array_equal(read_volume(tmp_path).data, stored.astype(int) - 1024)


def test_a_mark_that_is_not_in_its_place(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray) -> None:
    """DICM counts after a preamble of 128 bytes only (PS3.10, 7.1)."""
    make_series(tmp_path, stored)
    for length in (0, 40, 127):
        (tmp_path / f"short{length}").write_bytes(b"x" * length + b"DICM")
    assert np.array_equal(read_volume(tmp_path).data, stored.astype(int) - 1024)


@pytest.mark.parametrize("modality", [None, ""])
def test_ct_that_only_its_class_names(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused, modality: str | None
) -> None:
    """Tools that strip headers take Modality; SOPClassUID still says CT Image Storage."""
    make_series(tmp_path, stored, Modality=modality)
    assert np.array_equal(read_volume(tmp_path).data, stored.astype(int) - 1024)
    make_series(tmp_path, stored, Modality=modality, SOPClassUID=None)
    assert "Modality" in refused(tmp_path, FormatError)


def test_a_multi_frame_image_is_named_as_what_it_is(
    tmp_path: Path, make_series: MakeSeries, refused: Refused
) -> None:
    own = {"SOPClassUID": MultiFrameGrayscaleWordSecondaryCaptureImageStorage, "NumberOfFrames": 40}
    make_series(tmp_path, numbers(1), **own)
    message = refused(tmp_path, FormatError)
    assert "Secondary Capture" in message
    assert "NumberOfFrames 40" in message
    assert "Enhanced" not in message


def test_nothing_but_others(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    """The message says what there is, not that it is damaged."""
    write_other(tmp_path / "a.dcm", XRayRadiationDoseSRStorage, "SR")
    assert "'SR'" in refused(tmp_path, FormatError)
    write_other(tmp_path / "b.dcm", EncapsulatedPDFStorage, "DOC", "1.2.3.4.5.6.7.8.9")
    assert "CT" in refused(tmp_path, FormatError)
    localizers = tmp_path / "localizers"
    make_series(localizers, numbers(2), **LOCALIZER)
    assert "localizer" in refused(localizers, FormatError)


def test_a_stack_across_the_stack(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    """A reformatted stack in the same series is no scout view."""
    make_series(tmp_path, stored)
    names = [f"x{n}" for n in range(4)]
    make_series(tmp_path, numbers(4), step=(0, 3, 0), names=names, ImageOrientationPatient=CORONAL)
    assert "4 files" in refused(tmp_path, ConflictError)


def test_a_lost_slice_is_no_scout(
    tmp_path: Path, make_series: MakeSeries, stored: np.ndarray, refused: Refused
) -> None:
    each = [{"ImageOrientationPatient": CORONAL} if z == 2 else {} for z in range(6)]
    make_series(tmp_path, stored, each=each)
    assert "002.dcm" in refused(tmp_path, ConflictError)
    for element in ("ImagePositionPatient", "PixelSpacing"):
        make_series(tmp_path, stored, each=[{element: None} if z == 5 else {} for z in range(6)])
        assert "005.dcm" in refused(tmp_path, GridError)
