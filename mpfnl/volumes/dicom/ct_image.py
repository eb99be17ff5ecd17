"""One derived slice: a CT image (DICOM PS3.3, A.3) without a loss, 16 bits, slope 1, intercept -1024."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite
from pydicom.charset import convert_encodings
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from mpfnl.errors import IntensityError
from mpfnl.volumes.dicom.attributes import image_attributes, series_attributes
from mpfnl.volumes.dicom.provenance import (
    Derivation,
    carry_lossy,
    contributing_equipment,
    describe_series,
    source_image,
)
from mpfnl.volumes.dicom.source import SourceSlice, read_dataset
from mpfnl.window import AIR_HU

HIGHEST_HU = AIR_HU + np.iinfo(np.uint16).max
"""The largest HU that 16 bits with slope 1 and intercept -1024 hold."""

STORED = np.dtype("<u2")
"""The type of the stored values: 16 bits, unsigned, little endian."""

SERIES_NUMBER_STEP = 1000
"""The difference between the SeriesNumber of the derived series and the source's."""

_LARGEST_IS = 2**31 - 1
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_OID, "mpfnl")


def series_elements(source: Dataset, uid: str, about: Derivation, when: datetime) -> Dataset:
    """The elements that are the same in all slices of a derived series.

    Args:
        source: The header of one of the source's slices.
        uid: The derived series' SeriesInstanceUID.
        about: Derivation: model, weights, version and phases.
        when: Time of making.
    """
    data = series_attributes(source)
    when = _local(when, str(source.get("TimezoneOffsetFromUTC") or ""))
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    data.SOPClassUID = CTImageStorage
    data.Modality = "CT"
    data.SeriesInstanceUID = uid
    data.SeriesNumber = _series_number(source)
    data.SeriesDate = data.ContentDate = data.InstanceCreationDate = date
    data.SeriesTime = data.ContentTime = data.InstanceCreationTime = time
    if not data.get("FrameOfReferenceUID"):
        data.FrameOfReferenceUID = make_uid("frame of reference", source.SeriesInstanceUID)  # type 1
    describe_series(data, about, source)
    data.ContributingEquipmentSequence = contributing_equipment(about, source, when)
    return data


def slice_elements(common: Dataset, each: SourceSlice, number: int, name: str) -> Dataset:
    """A derived slice without its pixels.

    Args:
        common: Elements that are the same in all slices.
        each: The source slice.
        number: Its InstanceNumber.
        name: Name of the source in messages.

    Raises:
        InputError: The source slice cannot be read.
    """
    source = read_dataset(each.path, name)
    data = Dataset()
    data.update(common)
    data.update(image_attributes(source))
    data.ImageType = ["DERIVED", "SECONDARY", _third_value(source.get("ImageType")) or "AXIAL"]
    data.InstanceNumber = number
    data.SOPInstanceUID = make_uid("derived slice", common.SeriesInstanceUID, each.sop_instance)
    data.SourceImageSequence = source_image(each)
    carry_lossy(data, source)
    return data


def add_pixels(data: Dataset, stored: NDArray[np.uint16]) -> None:
    """Adds the pixels, and how they are stored.

    Args:
        data: The slice.
        stored: Stored values (rows, columns).
    """
    data.SamplesPerPixel = 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.Rows, data.Columns = stored.shape
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.PixelRepresentation = 0
    data.RescaleSlope = "1"
    data.RescaleIntercept = str(AIR_HU)
    data.RescaleType = "HU"
    data.add_new("PixelData", "OW", stored.astype(STORED, copy=False).tobytes())


def save_slice(path: Path, data: Dataset) -> None:
    """Writes a slice as a file: explicit VR, little endian.

    Args:
        path: The file.
        data: The slice.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(make_uid("implementation"))
    meta.ImplementationVersionName = "MPFNL"
    data.file_meta = meta
    # Elements that were copied byte by byte are written so where this says that they need no other encoding.
    data.set_original_encoding(False, True, convert_encodings(data.get("SpecificCharacterSet")))
    dcmwrite(path, data, implicit_vr=False, little_endian=True, enforce_file_format=True)


def stored_values(hu: NDArray[Any], name: str) -> NDArray[np.uint16]:
    """The stored values (rows, columns) of a slice.

    Args:
        hu: Voxels (x, y) in HU.
        name: Name of the source in messages.

    Raises:
        InputError: A voxel is above 64511 HU.
        ValueError: A voxel is NaN or infinite.
    """
    if not np.isfinite(hu).all():
        raise ValueError("a voxel to be written is NaN or infinite")
    whole = np.maximum(np.rint(hu), AIR_HU)
    if whole.max() > HIGHEST_HU:
        raise IntensityError(
            f"{name}: enhanced, it holds {whole.max():g} HU, more than the {HIGHEST_HU} of a slice of 16"
            " bits; write NIfTI (NAME.nii.gz)"
        )
    return np.ascontiguousarray((whole - AIR_HU).T.astype(STORED))


def _third_value(kind: object) -> str:
    """The third value of an ImageType, as in ORIGINAL, PRIMARY, AXIAL; empty where it has fewer."""
    if isinstance(kind, MultiValue) and len(kind) > 2:
        return str(kind[2])
    return ""


def _series_number(source: Dataset) -> int:
    text = str(source.get("SeriesNumber") or "").strip()
    number = int(text) if text.isdecimal() else 0
    return SERIES_NUMBER_STEP + (number if number <= _LARGEST_IS - SERIES_NUMBER_STEP else 0)


def _local(when: datetime, offset: str) -> datetime:
    """A time in the zone in which the source's times are; as it is where either names none."""
    if when.tzinfo is None or len(offset) != 5 or not offset[1:].isdecimal() or offset[0] not in "+-":
        return when
    minutes = int(offset[1:3]) * 60 + int(offset[3:])
    return when.astimezone(timezone(timedelta(minutes=-minutes if offset[0] == "-" else minutes)))


def make_uid(*parts: object) -> str:
    """A UID under the root 2.25: the same for the same parts, another for others.

    It is the decimal form of a name-based UUID (DICOM PS3.5, B.2; RFC 9562, version 5).

    Args:
        parts: Parts of a name; their texts count.
    """
    return f"2.25.{uuid.uuid5(_NAMESPACE, chr(0).join(map(str, parts))).int}"
