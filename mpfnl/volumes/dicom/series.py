"""One series of a folder: which files make it up, and the scan that they hold."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import ConflictError, DamagedError, FormatError, GridError, InputWarning, NotFoundError
from mpfnl.volumes.dicom.acquisitions import Split, by_place, numbered_scan, split_scans
from mpfnl.volumes.dicom.folder import SeriesHeaders, passed_over, read_headers
from mpfnl.volumes.dicom.headers import ELEMENTS, is_dicom
from mpfnl.volumes.dicom.identity import check_identity, identity_labels, same_identity
from mpfnl.volumes.dicom.pixels import read_pixels, read_stack
from mpfnl.volumes.dicom.slices import Slice, check_alike, count_files, make_slice
from mpfnl.volumes.dicom.stack import build_stack, coarse_unit, is_regular, order, same_place, straighten
from mpfnl.volumes.fileio import check_shape, numbers
from mpfnl.volumes.formats import Format, StoredArray
from mpfnl.volumes.grid import Affine, Grid

SHOWN_SCANS = 6

LOGGER = logging.getLogger("mpfnl.volumes")


@dataclass(frozen=True)
class Selector:
    """What names a scan in a folder: `UID@ACQUISITION`.

    Args:
        uid: The SeriesInstanceUID, or its ending; empty where the folder has one series.
        acquisition: The label of the acquisition; empty where the series has one.
    """

    uid: str = ""
    acquisition: str = ""


class DicomFormat(Format):
    """A folder with one scan in CT slices, or one scan of a folder that holds several."""

    def matches(self, path: Path) -> bool:
        """Whether the path is a folder, names a series, or is a DICOM file."""
        return split_selector(path)[1] is not None or os.path.isdir(path) or _is_dicom_file(path)

    def exists(self, path: Path) -> bool:
        """Whether the folder exists."""
        folder, selector = split_selector(path)
        return os.path.exists(folder) if selector is None else os.path.isdir(folder)

    def open(self, path: Path, name: str) -> StoredArray:
        """Reads the series; see `read_series`."""
        folder, selector = split_selector(path)
        if selector is None and not os.path.isdir(path):
            raise FormatError(f"{name}: is a single DICOM file; give the folder that holds the whole series")
        return read_series(folder, selector or Selector(), name)

    def files(self, path: Path, name: str) -> list[Path]:
        """The files of the series in the order of their positions; see `series_files`."""
        folder, selector = split_selector(path)
        if selector is None and not os.path.isdir(path):
            return super().files(path, name)
        return series_files(folder, selector or Selector(), name)


def split_selector(path: Path) -> tuple[Path, Selector | None]:
    """A path and the scan that it names: `FOLDER#UID`, `FOLDER#UID@ACQUISITION` or `FOLDER#@ACQUISITION`.

    Args:
        path: A path as it was given. One that exists names itself, whatever is in it. What follows the # of
            a folder is no name of a scan: it names a series that the folder does not hold.

    Returns:
        The folder and what names the scan, or the path and None.
    """
    folder, mark, name = str(path).rpartition("#")
    if not mark or not folder or os.path.exists(path):
        return path, None
    match = re.fullmatch(r"(?:\.\.)?([0-9.]*)(?:@([\w.+-]+))?", name, re.ASCII)
    if match is not None and (match[1] or match[2]):
        return Path(folder), Selector(match[1], match[2] or "")
    other = not re.fullmatch(r"[\w.@+-]*", name, re.ASCII) or re.search(r"\.[A-Za-z]", name)  # as in a#b.nii
    return (path, None) if other or not os.path.isdir(folder) else (Path(folder), Selector(name or mark))


def read_series(folder: Path, selector: Selector, name: str) -> StoredArray:
    """Reads one scan of CT slices from a folder.

    Slices are put in order by their position. Values below -1024 HU, which fill the area outside the
    scan, become -1024. A stack that leans (tilted gantry) is resampled onto right angles.

    Args:
        folder: The folder; its subfolders are not searched.
        selector: Series and acquisition, where there are several.
        name: Name of the scan in messages.

    Raises:
        InputError: The series is not one regular stack of CT slices; `docs/reading.md` lists the reasons.

    Warns:
        InputWarning: The stack was resampled onto right angles.
    """
    found = find_slices(folder, selector, name)
    if found.series.passed:
        LOGGER.info("%s: passed over: %s", name, passed_over(found.series.passed))
    chosen, planes = _one_a_position(found, name)
    stack = build_stack(chosen, name)
    check_shape((*chosen[0].shape, len(chosen)), name)
    hu = read_stack(chosen, name, planes)
    if stack.lean == (0.0, 0.0):
        return _on_grid(hu, stack.affine(), stack.rounding)
    warnings.warn(
        f"{name}: its gantry was tilted by {stack.tilt_deg:.3g} degrees; its slices were moved onto a grid"
        " with right angles by linear interpolation",
        InputWarning,
        stacklevel=2,
    )
    return _on_grid(*straighten(hu, stack))


def _on_grid(
    hu: NDArray[Any], affine: Affine, rounding: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> StoredArray:
    x, y, z = hu.shape
    return StoredArray(hu, Grid((x, y, z), affine, rounding=rounding), states_hu=True)


def series_files(folder: Path, selector: Selector, name: str) -> list[Path]:
    """The files of one scan in the order of their positions; two at one position by name.

    Args:
        folder: The folder.
        selector: Series and acquisition, where there are several.
        name: Name of the scan in messages.

    Raises:
        InputError: The folder does not hold one scan of CT slices.
    """
    return [each.path for group in find_slices(folder, selector, name).groups for each in group]


@dataclass(frozen=True)
class FoundSlices:
    """The slices of one scan.

    Args:
        groups: The slices in the order of their positions, those at one position together.
        series: The headers of their series.
        folder: The folder.
    """

    groups: list[list[Slice]]
    series: SeriesHeaders
    folder: Path


def find_slices(
    folder: Path, selector: Selector, name: str, keywords: Sequence[str] = ELEMENTS
) -> FoundSlices:
    """The slices of one scan in a folder, without their pixels.

    Args:
        folder: The folder.
        selector: Series and acquisition, where there are several.
        name: Name of the scan in messages.
        keywords: Elements of the headers to read, `ELEMENTS` among them.

    Raises:
        InputError: The folder does not hold one scan of CT slices, or not the one that is named.
    """
    series = read_headers(folder, selector.uid, name, keywords)
    slices = _without_scouts(series, name)
    slices = _chosen(slices, selector.acquisition, series, folder, name)
    check_alike(slices, name)
    return FoundSlices(order(slices), series, folder)


def _without_scouts(series: SeriesHeaders, name: str) -> list[Slice]:
    """The slices of a series; scout views are passed over if they differ in size, or the rest is a stack."""
    slices = [make_slice(header, name) for header in series.headers]
    scouts = series.scouts
    if not scouts:
        return slices
    size = ("Columns", "Rows", "PixelSpacing")
    sizes = [{tuple(map(each.text, size)) for each in headers} for headers in (series.headers, scouts)]
    groups = order(slices)
    whole = len(groups) == len(slices) and is_regular([each for group in groups for each in group])
    if not whole and sizes[0] & sizes[1]:
        return slices + [make_slice(header, name) for header in scouts]
    series.passed.setdefault("scout view across the slices", []).extend(each.path for each in scouts)
    return slices


def _chosen(
    slices: list[Slice], acquisition: str, series: SeriesHeaders, folder: Path, name: str
) -> list[Slice]:
    """The slices of the only acquisition, or of the one that is named.

    Raises:
        InputError: There are several patients, studies, frames of reference or acquisitions, and none is
            named; all slices have one position; or there is no acquisition of that name.
    """
    headers = [each.header for each in slices]
    places = np.array([each.position for each in slices])
    if len(slices) > 1 and (places == places[0]).all():
        raise GridError(
            f"{name}: all {len(slices)} slices have one ImagePositionPatient, {numbers(places[0])}, so"
            " nobody can tell where each lies; export the series again with its positions"
        )
    split = split_scans(slices)
    if acquisition:
        slices = _named(slices, split, acquisition, series, folder, name)
        check_identity([each.header for each in slices], "put each in a folder of its own", name)
        return slices
    apart = len(split.scans) > 1
    each_whole = all(same_identity([each.header for each in scan]) for scan in split.scans.values())
    offered = split if apart and each_whole else Split((), _identities(slices))
    remedy = (
        _offered(offered, series, folder) if len(offered.scans) > 1 else "put each in a folder of its own"
    )
    check_identity(headers, remedy, name)
    if apart:
        double = [group for group in by_place(slices) if len(group) > 1]
        what = f"{len(split.scans)} acquisitions, which differ in {' and '.join(split.elements)}"
        if double:
            a, b, *_ = double[0]
            raise ConflictError(
                f"{name}: two slices lie at one position {_pair(a, b, double)}, so the series holds {what};"
                f" {remedy}"
            )
        (a, *_), (b, *_), *_ = split.scans.values()
        raise ConflictError(
            f"{name}: the series holds {what}, such as {a.path.name} and {b.path.name}; {remedy}"
        )
    counted = {header.text("AcquisitionNumber") for header in headers}
    if len(counted) > 1:
        LOGGER.info("%s: %d acquisitions continue each other, and are one scan", name, len(counted))
    return slices


def _named(
    slices: list[Slice], split: Split, acquisition: str, series: SeriesHeaders, folder: Path, name: str
) -> list[Slice]:
    """The slices of the acquisition that is named.

    Raises:
        InputError: There is none of that name, or the name fits several scans.
    """
    if acquisition not in split.scans:
        split = split_scans(slices, copies=True)
    if acquisition in split.scans:
        return split.scans[acquisition]
    identities = _identities(slices)
    named = numbered_scan(slices, acquisition) or identities.get(acquisition, [])
    if not named:
        offered = split if len(split.scans) > 1 or not identities else Split((), identities)
        raise NotFoundError(
            f"{name}: there is no acquisition {acquisition}; {_offered(offered, series, folder)}"
        )
    own = set(map(id, named))
    parts = {each: scan for each, scan in split.scans.items() if own & set(map(id, scan))}
    several = Split(split.elements, parts) if len(parts) > 1 else split_scans(named)
    if len(several.scans) > 1:
        remedy = _offered(several, series, folder) if len(parts) > 1 else "put each in a folder of its own"
        raise ConflictError(
            f"{name}: {acquisition} is the name of {len(several.scans)} acquisitions ({count_files(named)}),"
            f" which differ in {' and '.join(several.elements)}; {remedy}"
        )
    return named


def _identities(slices: Sequence[Slice]) -> dict[str, list[Slice]]:
    """The slices of each patient, study and frame of reference; empty where one has a single slice."""
    parts: dict[str, list[Slice]] = {}
    for each, own in zip(slices, identity_labels([each.header for each in slices]), strict=True):
        if own:
            parts.setdefault(own, []).append(each)
    return dict(sorted(parts.items())) if all(len(part) > 1 for part in parts.values()) else {}


def _offered(split: Split, series: SeriesHeaders, folder: Path) -> str:
    """The names of the scans, as they can be copied."""
    if len(split.scans) < 2:
        return f"the series is one scan: name it as {folder}#{series.ending}, or give its folder"
    shown = [f"@{each} ({count_files(scan)})" for each, scan in list(split.scans.items())[:SHOWN_SCANS]]
    more = len(split.scans) - len(shown)
    return f"name one as {folder}#{series.ending}{', '.join(shown)}{f' and {more} more' if more else ''}"


def _one_a_position(found: FoundSlices, name: str) -> tuple[list[Slice], dict[Slice, NDArray[Any]]]:
    """One slice of each position, and the pixels of those that had to be compared.

    Raises:
        InputError: Two slices at one position are not the same.
    """
    planes: dict[Slice, NDArray[Any]] = {}
    for group in found.groups:
        first, *copies = group
        for other in copies:
            if first not in planes:
                planes[first] = read_pixels(first, name)
            if not same_place(first, other) or not np.array_equal(planes[first], read_pixels(other, name)):
                raise _overlapping(found, first, other, name)
    return [group[0] for group in found.groups], planes


def _overlapping(found: FoundSlices, a: Slice, b: Slice, name: str) -> ConflictError:
    """The error for a series in which two different slices lie at one position."""
    double = [group for group in found.groups if len(group) > 1]
    split = split_scans([each for group in found.groups for each in group], copies=True)
    remedy = "put each in a folder of its own"
    if len(split.scans) > 1:
        remedy = (
            f"they differ in {' and '.join(split.elements)}: {_offered(split, found.series, found.folder)}"
        )
    unit = coarse_unit([each for group in found.groups for each in group])
    where = f"two different slices lie at one position {_pair(a, b, double)}"
    if unit is not None and split.elements in ((), ("InstanceNumber",)):
        other = "" if len(split.scans) == 1 else f", or if they are acquisitions, {remedy}"
        return ConflictError(
            f"{name}: {where}: the series holds several acquisitions, or its positions (ImagePositionPatient)"
            f" are rounded to {unit:.2g} mm; export it again with full positions{other}"
        )
    return ConflictError(f"{name}: {where}, so the series holds several acquisitions; {remedy}")


def _pair(a: Slice, b: Slice, double: Sequence[object]) -> str:
    count = f"{len(double)} position{'s' if len(double) > 1 else ''}"
    return f"({a.path.name} and {b.path.name}; {count} in all)"


def _is_dicom_file(path: Path) -> bool:
    try:
        return os.path.isfile(path) and is_dicom(path, str(path))
    except DamagedError:
        return False
