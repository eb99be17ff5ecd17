"""Facts from the headers of a DICOM series by which it is picked."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpfnl.volumes.dicom.folder import dicom_files, what_else
from mpfnl.volumes.dicom.headers import Header, check_whole, read_any_header

SAMPLE = 5
"""Files of a series whose headers are read; all where these do not tell the slice spacing."""

ROUNDING_MM = 0.1
"""Largest distance of a slice from the line through two others where positions are rounded to 0.1 mm: half of
the last digit of its own, and as much of the line's."""

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
    """The DICOM files of a series' folder, by name; none where there is no such folder.

    Which files count is what `mpfnl.volumes.read_volume` says.

    Raises:
        DamagedError: The folder cannot be read.
    """
    return dicom_files(folder, str(folder))[0] if folder.is_dir() else []


def read_series_header(files: Sequence[Path]) -> SeriesHeader:
    """Reads the headers of some of a series' files, or of all where some do not tell the slice spacing.

    Localizers, reports and other files beside the slices do not count.

    Args:
        files: All files of the series, at least one.

    Raises:
        DamagedError: One of those that are read is no readable DICOM image.
    """
    last = len(files) - 1
    sample = sorted({round(last * part / (SAMPLE - 1)) for part in range(SAMPLE)})
    headers = [_read(files[index]) for index in sample]
    slices = _slices(headers)
    spacing = _neighbours(slices) if len(sample) == len(files) else _sampled(slices, len(files))
    if spacing is None and len(sample) < len(files):
        headers = [_read(file) for file in files]
        slices = _slices(headers)
        spacing = _neighbours(slices)
    first = slices[0]
    return SeriesHeader(
        slices=len(files) - len(headers) + len(slices),
        modality=first.text("Modality").upper(),
        image_type=tuple(part.upper() for part in first.parts("ImageType")),
        axial=all(map(_axial, slices)),
        spacing=spacing or _stated(first),
        kernel=next(iter(first.parts("ConvolutionKernel")), ""),
        patient=first.text("PatientID"),
    )


def _read(file: Path) -> Header:
    return read_any_header(file, str(file.parent))


def _slices(headers: Sequence[Header]) -> Sequence[Header]:
    """The headers of slices; all where none is one."""
    slices = [header for header in headers if what_else(header) is None]
    for header in slices:
        check_whole(header, str(header.path.parent))
    return slices or headers


def _normal(header: Header) -> NDArray[np.float64] | None:
    axes = header.numbers("ImageOrientationPatient", 6)
    return None if axes is None else np.asarray(np.cross(axes[:3], axes[3:]))


def _axial(header: Header) -> bool:
    normal = _normal(header)
    return normal is not None and abs(float(normal[2])) > 0.8  # gantries tilt by up to 30 degrees


def _depths(headers: Sequence[Header]) -> NDArray[np.float64] | None:
    """The positions along the normal of the first slice in mm; None where one is missing."""
    normal = _normal(headers[0])
    positions = [header.numbers("ImagePositionPatient", 3) for header in headers]
    known = [position for position in positions if position is not None]
    return None if normal is None or len(known) < len(headers) else np.asarray(np.stack(known) @ normal)


def _sampled(headers: Sequence[Header], files: int) -> float | None:
    """The distance between neighbours, from the positions and numbers of some slices of a series.

    It is clear where the numbers have no common step other than 1, are no more than there are files, and go
    along with the positions.
    """
    depths = _depths(headers)
    stated = [header.number("InstanceNumber") for header in headers]
    numbers = np.array([number for number in stated if number is not None])
    if depths is None or len(numbers) < max(len(headers), 3):
        return None
    apart = numbers - numbers.min()
    if math.gcd(*apart.astype(int).tolist()) != 1 or apart.max() >= files:
        return None
    low, high = int(apart.argmin()), int(apart.argmax())
    step = float(depths[high] - depths[low]) / apart[high]
    on_line = np.abs(depths - depths[low] - step * apart) <= ROUNDING_MM
    return abs(step) if on_line.all() and abs(step) > ROUNDING_MM else None


def _neighbours(headers: Sequence[Header]) -> float | None:
    """The distance between neighbours from the positions of all slices, whether or not some are missing."""
    depths = _depths(headers)
    if depths is None:
        return None
    gaps = np.diff(np.sort(depths))
    gaps = np.sort(gaps[gaps > ROUNDING_MM])
    if not gaps.size:
        return None
    usual = gaps[(len(gaps) - 1) // 2]
    return float(gaps.sum() / np.rint(gaps / usual).sum())


def _stated(header: Header) -> float | None:
    """SpacingBetweenSlices, else SliceThickness."""
    values = (header.number(keyword) for keyword in ("SpacingBetweenSlices", "SliceThickness"))
    return next((abs(value) for value in values if value), None)
