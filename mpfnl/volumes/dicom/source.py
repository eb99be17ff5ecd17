"""The series that another one is derived from: the file and the identity of each of its slices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import FileDataset

from mpfnl.errors import ConflictError, DamagedError, FormatError, GridError
from mpfnl.volumes.dicom.headers import ELEMENTS, Header
from mpfnl.volumes.dicom.series import Selector, find_slices, split_selector
from mpfnl.volumes.dicom.stack import build_stack
from mpfnl.volumes.fileio import one_line, scan_name

_IDENTIFIERS = ("SOPInstanceUID", "MediaStorageSOPInstanceUID")


@dataclass(frozen=True)
class SourceSlice:
    """A slice of the source series.

    Args:
        path: Its file.
        sop_class: SOPClassUID.
        sop_instance: SOPInstanceUID.
        number: InstanceNumber, where there is one.
    """

    path: Path
    sop_class: str
    sop_instance: str
    number: int | None


@dataclass(frozen=True)
class SourceSeries:
    """A source series whose slices can be written back one by one.

    Args:
        name: Name of the series in messages.
        folder: Its folder.
        slices: Its slices in the order in which they are read: along their normal.
        shape: Number of columns, rows and slices.
        series_uid: SeriesInstanceUID.
        study_uid: StudyInstanceUID.
    """

    name: str
    folder: Path
    slices: tuple[SourceSlice, ...]
    shape: tuple[int, int, int]
    series_uid: str
    study_uid: str


def find_source(source: str | Path) -> SourceSeries:
    """Finds the slices behind a DICOM scan, one for each position, without their pixels.

    Args:
        source: Folder of one scan, `FOLDER#UID` or `FOLDER#UID@ACQUISITION`; the path that
            `mpfnl.volumes.read_volume` read.

    Raises:
        InputError: The source is no DICOM series; it was resampled when it was read (tilted gantry); its
            slices lack identifiers, or are of several studies, patients or frames of reference; or it cannot
            be read.
    """
    path = Path(source)
    name = scan_name(path)
    folder, selector = split_selector(path)
    if selector is None and not os.path.isdir(folder):
        raise FormatError(
            f"{name}: is no DICOM series, so no series can be derived from it; give the scan as a DICOM"
            " folder, or write NIfTI (NAME.nii.gz)"
        )
    found = find_slices(folder, selector or Selector(), name, (*ELEMENTS, *_IDENTIFIERS))
    chosen = [group[0] for group in found.groups]  # of copies at one position the reader takes the first, too
    stack = build_stack(chosen, name)
    if stack.lean != (0.0, 0.0):
        raise GridError(
            f"{name}: its gantry was tilted by {stack.tilt_deg:.3g} degrees, so it was resampled when it was"
            " read and its slices cannot be written back one by one; write NIfTI (NAME.nii.gz)"
        )
    slices = tuple(_source_slice(each.header, name) for each in chosen)
    _check_instances(slices, name)
    first = chosen[0]
    return SourceSeries(
        name=name,
        folder=folder,
        slices=slices,
        shape=(*first.shape, len(chosen)),
        series_uid=first.header.text("SeriesInstanceUID"),
        study_uid=first.header.text("StudyInstanceUID"),
    )


def read_dataset(path: Path, name: str) -> FileDataset:
    """Reads the whole header of a slice, private elements included, without its pixels.

    Args:
        path: The file.
        name: Name of the scan in messages.

    Raises:
        DamagedError: pydicom cannot read the file.
    """
    try:
        return dcmread(path, stop_before_pixels=True, force=True)
    except Exception as error:  # pydicom raises errors of many kinds on damaged bytes
        raise DamagedError(
            f"{name}: the header of {path.name} cannot be read ({one_line(error)}); copy the file again, or"
            " write NIfTI (NAME.nii.gz)"
        ) from error


def _source_slice(header: Header, name: str) -> SourceSlice:
    # some who scrub files empty one of the two places of these UIDs
    sop = ("SOPClassUID", "SOPInstanceUID")
    uids = {key: header.text(key) or header.text(f"MediaStorage{key}") for key in sop}
    uids |= {key: header.text(key) for key in ("StudyInstanceUID", "SeriesInstanceUID")}
    for key, uid in uids.items():
        if not uid:
            raise FormatError(
                f"{name}: {header.path.name} has no {key}, so no series can be derived from it; export it"
                " again, or write NIfTI (NAME.nii.gz)"
            )
    number = header.text("InstanceNumber")
    return SourceSlice(
        header.path,
        uids["SOPClassUID"],
        uids["SOPInstanceUID"],
        int(number) if number.lstrip("+-").isdecimal() else None,
    )


def _check_instances(slices: Sequence[SourceSlice], name: str) -> None:
    if len({each.sop_instance for each in slices}) < len(slices):
        raise ConflictError(
            f"{name}: two slices have the same SOPInstanceUID; export the series again, or write NIfTI"
            " (NAME.nii.gz)"
        )
