"""One series of a folder: which files make it up, and the scan that they hold."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import ConflictError, DamagedError, FormatError, InputWarning, NotFoundError
from mpfnl.volumes.dicom.headers import ELEMENTS, Header, is_dicom, read_header
from mpfnl.volumes.dicom.pixels import read_pixels, read_stack
from mpfnl.volumes.dicom.slices import Slice, check_slices
from mpfnl.volumes.dicom.stack import build_stack, order, overlapping, same_place, straighten
from mpfnl.volumes.fileio import check_shape, one_line
from mpfnl.volumes.formats import Format, StoredArray
from mpfnl.volumes.grid import Affine, Grid

SHORTEST_ENDING = 8
"""Characters that the ending of a UID must have to name a series: longer than a series number gets."""

SHOWN_ENDING = 12
SHOWN_SERIES = 4
LONGEST_DESCRIPTION = 40


class DicomFormat(Format):
    """A folder with one series of CT slices, or one series of a folder that holds several."""

    def matches(self, path: Path) -> bool:
        """Whether the path is a folder, names a series, or is a DICOM file."""
        return split_selector(path)[1] is not None or os.path.isdir(path) or _is_dicom_file(path)

    def exists(self, path: Path) -> bool:
        """Whether the folder exists."""
        folder, uid = split_selector(path)
        return os.path.exists(folder) if uid is None else os.path.isdir(folder)

    def open(self, path: Path, name: str) -> StoredArray:
        """Reads the series; see `read_series`."""
        folder, uid = split_selector(path)
        if uid is None and not os.path.isdir(path):
            raise FormatError(f"{name}: is a single DICOM file; give the folder that holds the whole series")
        return read_series(folder, uid, name)

    def files(self, path: Path, name: str) -> list[Path]:
        """The files of the series in the order of their positions; see `series_files`."""
        folder, uid = split_selector(path)
        if uid is None and not os.path.isdir(path):
            return super().files(path, name)
        return series_files(folder, uid, name)


def split_selector(path: Path) -> tuple[Path, str | None]:
    """A path and the series that it names: `FOLDER#UID` is the series UID in FOLDER.

    Args:
        path: A path as it was given. One that exists names itself, whatever is in it.

    Returns:
        The folder and the UID, or the path and None.
    """
    match = re.fullmatch(r"(.+)#([0-9.]+)", str(path))
    if match is None or os.path.exists(path):
        return path, None
    return Path(match[1]), match[2]


def read_series(folder: Path, uid: str | None, name: str) -> StoredArray:
    """Reads one series of CT slices from a folder.

    Slices are put in order by their position. Values below -1024 HU, which fill the area outside the
    scan, become -1024. A stack that leans (tilted gantry) is resampled onto right angles.

    Args:
        folder: The folder; its subfolders are not searched.
        uid: The SeriesInstanceUID of the series, or its ending; None where there is one.
        name: Name of the scan in messages.

    Returns:
        Voxels (x, y, z) in HU: columns, rows, and slices along their normal.

    Raises:
        InputError: The series is not one regular stack of CT slices; `docs/reading.md` lists the reasons.

    Warns:
        InputWarning: The stack was resampled onto right angles.
    """
    slices = check_slices(read_headers(folder, uid, name), name)
    chosen, planes = _one_a_position(order(slices), name)
    stack = build_stack(chosen, name)
    check_shape((*chosen[0].shape, len(chosen)), name)
    hu = read_stack(chosen, name, planes)
    if stack.lean == (0.0, 0.0):
        return _on_grid(hu, stack.affine())
    warnings.warn(
        f"{name}: its gantry was tilted by {stack.tilt_deg:.3g} degrees; its slices were moved onto a grid"
        " with right angles by linear interpolation",
        InputWarning,
        stacklevel=2,
    )
    return _on_grid(*straighten(hu, stack))


def _on_grid(hu: NDArray[Any], affine: Affine) -> StoredArray:
    x, y, z = hu.shape
    return StoredArray(hu, Grid((x, y, z), affine))


def series_files(folder: Path, uid: str | None, name: str) -> list[Path]:
    """The files of one series in the order of their positions; two at one position by name.

    Args:
        folder: The folder.
        uid: SeriesInstanceUID of the series, or its ending; None where there is one series.
        name: Name of the scan in messages.

    Raises:
        InputError: The folder does not hold one series of CT slices.
    """
    slices = check_slices(read_headers(folder, uid, name), name)
    return [each.path for group in order(slices) for each in group]


def read_headers(
    folder: Path, uid: str | None, name: str, keywords: Sequence[str] = ELEMENTS
) -> list[Header]:
    """The headers of the one series in a folder, or of the one that is named.

    Args:
        folder: The folder. Its subfolders, hidden files, a DICOMDIR and files that are not DICOM are not
            looked at.
        uid: The SeriesInstanceUID, or its ending; None where there is one series.
        name: Name of the scan in messages.
        keywords: Elements to read, `ELEMENTS` among them.

    Raises:
        InputError: There is no such folder; it has no DICOM, or a DICOM file that cannot be read; it has
            several series and none is named, or not the one that is named.
    """
    files = _dicom_files(folder, name)
    if not files:
        raise NotFoundError(
            f"{name}: is a folder without DICOM files; give the folder that holds the slices themselves"
        )
    series: dict[str, list[Header]] = {}
    for file in files:
        header = read_header(file, name, keywords)
        series.setdefault(header.text("SeriesInstanceUID"), []).append(header)
    return series[_select(series, uid, folder, name)]


def _dicom_files(folder: Path, name: str) -> list[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise NotFoundError(f"{name}: there is no folder {folder}; check the path") from error
    except OSError as error:
        raise DamagedError(f"{name}: cannot be read ({one_line(error)}); check the folder") from error
    files = [
        Path(entry.path)
        for entry in entries
        if not entry.name.startswith(".") and entry.name.upper() != "DICOMDIR" and not entry.is_dir()
    ]
    return [file for file in files if is_dicom(file, name)]


def _select(series: Mapping[str, Sequence[Header]], uid: str | None, folder: Path, name: str) -> str:
    if uid is None:
        if len(series) == 1:
            return next(iter(series))
        raise ConflictError(
            f"{name}: holds {len(series)} series: {_listed(series)}; put each in a folder of its own, or name"
            f" one as {folder.name}#UID (the last {SHOWN_ENDING} characters do)"
        )
    if uid in series:
        return uid
    ending = [other for other in series if len(uid) >= SHORTEST_ENDING and other.endswith(uid)]
    if len(ending) == 1:
        return ending[0]
    what = "two series end in" if ending else "there is no series"
    raise NotFoundError(f"{name}: {what} {uid} in it; it holds {_listed(series)}: name one by its whole UID")


def _listed(series: Mapping[str, Sequence[Header]]) -> str:
    ordered = sorted(series.items(), key=lambda item: (-len(item[1]), item[0]))
    shown = [_series_label(uid, headers) for uid, headers in ordered[:SHOWN_SERIES]]
    more = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _series_label(uid: str, headers: Sequence[Header]) -> str:
    header = headers[0]
    number = header.text("SeriesNumber")
    description = header.text("SeriesDescription")[:LONGEST_DESCRIPTION]
    words = [f"number {number}" if number else "one", f"{description!r}" if description else ""]
    files = f"{len(headers)} file{'s' if len(headers) > 1 else ''}"
    ending = f"UID ..{uid[-SHOWN_ENDING:]}" if uid else "no UID"
    return f"{' '.join(word for word in words if word)} ({files}, {ending})"


def _one_a_position(groups: list[list[Slice]], name: str) -> tuple[list[Slice], dict[Slice, NDArray[Any]]]:
    """One slice of each position, and the pixels of those that had to be compared.

    Raises:
        InputError: Two slices at one position are not the same.
    """
    planes: dict[Slice, NDArray[Any]] = {}
    for group in groups:
        first, *copies = group
        for other in copies:
            if first not in planes:
                planes[first] = read_pixels(first, name)
            if not same_place(first, other) or not np.array_equal(planes[first], read_pixels(other, name)):
                raise overlapping(groups, first, other, name)
    return [group[0] for group in groups], planes


def _is_dicom_file(path: Path) -> bool:
    try:
        return os.path.isfile(path) and is_dicom(path, str(path))
    except DamagedError:
        return False
