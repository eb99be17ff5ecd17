"""The series that another one is derived from: which file each slice came from, and what identifies it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydicom import config, dcmread
from pydicom.dataset import FileDataset

from mpfnl.errors import InputError
from mpfnl.volumes.dicom.series import read_headers, split_selector
from mpfnl.volumes.dicom.slices import check_slices
from mpfnl.volumes.dicom.stack import build_stack, order
from mpfnl.volumes.fileio import one_line, scan_name

_IDENTITY = {
    "StudyInstanceUID": "study",
    "PatientID": "patient",
    "FrameOfReferenceUID": "frame of reference",
}
"""What all slices of a series share."""


@dataclass(frozen=True)
class OriginSlice:
    """A slice of the source series.

    Args:
        path: Its file.
        sop_class: Its SOPClassUID.
        sop_instance: Its SOPInstanceUID.
        number: Its InstanceNumber, where it has one.
    """

    path: Path
    sop_class: str
    sop_instance: str
    number: int | None


@dataclass(frozen=True)
class Origin:
    """A source series whose slices can be written back one by one.

    Args:
        name: How messages name it.
        folder: Its folder.
        slices: Its slices in the order in which they are read: along their normal.
        shape: The number of columns, rows and slices.
        series: Its SeriesInstanceUID.
        study: Its StudyInstanceUID.
    """

    name: str
    folder: Path
    slices: tuple[OriginSlice, ...]
    shape: tuple[int, int, int]
    series: str
    study: str


def find_origin(source: str | Path) -> Origin:
    """Finds the slices behind a DICOM scan, one for each position, without their pixels.

    Args:
        source: The folder of one series, or `FOLDER#UID`; what `mpfnl.volumes.read_volume` read.

    Raises:
        InputError: It is no DICOM series; it was resampled when it was read (tilted gantry); its slices do
            not say what they are, or are of several studies, patients or frames of reference; or it cannot
            be read.
    """
    path = Path(source)
    name = scan_name(path)
    folder, uid = split_selector(path)
    if uid is None and not os.path.isdir(folder):
        raise InputError(
            f"{name}: is no DICOM series, so no series can be derived from it; give the scan as a DICOM"
            " folder, or write NIfTI (NAME.nii.gz)"
        )
    groups = order(check_slices(read_headers(folder, uid, name), name))
    kept = [group[0] for group in groups]  # of copies at one position the reader takes the first, too
    stack = build_stack(kept, name)
    if stack.lean != (0.0, 0.0):
        raise InputError(
            f"{name}: its gantry was tilted by {stack.tilt_deg:.3g} degrees, so it was resampled when it was"
            " read and its slices cannot be written back one by one; write NIfTI (NAME.nii.gz)"
        )
    with tolerant():
        identities, slices = zip(*(_identified(each.path, name) for each in kept), strict=True)
    _check_one(identities, slices, name)
    return Origin(
        name=name,
        folder=folder,
        slices=slices,
        shape=(*kept[0].shape, len(kept)),
        series=identities[0]["SeriesInstanceUID"],
        study=identities[0]["StudyInstanceUID"],
    )


@contextmanager
def tolerant() -> Iterator[None]:
    """In it, pydicom neither refuses nor complains about values that break a rule: the source's are kept."""
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def read_dataset(path: Path, name: str, tags: list[str] | None = None) -> FileDataset:
    """Reads a slice's whole header with pydicom, private elements included, pixels not.

    Args:
        path: The file.
        name: How messages name the scan.
        tags: Only these elements, by keyword.

    Raises:
        InputError: pydicom cannot read it.
    """
    try:
        return dcmread(path, stop_before_pixels=True, force=True, specific_tags=tags)
    except Exception as error:  # whatever a parser makes of foreign bytes
        raise InputError(
            f"{name}: the header of {path.name} cannot be read ({one_line(error)}); copy the file again, or"
            " write NIfTI (NAME.nii.gz)"
        ) from error


def _identified(path: Path, name: str) -> tuple[dict[str, str], OriginSlice]:
    wanted = [*_IDENTITY, "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID", "InstanceNumber"]
    data = read_dataset(path, name, wanted)
    text = {key: _text(data.get(key)) for key in wanted}
    for key in ("SOPClassUID", "SOPInstanceUID"):  # some who scrub files empty one of the two places
        text[key] = text[key] or _text(data.file_meta.get(f"MediaStorage{key}"))
    for key in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"):
        if not text[key]:
            raise InputError(
                f"{name}: {path.name} has no {key}, so no series can be derived from it; export it again, or"
                " write NIfTI (NAME.nii.gz)"
            )
    number = int(text["InstanceNumber"]) if text["InstanceNumber"].lstrip("+-").isdecimal() else None
    return text, OriginSlice(path, text["SOPClassUID"], text["SOPInstanceUID"], number)


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _check_one(identities: tuple[dict[str, str], ...], slices: tuple[OriginSlice, ...], name: str) -> None:
    for key, what in _IDENTITY.items():
        for identity, each in zip(identities, slices, strict=True):
            if identity[key] != identities[0][key]:
                raise InputError(
                    f"{name}: {slices[0].path.name} and {each.path.name} are not of one {what} ({key}); give"
                    " a series of one study, or write NIfTI (NAME.nii.gz)"
                )
    if len({each.sop_instance for each in slices}) < len(slices):
        raise InputError(
            f"{name}: two slices have the same SOPInstanceUID; export the series again, or write NIfTI"
            " (NAME.nii.gz)"
        )
