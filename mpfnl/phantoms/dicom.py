"""CT slices as DICOM files, byte for byte equal for equal content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

INTERCEPT_HU = -1024


@dataclass(frozen=True)
class SliceHeader:
    """Header of one slice.

    Args:
        patient: PatientID and PatientName.
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        instance: SOPInstanceUID.
        frame: FrameOfReferenceUID.
        series_number: SeriesNumber.
        number: InstanceNumber, from 1.
        position: Centre of the first voxel in mm, LPS.
        spacing: Voxel size in x and y in mm.
        thickness: SliceThickness in mm.
        image_type: ImageType.
        kernel: ConvolutionKernel.
        orientation: Directions of the rows and the columns, LPS.
        modality: Modality.
    """

    patient: str
    study: str
    series: str
    instance: str
    frame: str
    series_number: int
    number: int
    position: tuple[float, float, float]
    spacing: tuple[float, float]
    thickness: float
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    kernel: str = "SOFT"
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0)
    modality: str = "CT"


def phantom_uid(*parts: object) -> str:
    """A UID that depends on the parts alone.

    Args:
        parts: Anything with a text, such as a seed, a patient number and a phase.

    >>> phantom_uid(0, 1) == phantom_uid(0, 1) != phantom_uid(1, 0)
    True
    """
    return str(generate_uid(entropy_srcs=["/".join(map(str, ("mpfnl phantom", *parts)))]))


def write_slice(path: Path, hu: NDArray[np.int16], header: SliceHeader) -> None:
    """Writes a CT image (DICOM PS3.3, A.3): signed 16 bits, explicit little endian, dates of 2000-01-01.

    Args:
        path: File to write.
        hu: Slice (row, column) in HU.
        header: Header of the slice.

    Raises:
        ValueError: A UID or a value is not valid in DICOM.
    """
    data = Dataset()
    _describe_study(data, header)
    _describe_image(data, header)
    _add_pixels(data, hu)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(phantom_uid())
    meta.ImplementationVersionName = "MPFNL"
    data.file_meta = meta
    dcmwrite(path, data, enforce_file_format=True)


def _describe_study(data: Dataset, header: SliceHeader) -> None:
    """Patient, study, series and equipment; elements of type 2 that a phantom lacks are empty."""
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(data, f"{name}Date", "20000101")
        setattr(data, f"{name}Time", "000000")
    for name in (
        "AccessionNumber",
        "AcquisitionNumber",
        "KVP",
        "Manufacturer",
        "PatientBirthDate",
        "PatientSex",
        "PositionReferenceIndicator",
        "ReferringPhysicianName",
        "StudyID",
    ):
        setattr(data, name, None)
    data.PatientID = data.PatientName = header.patient
    data.StudyInstanceUID = header.study
    data.SeriesInstanceUID = header.series
    data.SeriesNumber = header.series_number
    data.FrameOfReferenceUID = header.frame
    data.Modality = header.modality
    data.BodyPartExamined = "ABDOMEN"
    data.PatientPosition = "HFS"


def _describe_image(data: Dataset, header: SliceHeader) -> None:
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = header.instance
    data.ImageType = list(header.image_type)
    data.InstanceNumber = header.number
    data.ConvolutionKernel = header.kernel
    data.SliceThickness = _decimal(header.thickness)
    data.ImagePositionPatient = [_decimal(value) for value in header.position]
    data.ImageOrientationPatient = [_decimal(value) for value in header.orientation]
    data.PixelSpacing = [_decimal(value) for value in reversed(header.spacing)]


def _add_pixels(data: Dataset, hu: NDArray[np.int16]) -> None:
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = hu.shape
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = 1
    data.RescaleIntercept, data.RescaleSlope, data.RescaleType = str(INTERCEPT_HU), "1", "HU"
    stored = (hu.astype(np.int32) - INTERCEPT_HU).astype("<i2")
    data.add_new("PixelData", "OW", stored.tobytes())


def _decimal(value: float) -> str:
    """A decimal string of at most 16 characters, 0.000001 mm fine."""
    return f"{value:.6f}".rstrip("0").rstrip(".")
