"""DICOM series made for the tests by pydicom, by which the package writes and never reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from mpfnl.errors import InputError
from mpfnl.phases import Phase
from mpfnl.volumes import read_volume

SERIES = "1.2.826.0.1.9999.20240101.1"

IDENTIFIERS = {
    "PatientName": "Quimby^Zelda Secretname",
    "PatientID": "PID-4711-SECRET",
    "PatientBirthDate": "19010203",
    "ReferringPhysicianName": "Frankenstein^Viktor",
    "InstitutionName": "General Hospital",
    "AccessionNumber": "ACC0815",
}
"""What every fabricated file holds and what must never come out."""

MakeSeries: TypeAlias = Callable[..., list[Path]]
Refused: TypeAlias = Callable[..., str]


def decimal(value: float) -> str:
    """A DICOM decimal string: 16 characters at most."""
    return f"{value:.9g}" if abs(value) > 1e-6 else "0"


def make_slice(stored: np.ndarray, position: Sequence[float], **elements: Any) -> Dataset:
    """A slice of CT; stored numbers (columns, rows)."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    plain: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "Modality": "CT",
        "SeriesInstanceUID": SERIES,
        "SeriesNumber": 4,
        "SeriesDescription": "Portal 3.0",
        "AcquisitionNumber": 1,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [decimal(value) for value in position],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [0.8, 0.7],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Columns": stored.shape[0],
        "Rows": stored.shape[1],
        "BitsAllocated": stored.dtype.itemsize * 8,
        "BitsStored": stored.dtype.itemsize * 8,
        "HighBit": stored.dtype.itemsize * 8 - 1,
        "PixelRepresentation": int(stored.dtype.kind == "i"),
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "RescaleType": "HU",
    }
    for key, value in {**plain, **IDENTIFIERS, **elements}.items():
        if value is not None:
            setattr(data, key, value)
    data.add_new("PixelData", "OW", stored.T.tobytes())
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = f"1.2.{abs(hash(tuple(position)))}"
    return data


def make_series(
    folder: Path,
    stored: np.ndarray,
    step: Sequence[float] = (0, 0, 3.0),
    names: Sequence[str] | None = None,
    each: Sequence[dict[str, Any]] | None = None,
    **elements: Any,
) -> list[Path]:
    """Writes slices (columns, rows, slices) that follow each other by `step` mm (LPS); returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for index in range(stored.shape[2]):
        position = np.array([-30.0, -20.0, 100.0]) + index * np.asarray(step)
        own = {"InstanceNumber": index + 1, **elements, **(each[index] if each else {})}
        file = folder / (names[index] if names else f"{index:03d}.dcm")
        make_slice(stored[:, :, index], position, **own).save_as(file, enforce_file_format=True)
        files.append(file)
    return files


@pytest.fixture(name="make_series")
def make_series_fixture() -> MakeSeries:
    """`make_series`, above."""
    return make_series


@pytest.fixture
def stored() -> np.ndarray:
    """Stored numbers of a small series (columns, rows, slices): -1024 to 2000 HU."""
    return np.random.default_rng(0).integers(0, 3024, (9, 7, 6)).astype(np.uint16)


def leaks(text: str) -> list[str]:
    """The identifiers that occur in a text, whole or in part."""
    words = {word for value in IDENTIFIERS.values() for word in value.replace("^", " ").split()}
    return sorted(word for word in words if word.lower() in text.lower())


@pytest.fixture(name="leaks")
def leaks_fixture() -> Callable[[str], list[str]]:
    """`leaks`, above."""
    return leaks


@pytest.fixture
def refused() -> Refused:
    """Reads what cannot be read; returns the one line that says so, which names the scan and its phase."""

    def read(path: Path, kind: type[InputError] = InputError) -> str:
        with pytest.raises(kind) as caught:
            read_volume(path, Phase.ARTERIAL)
        message = str(caught.value)
        assert message.startswith(f"{path} (arterial phase): ")
        assert "\n" not in message
        assert ";" in message or ": name one" in message  # what is wrong, and what to do
        assert not leaks(message.removeprefix(str(path)))
        return message

    return read
