"""Slices of CT: the elements that each must have, and those on which all slices of a series must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import ConflictError, FormatError, GridError, IntensityError
from mpfnl.volumes.dicom.headers import Header
from mpfnl.volumes.dicom.stored import StoredNumbers, stored_numbers
from mpfnl.volumes.fileio import by, numbers

ORIENTATION_TOLERANCE = 1e-3
"""Largest deviation of a direction cosine from that of another slice, and from a right angle."""

SPACING_TOLERANCE = 1e-4
"""The largest relative difference between two slices' pixel spacings: 0.05 mm over 500 mm."""

MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""Enhanced CT and Legacy Converted Enhanced CT (PS3.6, table A-1)."""

HU_TYPES = ("", "HU", "US")
"""Rescale types of CT in HU: not given, HU, and "unspecified" (PS3.3, C.11.1.1.2)."""


@dataclass(frozen=True, eq=False)
class Slice:
    """A slice of CT, checked.

    Args:
        header: Its header.
        position: The centre of its first pixel in mm (LPS+), (3,).
        axes: The directions in which columns and rows are counted (LPS+), orthonormal, (2, 3).
        spacing: The distance between columns and between rows in mm.
        shape: The number of columns and of rows.
        slope: The rescale slope.
        intercept: The rescale intercept.
        stored: How its stored numbers lie in their words.
    """

    header: Header
    position: NDArray[np.float64]
    axes: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    slope: float
    intercept: float
    stored: StoredNumbers

    @property
    def path(self) -> Path:
        """Its file."""
        return self.header.path

    @property
    def normal(self) -> NDArray[np.float64]:
        """The direction at right angles to it (LPS+), (3,)."""
        return np.asarray(np.cross(self.axes[0], self.axes[1]))


def check_slices(headers: Sequence[Header], name: str) -> list[Slice]:
    """The slices of a series, checked each and against each other.

    Args:
        headers: The headers of the series.
        name: Name of the scan in messages.

    Raises:
        InputError: A file is not a slice of CT in HU, or the slices differ in orientation, size or spacing.
    """
    slices = [_slice(header, f"{name}: {header.path.name}") for header in headers]
    _check_alike(slices, "orientation", _orientation, _same_orientation, name)
    _check_alike(slices, "size", lambda a: f"{by(a.shape)} pixels", lambda a, b: a.shape == b.shape, name)
    _check_alike(slices, "pixel spacing", lambda a: f"{numbers(a.spacing)} mm", _same_spacing, name)
    return slices


def _slice(header: Header, name: str) -> Slice:
    _check_kind(header, name)
    stored = stored_numbers(header, name)
    slope, intercept = _rescaling(header, name)
    size = header.numbers("Columns", 1), header.numbers("Rows", 1)
    position = header.numbers("ImagePositionPatient", 3)
    orientation = header.numbers("ImageOrientationPatient", 6)
    spacing = header.numbers("PixelSpacing", 2)
    if position is None or orientation is None or spacing is None or size[0] is None or size[1] is None:
        raise GridError(
            f"{name} does not say where it lies (image position, orientation or pixel spacing); export the"
            " series again"
        )
    if not (spacing > 0).all():
        raise GridError(f"{name} has the pixel spacing {numbers(spacing)} mm, not positive; export it again")
    rows, columns = (float(value) for value in spacing)  # DICOM tells the distance between rows first
    return Slice(
        header=header,
        position=position,
        axes=_orthonormal(orientation.reshape(2, 3), name),
        spacing=(columns, rows),
        shape=(int(size[0][0]), int(size[1][0])),
        slope=slope,
        intercept=intercept,
        stored=stored,
    )


def _check_kind(header: Header, name: str) -> None:
    modality = header.text("Modality")
    if modality != "CT":
        raise FormatError(f"{name} is of modality {modality or 'unknown'!r}; give a series of CT slices")
    if header.text("SOPClassUID") in MULTI_FRAME or (header.number("NumberOfFrames") or 1) > 1:
        raise FormatError(f"{name} is a multi-frame image (Enhanced CT); convert it, e.g. with dcm2niix")
    if any(word.upper() in ("LOCALIZER", "SCOUT") for word in header.parts("ImageType")):
        raise FormatError(f"{name} is a localizer (a scout image); take the localizers out of the folder")
    if header.number("SamplesPerPixel") != 1 or header.text("PhotometricInterpretation") != "MONOCHROME2":
        photometric = header.text("PhotometricInterpretation") or "unknown"
        raise FormatError(f"{name} holds {photometric} pixels; give CT slices (MONOCHROME2)")


def _rescaling(header: Header, name: str) -> tuple[float, float]:
    kind = header.text("RescaleType")
    if kind.upper() not in HU_TYPES:
        raise IntensityError(f"{name} holds values of type {kind!r}, not HU; give a series in HU")
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if (slope is None or intercept is None) and header.parts("ModalityLUTSequence"):
        raise IntensityError(
            f"{name} keeps its HU in a table (ModalityLUTSequence), not as slope and intercept; export it"
            " again"
        )
    if slope is None or intercept is None or slope == 0:
        raise IntensityError(
            f"{name} has no rescale slope and intercept, so its HU are unknown; export it again"
        )
    return slope, intercept


def _orthonormal(axes: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    lengths = np.linalg.norm(axes, axis=1)
    if (np.abs(lengths - 1) > ORIENTATION_TOLERANCE).any() or abs(axes[0] @ axes[1]) > ORIENTATION_TOLERANCE:
        raise GridError(f"{name} has an orientation that is no rotation, {numbers(axes)}; export it again")
    first = axes[0] / lengths[0]
    second = axes[1] - (axes[1] @ first) * first
    return np.stack([first, second / np.linalg.norm(second)])


def _orientation(a: Slice) -> str:
    return numbers(np.round(a.axes, 3) + 0.0)


def _same_orientation(a: Slice, b: Slice) -> bool:
    return bool((np.abs(a.axes - b.axes) <= ORIENTATION_TOLERANCE).all())


def _same_spacing(a: Slice, b: Slice) -> bool:
    return bool(np.allclose(a.spacing, b.spacing, rtol=SPACING_TOLERANCE, atol=0))


def _check_alike(
    slices: Sequence[Slice],
    what: str,
    show: Callable[[Slice], str],
    same: Callable[[Slice, Slice], bool],
    name: str,
) -> None:
    kinds: list[list[Slice]] = []
    for each in slices:
        kind = next((kind for kind in kinds if same(kind[0], each)), None)
        if kind is None:
            kinds.append([each])
        else:
            kind.append(each)
    if len(kinds) > 1:
        shown = [f"{_count(kind)} with {show(kind[0])}, e.g. {kind[0].path.name}" for kind in kinds[:3]]
        raise ConflictError(
            f"{name}: its slices differ in {what}: {'; '.join(shown)}; put each kind in a folder of its own"
        )


def _count(kind: Sequence[Slice]) -> str:
    return f"{len(kind)} file{'s' if len(kind) > 1 else ''}"
