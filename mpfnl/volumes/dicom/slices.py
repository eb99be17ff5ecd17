"""Slices of CT: the elements that each must have, and those on which all slices of a scan must agree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID, CTImageStorage

from mpfnl.errors import ConflictError, FormatError, GridError, IntensityError
from mpfnl.volumes.dicom.headers import Header, check_whole
from mpfnl.volumes.dicom.stored import StoredNumbers, stored_numbers
from mpfnl.volumes.fileio import by, numbers

COSINE_UNIT = 1e-3
"""The coarsest rounding of direction cosines that is forgiven: three digits. Two slices' cosines may differ
by it."""

LENGTH_TOLERANCE = np.sqrt(3) / 2 * COSINE_UNIT
"""The change of a unit vector's length if each of its three cosines is off by half of `COSINE_UNIT`."""

ANGLE_TOLERANCE = 2 * LENGTH_TOLERANCE
"""The same for the product of two such vectors, which are at right angles."""

SPACING_TOLERANCE_MM = 5e-4
"""Largest difference between two slices' pixel spacings: what rounding to three digits does."""

MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""Enhanced CT and Legacy Converted Enhanced CT (PS3.6, table A-1)."""

HU_TYPES = ("", "HU", "US")
"""Rescale types of CT in HU: not given, HU, and "unspecified" (PS3.3, C.11.1.1.2)."""

SCOUTS = ("LOCALIZER", "SCOUT", "TOPOGRAM", "SCANOGRAM", "SCANOSCOPE", "SURVIEW")
"""Words in ImageType for a localizer: the standard's (PS3.3, C.8.2.1.1.1), and the vendors'."""

LONGEST_TEXT = 40


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


def make_slice(header: Header, name: str) -> Slice:
    """A slice from its header.

    Args:
        header: Its header.
        name: Name of the scan in messages.

    Raises:
        InputError: The file is not a slice of CT in HU, is cut off, or does not say where it lies.
    """
    where = f"{name}: {header.path.name}"
    if header.text("Modality"):  # before anything else: what another modality lacks is not its fault
        _check_modality(header, where)
    check_whole(header, name)
    name = where
    _check_kind(header, name)
    stored = stored_numbers(header, name)
    slope, intercept = _rescaling(header, name)
    columns, rows = (int(_element(header, keyword, 1, "size", name)[0]) for keyword in ("Columns", "Rows"))
    orientation = _element(header, "ImageOrientationPatient", 6, "orientation", name)
    spacing = _element(header, "PixelSpacing", 2, "pixel spacing", name)
    if not (spacing > 0).all():
        raise GridError(f"{name} has the PixelSpacing {numbers(spacing)} mm, not positive; export it again")
    return Slice(
        header=header,
        position=_element(header, "ImagePositionPatient", 3, "position", name),
        axes=_orthonormal(orientation.reshape(2, 3), name),
        spacing=(float(spacing[1]), float(spacing[0])),  # DICOM tells the distance between rows first
        shape=(columns, rows),
        slope=slope,
        intercept=intercept,
        stored=stored,
    )


def check_alike(slices: Sequence[Slice], name: str) -> None:
    """Refuses slices that differ in what all slices of a scan share.

    Args:
        slices: The slices.
        name: Name of the scan in messages.

    Raises:
        ConflictError: They differ in orientation, size or spacing.
    """
    _check_alike(slices, "orientation", "ImageOrientationPatient", _orientation, same_orientation, name)
    _check_alike(slices, "size", "Columns, Rows", _size, lambda a, b: a.shape == b.shape, name)
    _check_alike(slices, "pixel spacing", "PixelSpacing", _spacing, _same_spacing, name)


def is_localizer(header: Header) -> bool:
    """Whether a file says that it is a scout view."""
    return any(word.upper() in SCOUTS for word in header.parts("ImageType"))


def _orthonormal(axes: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """Two directions (2, 3) at right angles and of length 1; the first keeps its direction.

    Args:
        axes: The directions, which rounding may have turned a little.
        name: Name of the file in messages.

    Raises:
        GridError: They are further off than rounding explains.
    """
    lengths = np.linalg.norm(axes, axis=1)
    if (np.abs(lengths - 1) > LENGTH_TOLERANCE).any() or abs(axes[0] @ axes[1]) > ANGLE_TOLERANCE:
        raise GridError(
            f"{name} has an orientation that is no rotation, ImageOrientationPatient {numbers(axes)}; export"
            " it again"
        )
    return straightened(axes)


def straightened(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two directions (2, 3), neither 0 nor the same, at right angles and of length 1."""
    first = axes[0] / np.linalg.norm(axes[0])
    second = axes[1] - (axes[1] @ first) * first
    return np.stack([first, second / np.linalg.norm(second)])


def _element(header: Header, keyword: str, count: int, what: str, name: str) -> NDArray[np.float64]:
    values = header.numbers(keyword, count)
    if values is not None:
        return values
    text = header.text(keyword)
    holds = f"{text[:LONGEST_TEXT]!r} as {keyword}" if text else f"no {keyword}"
    need = f"{count} numbers" if count > 1 else "a number"
    raise GridError(f"{name} has {holds}, so its {what} is unknown ({need}); export the series again")


def _check_modality(header: Header, name: str) -> None:
    modality = header.text("Modality")
    if modality != "CT" and (modality or header.text("SOPClassUID") != CTImageStorage):
        raise FormatError(f"{name} is of modality {modality!r} (Modality); give a series of CT slices")


def _check_kind(header: Header, name: str) -> None:
    _check_modality(header, name)
    frames = header.number("NumberOfFrames") or 1
    kind = UID(header.text("SOPClassUID"))
    if kind in MULTI_FRAME or frames > 1:
        raise FormatError(
            f"{name} is a multi-frame image ({kind.name or 'no SOPClassUID'}, NumberOfFrames {frames:g});"
            " convert it, e.g. with dcm2niix"
        )
    if is_localizer(header):
        raise FormatError(
            f"{name} is a localizer (ImageType); give the folder that holds the slices of a scan"
        )
    photometric = header.text("PhotometricInterpretation")
    samples = header.number("SamplesPerPixel")
    if samples != 1 or photometric != "MONOCHROME2":
        raise FormatError(
            f"{name} holds {photometric or 'unknown'} pixels of {samples or 0:g} samples"
            " (PhotometricInterpretation, SamplesPerPixel); give CT slices (MONOCHROME2)"
        )


def _rescaling(header: Header, name: str) -> tuple[float, float]:
    kind = header.text("RescaleType")
    if kind.upper() not in HU_TYPES:
        raise IntensityError(f"{name} holds values of RescaleType {kind!r}, not HU; give a series in HU")
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if (slope is None or intercept is None) and header.parts("ModalityLUTSequence"):
        raise IntensityError(
            f"{name} keeps its HU in a table (ModalityLUTSequence), not as slope and intercept; export it"
            " again"
        )
    if slope is None or intercept is None or slope == 0:
        texts = header.text("RescaleSlope"), header.text("RescaleIntercept")
        raise IntensityError(
            f"{name} has the rescale slope {texts[0]!r} and intercept {texts[1]!r} (RescaleSlope,"
            " RescaleIntercept), so its HU are unknown; export it again"
        )
    return slope, intercept


def _size(a: Slice) -> str:
    return f"{by(a.shape)} pixels"


def _spacing(a: Slice) -> str:
    return f"{numbers(a.spacing)} mm"


def _orientation(a: Slice) -> str:
    return numbers(np.round(a.axes, 3) + 0.0)


def same_orientation(a: Slice, b: Slice) -> bool:
    """Whether two slices' directions are the same but for rounding to three digits."""
    return bool((np.abs(a.axes - b.axes) <= COSINE_UNIT * (1 + 1e-6)).all())


def _same_spacing(a: Slice, b: Slice) -> bool:
    return bool((np.abs(np.subtract(a.spacing, b.spacing)) <= SPACING_TOLERANCE_MM).all())


def _check_alike(
    slices: Sequence[Slice],
    what: str,
    elements: str,
    show: Callable[[Slice], str],
    same: Callable[[Slice, Slice], bool],
    name: str,
) -> None:
    kinds = group_alike(slices, same)
    if len(kinds) > 1:
        shown = [f"{count_files(kind)} with {show(kind[0])}, e.g. {kind[0].path.name}" for kind in kinds[:3]]
        raise ConflictError(
            f"{name}: its slices differ in {what}: {'; '.join(shown)} ({elements}); put each kind in a"
            " folder of its own"
        )


def group_alike(slices: Sequence[Slice], same: Callable[[Slice, Slice], bool]) -> list[list[Slice]]:
    """The slices in groups, each like the first of its group."""
    kinds: list[list[Slice]] = []
    for each in slices:
        kind = next((kind for kind in kinds if same(kind[0], each)), None)
        if kind is None:
            kinds.append([each])
        else:
            kind.append(each)
    return kinds


def count_files(files: Sequence[object]) -> str:
    """A number of files in a message: "1 file"."""
    return f"{len(files)} file{'s' if len(files) > 1 else ''}"
