"""Facts from the headers of a DICOM series by which it is picked, from two of its files."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpfnl.volumes.dicom.headers import Header, read_header

ELEMENTS = (
    "Modality",
    "ImageType",
    "ConvolutionKernel",
    "PatientID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "InstanceNumber",
    "SpacingBetweenSlices",
    "SliceThickness",
)
"""Keywords of the elements from which a series is picked."""

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
        DamagedError: One of the two is no readable DICOM image.
    """
    first = read_header(files[0], str(files[0].parent), ELEMENTS)
    last = read_header(files[-1], str(files[-1].parent), ELEMENTS) if len(files) > 1 else first
    return SeriesHeader(
        slices=len(files),
        modality=first.text("Modality").upper(),
        image_type=tuple(part.upper() for part in first.parts("ImageType")),
        axial=_axial(first) and _axial(last),
        spacing=_spacing(first, last),
        kernel=next(iter(first.parts("ConvolutionKernel")), ""),
        patient=first.text("PatientID"),
    )


def _normal(header: Header) -> NDArray[np.float64] | None:
    axes = header.numbers("ImageOrientationPatient", 6)
    return None if axes is None else np.asarray(np.cross(axes[:3], axes[3:]))


def _axial(header: Header) -> bool:
    normal = _normal(header)
    return normal is not None and abs(float(normal[2])) > 0.8  # gantries tilt by up to 30 degrees


def _spacing(first: Header, last: Header) -> float | None:
    """From two slices' positions and numbers, else SpacingBetweenSlices, else SliceThickness."""
    normal = _normal(first)
    begin, end = (header.numbers("ImagePositionPatient", 3) for header in (first, last))
    numbers = [header.number("InstanceNumber") for header in (first, last)]
    if normal is not None and begin is not None and end is not None and None not in numbers:
        apart = abs(float(np.dot(begin - end, normal)))
        count = abs((numbers[0] or 0) - (numbers[1] or 0))
        if count and apart:
            return apart / count
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        value = first.number(keyword)
        if value:
            return abs(value)
    return None
