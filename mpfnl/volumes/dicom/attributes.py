"""Attributes of a source slice that a derived slice keeps, and the way in which they are copied.

Only the attributes listed here are kept: no private element, overlay, thumbnail or icon, and nothing about
the sharpness, noise or dose of the source's pixels (kernel, tube current, exposure, filters, CTDIvol), which
does not hold for the derived ones. The source, which is referenced, still has it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable

from pydicom.datadict import dictionary_has_tag, dictionary_is_retired, dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import STR_VR, format_number_as_ds

_PATIENT_GROUPS = (0x0010, 0x0012)  # patient, and clinical trial and de-identification


def _tags(keywords: str) -> tuple[BaseTag, ...]:
    return tuple(Tag(tag_for_keyword(keyword) or 0) for keyword in keywords.split())


_STUDY = _tags("""
    SpecificCharacterSet TimezoneOffsetFromUTC
    StudyInstanceUID StudyDate StudyTime StudyID StudyDescription AccessionNumber
    IssuerOfAccessionNumberSequence ReferringPhysicianName ReferringPhysicianIdentificationSequence
    ConsultingPhysicianName ConsultingPhysicianIdentificationSequence PhysiciansOfRecord
    PhysiciansOfRecordIdentificationSequence NameOfPhysiciansReadingStudy
    PhysiciansReadingStudyIdentificationSequence RequestingService ProcedureCodeSequence
    ReferencedStudySequence ReasonForPerformedProcedureCodeSequence AdmittingDiagnosesDescription
    AdmittingDiagnosesCodeSequence AdmissionID IssuerOfAdmissionIDSequence ServiceEpisodeID
    ServiceEpisodeDescription LongitudinalTemporalInformationModified
""")

_SERIES = _tags("""
    ProtocolName BodyPartExamined Laterality PatientPosition RequestAttributesSequence
    FrameOfReferenceUID PositionReferenceIndicator
""")

_IMAGE = _tags("""
    AcquisitionNumber AcquisitionDate AcquisitionTime AcquisitionDateTime IrradiationEventUID KVP
    ScanOptions DataCollectionDiameter ReconstructionDiameter GantryDetectorTilt TableHeight
    RotationDirection ReconstructionTargetCenterPatient DataCollectionCenterPatient
    ImagePositionPatient ImageOrientationPatient PixelSpacing SliceThickness SpacingBetweenSlices
    SliceLocation ImageLaterality AnatomicRegionSequence PrimaryAnatomicStructureSequence
    WindowCenter WindowWidth WindowCenterWidthExplanation VOILUTFunction RecognizableVisualFeatures
    ContrastBolusAgent ContrastBolusAgentSequence ContrastBolusRoute
    ContrastBolusAdministrationRouteSequence ContrastBolusVolume ContrastBolusStartTime
    ContrastBolusStopTime ContrastBolusTotalDose ContrastFlowRate ContrastFlowDuration
    ContrastBolusIngredient ContrastBolusIngredientConcentration
    LossyImageCompression LossyImageCompressionRatio LossyImageCompressionMethod
""")

_EQUIPMENT = _tags("""
    Manufacturer InstitutionName InstitutionAddress StationName InstitutionalDepartmentName
    ManufacturerModelName DeviceSerialNumber SoftwareVersions
""")
"""The equipment that made an image."""

_NEEDED_OF_SERIES = _tags("""
    StudyDate StudyTime StudyID AccessionNumber ReferringPhysicianName
    PatientName PatientID PatientBirthDate PatientSex PatientPosition PositionReferenceIndicator
""")
"""Elements of type 2: there, if need be empty."""

_NEEDED_OF_IMAGE = _tags("AcquisitionNumber KVP SliceThickness")
"""As above."""

_UNPAIRED = frozenset(
    ("ABDOMEN", "ABDOMENPELVIS", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS", "LIVER", "PANCREAS", "PELVIS")
)
"""Body parts of abdominal CT of which there is one (PS3.16, table L-1)."""

_DS_LENGTH = 16


def series_attributes(source: Dataset) -> Dataset:
    """Patient, study, and what of the series stays true, of a source slice.

    Args:
        source: The header of one of the series' slices.
    """
    patient = [tag for tag, _ in source.items() if _of_patient(tag)]
    data = copy_attributes(source, [*patient, *_STUDY, *_SERIES])
    _complete(data, _NEEDED_OF_SERIES)
    _complete(data, _conditional(data))
    if data.get("PatientIdentityRemoved") == "YES" and not data.get("DeidentificationMethodCodeSequence"):
        data.DeidentificationMethod = data.get("DeidentificationMethod") or "not said by the source"
    return data


def image_attributes(source: Dataset) -> Dataset:
    """Geometry, acquisition, contrast agent, window and lossy compression of a source slice.

    Args:
        source: Its header.
    """
    data = copy_attributes(source, _IMAGE)
    _complete(data, _NEEDED_OF_IMAGE)
    return data


def equipment_attributes(source: Dataset) -> Dataset:
    """The equipment that made the source.

    Args:
        source: A slice's header.
    """
    return copy_attributes(source, _EQUIPMENT)


def copy_attributes(source: Dataset, tags: Iterable[BaseTag]) -> Dataset:
    """Some elements of a dataset, as they are: text byte by byte, sequences without private elements.

    Args:
        source: The dataset.
        tags: The elements; those that it does not have are left out.
    """
    copies = Dataset()
    for tag in tags:
        if tag in source:
            copies[tag] = _copied(source, tag)
    return copies


def _copied(source: Dataset, tag: BaseTag) -> DataElement | RawDataElement:
    raw = source.get_item(tag)
    vr = raw.VR if raw.VR not in (None, "UN") else dictionary_VR(tag)
    if isinstance(raw, RawDataElement) and vr in STR_VR:
        # Text in a wrongly declared character set would not survive being decoded and encoded.
        value = bytes(raw.value or b"")
        value = _decimals(value) if vr == "DS" else value
        value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
        return raw._replace(VR=vr, value=value, length=len(value))
    element = copy.deepcopy(source[tag])
    if element.VR == "SQ":
        for item in element.value:
            item.remove_private_tags()
    return element


def _decimals(value: bytes) -> bytes:
    """Decimal strings of 16 characters at most, as the standard asks for; many writers give more digits."""
    parts = [part.strip(b" \0") for part in value.split(b"\\")]
    return b"\\".join(_shortened(part) if len(part) > _DS_LENGTH else part for part in parts)


def _shortened(part: bytes) -> bytes:
    if not re.fullmatch(rb"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", part):
        return part
    return format_number_as_ds(float(part)).encode()


def _of_patient(tag: BaseTag) -> bool:
    known = tag.group in _PATIENT_GROUPS and dictionary_has_tag(tag)
    return known and not dictionary_is_retired(tag)


def _conditional(data: Dataset) -> tuple[BaseTag, ...]:
    """Laterality, which is needed, if need be empty, as long as the body part may be one of a pair."""
    part = str(data.get("BodyPartExamined") or "").upper()
    return () if part in _UNPAIRED else _tags("Laterality")


def _complete(data: Dataset, tags: Iterable[BaseTag]) -> None:
    for tag in tags:
        if tag not in data:
            data.add_new(tag, dictionary_VR(tag), None)
