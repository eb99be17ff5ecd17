"""What a derived slice keeps of its source's header, what it drops, and what it says of its making."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, ExplicitVRLittleEndian

from mpfnl.volumes.dicom.derived import write_derived_series
from mpfnl.volumes.dicom.provenance import Derivation

Derive: TypeAlias = Callable[..., list[Dataset]]
Source: TypeAlias = Callable[..., Path]

KEPT: dict[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Müller^Jörg",
    "PatientID": "ÄÖ-4711",
    "PatientBirthDate": "19501231",
    "PatientSex": "F",
    "PatientAge": "055Y",
    "PatientWeight": "71.5",
    "ClinicalTrialProtocolID": "trial 9",
    "ClinicalTrialSubjectID": "subject 1",
    "StudyDate": "20200102",
    "StudyTime": "101112.5",
    "StudyID": "s1",
    "StudyDescription": "Oberbauch",
    "AccessionNumber": "A-1",
    "ReferringPhysicianName": "Arzt^Änne",
    "ProtocolName": "Leber 3-phasig",
    "BodyPartExamined": "ABDOMEN",
    "PatientPosition": "FFS",
    "PositionReferenceIndicator": "XY",
    "AcquisitionNumber": 4,
    "AcquisitionDate": "20200102",
    "AcquisitionTime": "101500",
    "KVP": "120",
    "SliceThickness": "3",
    "SliceLocation": "12.5",
    "GantryDetectorTilt": "0",
    "WindowCenter": [50, 300],
    "WindowWidth": [450, 1500],
    "WindowCenterWidthExplanation": ["SOFT", "BONE"],
    "ContrastBolusAgent": "Iomeprol",
    "ContrastFlowRate": "3.5",
    "IrradiationEventUID": "1.2.3.4",
}

DROPPED: dict[str, Any] = {
    "ConvolutionKernel": "B30f",
    "FilterType": "WEDGE",
    "XRayTubeCurrent": 250,
    "Exposure": 120,
    "ExposureTime": 500,
    "CTDIvol": 11.0,
    "PixelPaddingValue": 0,
    "PixelPaddingRangeLimit": 1,
    "SmallestImagePixelValue": 0,
    "LargestImagePixelValue": 3000,
    "OperatorsName": "Someone^Else",
    "PerformedProcedureStepID": "p1",
    "InstitutionName": "General Hospital",
    "StationName": "CT1",
    "DeviceSerialNumber": "77",
}

SCANNER = {
    "Manufacturer": "ACME",
    "ManufacturerModelName": "Ring 9000",
    "SoftwareVersions": ["VA1", "b"],
    "DeviceSerialNumber": "77",
    "StationName": "CT1",
}


def code(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", "a meaning"
    return item


def codes(item: Dataset, keyword: str) -> list[tuple[str, str]]:
    return [(each.CodeValue, each.CodingSchemeDesignator) for each in item.get(keyword, [])]


def change(folder: Path, edit: Callable[[Dataset], None]) -> None:
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        edit(data)
        data.save_as(file)


def test_what_is_kept(source: Source, derive: Derive) -> None:
    folder = source(**KEPT)
    original = pydicom.dcmread(folder / "000.dcm")
    for data in derive(folder):
        for keyword in KEPT:
            assert data[keyword] == original[keyword], keyword


def test_what_is_dropped(source: Source, derive: Derive) -> None:
    def crowd(data: Dataset) -> None:
        block = data.private_block(0x0019, "ACME CT", create=True)
        block.add_new(1, "LO", "secret of the vendor")
        data.add_new(0x60000010, "US", 7)
        data.add_new(0x60003000, "OW", b"\0\1" * 8)
        data.IconImageSequence = [Dataset()]
        data.add_new(0x0018A001, "SQ", [])
        procedure = code("c1")
        procedure.private_block(0x0021, "ACME CT", create=True).add_new(2, "LO", "nested")
        data.ProcedureCodeSequence = [procedure]

    folder = source(**{**DROPPED, "SpecificCharacterSet": "ISO_IR 100"})
    change(folder, crowd)
    for data in derive(folder):
        assert not [keyword for keyword in DROPPED if keyword in data]
        assert codes(data, "ProcedureCodeSequence") == [("c1", "DCM")]
        everything = list(data.iterall())
        assert not [element for element in everything if element.tag.is_private]
        assert not [element for element in everything if element.tag.group >> 8 == 0x60]
        assert "IconImageSequence" not in data


@pytest.mark.parametrize("used", ["utf-8", "latin-1"])
@pytest.mark.parametrize("declared", ["ISO_IR 100", None, "ISO_IR 144", "ISO_IR 192", "NO_SUCH_SET"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # of writing the source
def test_text_in_another_character_set_than_declared(
    tmp_path: Path, source: Source, stored: np.ndarray, about: Derivation, declared: str | None, used: str
) -> None:
    """To decode and encode it would change the name, and it would be another patient's."""
    name = "Müller^Jörg".encode(used).ljust(14)
    folder = source(PatientName="Quimby^Zed Zz")
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.SpecificCharacterSet = declared
        data.save_as(file)
        content = file.read_bytes()
        assert content.count(b"Quimby^Zed Zz ") == 1
        file.write_bytes(content.replace(b"Quimby^Zed Zz ", name))
    for file in write_derived_series(tmp_path / "out", stored - 1024.0, folder, about):
        assert file.read_bytes().count(name) == 1


def test_what_a_series_says_of_its_making(source: Source, derive: Derive, about: Derivation) -> None:
    (data, *_) = derive(source(**SCANNER))
    assert list(data.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert data.SeriesDescription == "Portal 3.0 mpfnl PFNL3D (research only)"
    assert data.SeriesNumber == 1004
    assert data.Manufacturer == "mpfnl"
    assert data.ManufacturerModelName == "PFNL3D"
    assert "mpfnl 1.2.3" in data.SoftwareVersions
    for word in (about.description, about.weights, "portal venous", "1.2.3", "not for diagnosis"):
        assert word in data.DerivationDescription
    assert "not for diagnosis" in data.ImageComments
    assert (data.BurnedInAnnotation, data.ContentQualification) == ("NO", "RESEARCH")
    assert codes(data, "DerivationCodeSequence") == [("123110", "DCM")]
    assert codes(data.SourceImageSequence[0], "PurposeOfReferenceCodeSequence") == [("121322", "DCM")]
    scanner, network = data.ContributingEquipmentSequence
    assert codes(scanner, "PurposeOfReferenceCodeSequence") == [("109101", "DCM")]
    assert {keyword: scanner[keyword].value for keyword in SCANNER} == SCANNER
    assert codes(network, "PurposeOfReferenceCodeSequence") == [("109102", "DCM")]
    assert (network.Manufacturer, network.ContributionDateTime) == ("mpfnl", "20260504030201")


@pytest.mark.parametrize(
    ("image_type", "expected"),
    [
        (["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], "AXIAL"),
        (["DERIVED", "SECONDARY", "REFORMATTED"], "REFORMATTED"),
        (["ORIGINAL", "PRIMARY"], "AXIAL"),
        ("ORIGINAL", "AXIAL"),
        (None, "AXIAL"),
    ],
)
def test_the_third_value_of_the_image_type(
    source: Source, derive: Derive, image_type: Any, expected: str
) -> None:
    for data in derive(source(ImageType=image_type)):
        assert list(data.ImageType) == ["DERIVED", "SECONDARY", expected]


def test_texts_fit_their_value_representations(source: Source, derive: Derive, about: Derivation) -> None:
    """`derive` reads strictly: too long a text would fail there."""
    long = replace(
        about, model="A model\\with a\nname é" * 9, version="v" * 99, weights="w" * 99, description="d" * 3000
    )
    folder = source(SpecificCharacterSet="ISO_IR 192", SeriesDescription="腹部" * 32)
    (data, *_) = derive(folder, about=long)
    assert data.SeriesDescription.startswith("腹部腹部")
    assert data.SeriesDescription.endswith("(research only)")
    assert len(data.SeriesDescription) <= 64
    assert data.DerivationDescription.endswith("not for diagnosis.")
    assert len(data.DerivationDescription) <= 1024


@pytest.mark.parametrize(("number", "expected"), [(None, 1000), (0, 1000), (7, 1007), (2**31 - 2, 1000)])
def test_series_numbers(source: Source, derive: Derive, number: int | None, expected: int) -> None:
    (data, *_) = derive(source(SeriesNumber=number))
    assert data.SeriesNumber == expected


def test_burned_in_annotation_is_not_denied(source: Source, derive: Derive) -> None:
    (data, *_) = derive(source(BurnedInAnnotation="YES"))
    assert data.BurnedInAnnotation == "YES"


def test_a_loss_is_never_forgotten(source: Source, derive: Derive) -> None:
    lossy = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": [2, 10],
        "LossyImageCompressionMethod": ["ISO_10918_1", "ISO_15444_1"],
    }
    (data, *_) = derive(source("said", **lossy), out="said out")
    assert {keyword: data[keyword].value for keyword in lossy} == lossy
    (data, *_) = derive(source("denied", LossyImageCompression="00"), out="denied out")
    assert data.LossyImageCompression == "00"
    (data, *_) = derive(source("silent"), out="silent out")
    assert "LossyImageCompression" not in data


def test_packed_with_a_loss_and_silent_about_it(source: Source, derive: Derive) -> None:
    """The pixels are not read again, so the transfer syntax alone tells."""
    folder = source()
    for file in folder.iterdir():
        content = file.read_bytes()
        assert content.count(ExplicitVRLittleEndian.encode() + b"\0") == 1
        data = pydicom.dcmread(file)
        pixels = data.PixelData
        data.file_meta.TransferSyntaxUID = JPEG2000
        data.PixelData = pydicom.encaps.encapsulate([pixels])
        data["PixelData"].is_undefined_length = True
        data.save_as(file)
    (data, *_) = derive(folder)
    assert data.LossyImageCompression == "01"
    assert data.LossyImageCompressionMethod == "ISO_15444_1"
    assert data.LossyImageCompressionRatio > 0


def test_missing_elements_of_type_1_and_2(source: Source, derive: Derive) -> None:
    """They are there, empty where nothing is known; what must have a value gets one."""
    bare = dict.fromkeys(
        ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "SliceThickness")
    )
    (data, *_) = derive(
        source(**{**bare, "FrameOfReferenceUID": None, "AcquisitionNumber": None, "InstanceNumber": None})
    )
    for keyword in (*bare, "PatientSex", "StudyID", "StudyDate", "KVP", "AcquisitionNumber", "Laterality"):
        assert keyword in data
        assert data[keyword].is_empty
    assert pydicom.uid.UID(data.FrameOfReferenceUID).is_valid
    assert data.InstanceNumber == 1
    (again, *_) = derive(source("other", FrameOfReferenceUID=None), out="again")
    assert again.FrameOfReferenceUID == data.FrameOfReferenceUID


def test_class_and_instance_that_only_the_meta_header_names(source: Source, derive: Derive) -> None:
    def empty(data: Dataset) -> None:
        data.SOPClassUID = ""
        del data.SOPInstanceUID

    folder = source()
    named = [pydicom.dcmread(folder / f"{index:03d}.dcm").SOPInstanceUID for index in range(6)]
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        empty(data)
        pydicom.dcmwrite(file, data)  # leaves the meta header alone
    derived = derive(folder)
    assert [data.SourceImageSequence[0].ReferencedSOPInstanceUID for data in derived] == named
    assert {data.SourceImageSequence[0].ReferencedSOPClassUID for data in derived} == {
        pydicom.uid.CTImageStorage
    }


def test_deriving_from_a_derived_series(tmp_path: Path, source: Source, derive: Derive) -> None:
    (first, *_) = derive(source(**SCANNER))
    (second, *_) = derive(tmp_path / "derived", out="twice")
    assert second.SeriesInstanceUID != first.SeriesInstanceUID
    assert second.SourceImageSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    purposes = [
        codes(item, "PurposeOfReferenceCodeSequence")[0][0] for item in second.ContributingEquipmentSequence
    ]
    assert purposes == ["109101", "109102", "109102"]
    assert second.ContributingEquipmentSequence[0].Manufacturer == "ACME"
    assert second.SeriesDescription == "Portal 3.0 mpfnl PFNL3D mpfnl PFNL3D (research only)"
