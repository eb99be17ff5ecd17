"""What a DICOM series says of itself, from two of its files. No pixel values, no names, no dates."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from mpfnl.errors import InputError

SHARP_NAMES = ("LUNG", "BONE", "EDGE", "ULTRA", "CHEST", "SHARP", "YA", "YB")
_SIEMENS = re.compile(r"^[BHIQU][A-Z]?(\d\d)")
_TOSHIBA = re.compile(r"^FC(\d\d)")


@dataclass(frozen=True)
class SeriesHeader:
    """A series, as its headers describe it.

    Args:
        slices: Number of its files.
        modality: The Modality, such as "CT"; empty where it is missing.
        image_type: The values of ImageType.
        axial: Whether the slices lie across the body (a tilted gantry included).
        spacing: Distance between neighbouring slices in mm; None where the headers do not tell.
        kernel: The ConvolutionKernel; empty where it is missing.
        patient: The PatientID, to group studies by; never written to a file.
    """

    slices: int
    modality: str
    image_type: tuple[str, ...]
    axial: bool
    spacing: float | None
    kernel: str
    patient: str = field(default="", repr=False)

    @property
    def coverage(self) -> float:
        """The extent along the slices in mm; 0 where the spacing is not known."""
        return self.slices * (self.spacing or 0.0)

    @property
    def localizer(self) -> bool:
        """Whether it is a scout view."""
        return "LOCALIZER" in self.image_type

    @property
    def original(self) -> bool:
        """Whether it was reconstructed from the raw data, not derived from other images."""
        return "DERIVED" not in self.image_type

    @property
    def sharp(self) -> bool:
        """Whether its kernel is one for lung or bone, as far as the vendors' names tell."""
        return sharp_kernel(self.kernel)


def sharp_kernel(kernel: str) -> bool:
    """Whether a kernel is one for lung or bone: noisy in soft tissue.

    GE names them (LUNG, BONE, EDGE), as Philips does its sharpest (YA, YB); Siemens' number is 50 or more, as
    in B60f and Br59d; Toshiba's and Canon's is 30 to 39 (bone) or 50 to 59 and 80 to 89 (lung). An unknown
    name counts as soft.
    """
    name = kernel.strip().upper()
    if siemens := _SIEMENS.match(name):
        return int(siemens[1]) >= 50
    if toshiba := _TOSHIBA.match(name):
        return int(toshiba[1]) // 10 in (3, 5, 8)
    return name.startswith(SHARP_NAMES)


def series_files(folder: Path) -> list[Path]:
    """The DICOM files of a series' folder, by name; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() == ".dcm" and not path.name.startswith(".")
    )


def read_series_header(files: Sequence[Path]) -> SeriesHeader:
    """Reads the headers of the first and the last of a series' files.

    Args:
        files: All files of the series, at least one.

    Raises:
        InputError: One of the two is no readable DICOM image.
    """
    first = _read(files[0])
    last = _read(files[-1]) if len(files) > 1 else first
    return SeriesHeader(
        slices=len(files),
        modality=_text(first, "0008|0060").upper(),
        image_type=tuple(part.strip().upper() for part in _text(first, "0008|0008").split("\\")),
        axial=_axial(first) and _axial(last),
        spacing=_spacing(first, last),
        kernel=_text(first, "0018|1210").split("\\")[0],
        patient=_text(first, "0010|0020"),
    )


def _read(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        raise InputError(f"{path}: is not a readable DICOM image; copy or download it again") from None
    return reader


def _text(reader: sitk.ImageFileReader, tag: str) -> str:
    if not reader.HasMetaDataKey(tag):
        return ""
    return reader.GetMetaData(tag).replace("\0", "").strip()


def _numbers(reader: sitk.ImageFileReader, tag: str) -> list[float]:
    """The numbers of a tag; none where it is missing or holds something else."""
    try:
        values = [float(part) for part in _text(reader, tag).split("\\")]
    except ValueError:
        return []
    return values if np.isfinite(values).all() else []


def _normal(reader: sitk.ImageFileReader) -> np.ndarray | None:
    axes = _numbers(reader, "0020|0037")
    return np.cross(axes[:3], axes[3:]) if len(axes) == 6 else None


def _axial(reader: sitk.ImageFileReader) -> bool:
    normal = _normal(reader)
    return normal is not None and abs(float(normal[2])) > 0.8  # gantries tilt by up to 30 degrees


def _spacing(first: sitk.ImageFileReader, last: sitk.ImageFileReader) -> float | None:
    """From two slices' positions and numbers, else SpacingBetweenSlices, else SliceThickness."""
    normal = _normal(first)
    positions = [_numbers(reader, "0020|0032") for reader in (first, last)]
    numbers = [_numbers(reader, "0020|0013") for reader in (first, last)]
    if normal is not None and all(len(p) == 3 for p in positions) and all(len(n) == 1 for n in numbers):
        apart = abs(float(np.dot(np.subtract(positions[0], positions[1]), normal)))
        count = abs(numbers[0][0] - numbers[1][0])
        if count and apart:
            return apart / count
    for tag in ("0018|0088", "0018|0050"):
        values = _numbers(first, tag)
        if values and abs(values[0]) > 0:
            return abs(values[0])
    return None
