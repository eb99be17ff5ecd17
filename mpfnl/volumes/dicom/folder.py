"""The DICOM files of a folder: which series they make up, and what lies beside the slices of CT."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.uid import UID, CTImageStorage, SecondaryCaptureImageStorage

from mpfnl.errors import ConflictError, DamagedError, FormatError, NotFoundError
from mpfnl.volumes.dicom.headers import ELEMENTS, Header, check_whole, is_dicom, read_any_header
from mpfnl.volumes.dicom.slices import MULTI_FRAME, count_files, is_localizer
from mpfnl.volumes.fileio import one_line

SHORTEST_ENDING = 8
"""Characters that the ending of a UID must have to name a series: longer than a series number gets."""

SHOWN_ENDING = 12
SHOWN_SERIES = 4
SHOWN_FILES = 3
LONGEST_DESCRIPTION = 40

SCOUT_FILES = 2
"""Scout views of one direction in a series; three slices are a stack."""

SCOUT_ANGLE_DEG = 45.0
"""The least angle between a scout view and the slices, which a gantry tilts by 30 degrees at most."""

PAGE = "page"
"""What a colour image or a page of text is called, which a station saved among the slices."""

PLACE = "ImagePositionPatient"

IMAGE_PLANE = (PLACE, "ImageOrientationPatient", "PixelSpacing")
"""The elements that tell where a slice lies (PS3.3, C.7.6.2)."""

PAGE_WORDS = ("DERIVED", "SECONDARY", "OTHER")
"""Values of ImageType that a page has and the slices beside it may not have."""

Passed = dict[str, list[Path]]
"""Files that are passed over, by what they are."""


@dataclass(frozen=True)
class SeriesHeaders:
    """The headers of one series of a folder.

    Args:
        headers: Those of its slices of CT; of all its files where none is one.
        scouts: Those of files across the slices, which do not say that they are localizers.
        passed: The other files of the folder.
        ending: What names the series after a #: its UID or the end of it; empty where it has none.
    """

    headers: list[Header]
    scouts: list[Header]
    passed: Passed
    ending: str


def read_headers(folder: Path, uid: str, name: str, keywords: Sequence[str] = ELEMENTS) -> SeriesHeaders:
    """The headers of the one series of CT in a folder, or of the one that is named.

    Args:
        folder: The folder. Its subfolders, hidden files, a DICOMDIR and files that are not DICOM are not
            looked at.
        uid: The SeriesInstanceUID, or its ending; empty where there is one series.
        name: Name of the scan in messages.
        keywords: Elements to read, `ELEMENTS` among them.

    Raises:
        InputError: There is no such folder; it has no DICOM, or a DICOM file of which nobody can tell to
            which series it belongs; it has several series of CT and none is named, or not the one that is
            named.
    """
    files, passed = dicom_files(folder, name)
    if not files:
        raise NotFoundError(
            f"{name}: is a folder without DICOM files; give the folder that holds the slices themselves"
        )
    series: dict[str, list[Header]] = {}
    for file in files:
        header = read_any_header(file, name, keywords)
        key = header.text("SeriesInstanceUID")
        if not key and not header.whole and (other := what_else(header)):
            passed.setdefault(other, []).append(file)  # a report that does not say of which series it is
            continue
        if not key:
            check_whole(header, name)
        series.setdefault(key, []).append(header)
    if not series:
        raise FormatError(f"{name}: holds no image, but {_counted(passed)}; give a series of CT slices")
    chosen = _select(series, uid, folder, name)
    slices = _slices(series[chosen]) or series[chosen]
    kept = {header.path for header in slices}
    for each, headers in series.items():
        rest = PAGE if each == chosen else "CT of other series"
        for header in headers:
            if header.path not in kept:
                passed.setdefault(what_else(header) or rest, []).append(header.path)
    slices, scouts = _without_scouts(slices)
    return SeriesHeaders(slices, scouts, passed, _ending(chosen, series))


def what_else(header: Header) -> str | None:
    """What a file is if it is no slice of CT, as far as it says; None for a slice."""
    kind = header.text("SOPClassUID") or header.text("MediaStorageSOPClassUID")
    modality = header.text("Modality")
    captured = kind == SecondaryCaptureImageStorage and _is_placed(header) and modality == "CT"
    if kind and kind not in (CTImageStorage, *MULTI_FRAME) and not captured:
        return UID(kind).name
    if not kind and modality not in ("", "CT"):
        return f"Modality {modality}"
    if kind in MULTI_FRAME and (header.number("NumberOfFrames") or 1) > 1:
        return UID(kind).name
    if any(word.upper().startswith("SCREEN") for word in header.parts("ImageType")):
        return "screen save"
    return "localizer" if is_localizer(header) else None


def _without_pages(headers: Sequence[Header]) -> list[Header]:
    """The headers without those of pages that a station saved among the slices as if they were CT.

    A page lacks its place or has colours, and tells that it is no slice. A slice that only lost its position
    is like the others, and stays; so does a file that ends within its header.
    """
    slices = [header for header in headers if _may_be_slice(header)]
    return [header for header in headers if _may_be_slice(header) or not _is_page(header, slices)]


def _may_be_slice(header: Header) -> bool:
    return _is_placed(header) and not _is_coloured(header) and not _is_multi_frame(header)


def _is_page(header: Header, slices: Sequence[Header]) -> bool:
    """Whether an image differs from all slices in kind or size, or has no image plane at all."""
    if not slices or not header.whole:
        return False
    words = {word.upper() for each in slices for word in each.parts("ImageType")}
    if any(word in PAGE_WORDS and word not in words for word in map(str.upper, header.parts("ImageType"))):
        return True
    placed = _is_placed(header)
    if placed and _is_multi_frame(header):  # of one frame: a slice, unless there is another in its place
        return any(each.parts(PLACE) == header.parts(PLACE) for each in slices)
    look = ("Rows", "Columns") if placed else ("Rows", "Columns", "PhotometricInterpretation")
    own = [header.text(keyword) for keyword in look]
    if all(own) and all([each.text(keyword) for keyword in look] != own for each in slices):
        return True
    return not placed and not any(map(header.parts, IMAGE_PLANE))


def _is_placed(header: Header) -> bool:
    return bool(header.parts(PLACE) and header.parts("ImageOrientationPatient"))


def _is_coloured(header: Header) -> bool:
    return (header.number("SamplesPerPixel") or 1) > 1


def passed_over(passed: Passed) -> str:
    """What was passed over, in words: "Dose SR (1 file: dose.dcm), localizer (2 files: a, b)"."""
    return ", ".join(f"{what} ({_files(files)})" for what, files in sorted(passed.items()))


def _files(files: Sequence[Path]) -> str:
    shown = ", ".join(file.name for file in files[:SHOWN_FILES])
    return f"{count_files(files)}: {shown}{', ...' if len(files) > SHOWN_FILES else ''}"


def _counted(passed: Passed) -> str:
    return ", ".join(f"{what} ({count_files(files)})" for what, files in sorted(passed.items()))


def dicom_files(folder: Path, name: str) -> tuple[list[Path], Passed]:
    """The DICOM files of a folder by name, whatever their suffix, and those that are passed over.

    Args:
        folder: The folder. Its subfolders and hidden files are not looked at.
        name: Name of the scan in messages.

    Raises:
        InputError: There is no such folder, or it cannot be read.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise NotFoundError(f"{name}: there is no folder {folder}; check the path") from error
    except OSError as error:
        raise DamagedError(f"{name}: cannot be read ({one_line(error)}); check the folder") from error
    paths = [Path(entry.path) for entry in entries if not entry.name.startswith(".") and not entry.is_dir()]
    files = [path for path in paths if path.name.upper() != "DICOMDIR" and is_dicom(path, name)]
    known = set(files)
    others = [path for path in paths if path not in known]
    return files, {"not a DICOM image": others} if others else {}


def _select(series: Mapping[str, Sequence[Header]], uid: str, folder: Path, name: str) -> str:
    if not uid:
        stacks = _stacks(series)
        with_slices = [each for each, headers in series.items() if _slices(headers)]
        candidates = stacks or with_slices or _multi_frame(series) or list(series)
        if len(candidates) == 1:
            return candidates[0]
        listed = {each: _slices(series[each]) or series[each] for each in candidates}
        if not with_slices:
            raise FormatError(
                f"{name}: holds {len(listed)} series, none of them with slices of CT: {_listed(listed)};"
                " give a series of CT slices"
            )
        raise ConflictError(
            f"{name}: holds {len(listed)} series: {_listed(listed)}; put each in a folder of its own, or name"
            f" one as {folder.name}#UID (what is shown of it will do)"
        )
    if uid in series:
        return uid
    ending = [other for other in series if len(uid) >= SHORTEST_ENDING and other.endswith(uid)]
    if len(ending) == 1:
        return ending[0]
    what = "two series end in" if ending else "there is no series"
    held = _listed(series)
    raise NotFoundError(f"{name}: {what} {uid} in it; it holds {held}: name one as {folder.name}#UID")


def _slices(headers: Sequence[Header]) -> list[Header]:
    return _without_pages([header for header in headers if what_else(header) is None])


def _multi_frame(series: Mapping[str, Sequence[Header]]) -> list[str]:
    """The first series of multi-frame CT, which is refused for that reason; none where there is none."""
    return [each for each, headers in series.items() if any(map(_is_multi_frame, headers))][:1]


def _is_multi_frame(header: Header) -> bool:
    return header.text("SOPClassUID") in MULTI_FRAME


def _stacks(series: Mapping[str, Sequence[Header]]) -> list[str]:
    """The series that may be scans; not one of a few images that lie across the slices of a larger one."""
    stacks = [each for each, headers in series.items() if _is_stack(each, headers)]
    slices = {each: _slices(series[each]) for each in stacks}
    largest = max(stacks, key=lambda each: len(slices[each]), default="")
    return [
        each
        for each in stacks
        if not each or each == largest or not _without_scouts([*slices[largest], *slices[each]])[1]
    ]


def _is_stack(uid: str, headers: Sequence[Header]) -> bool:
    """Whether a series may be a scan: slices of one direction at several positions, or nobody can tell.

    A single image, or images at one position (a bolus tracked over time), are none; nor are colours and
    multi-frame CT, which cannot be read. Slices of no series may belong to any.
    """
    slices = _slices(headers)
    if not slices or not uid:
        return bool(slices)
    slices = [each for each in slices if not _is_multi_frame(each) and not _is_coloured(each)]
    kinds = _directions(slices) or [slices]
    return any(len({header.text(PLACE) for header in kind}) > 1 for kind in kinds)


def _directions(headers: Sequence[Header]) -> list[list[Header]]:
    """The headers whose images lie about in one direction together; none where one does not say so."""
    kinds: dict[tuple[float, ...], list[Header]] = {}
    for header in headers:
        axes = header.numbers("ImageOrientationPatient", 6)
        if axes is None:
            return []
        normal = np.cross(axes[:3], axes[3:])
        near = [kind for kind in kinds if abs(normal @ kind) > np.cos(np.radians(SCOUT_ANGLE_DEG))]
        kinds.setdefault(near[0] if near else tuple(normal.tolist()), []).append(header)
    return list(kinds.values())


def _without_scouts(headers: list[Header]) -> tuple[list[Header], list[Header]]:
    """The headers without the few of images that lie across all others, and those."""
    kinds = _directions(headers)
    largest = max(kinds, key=len, default=[])
    others = [kind for kind in kinds if kind is not largest]
    if len(largest) <= SCOUT_FILES or any(len(kind) > SCOUT_FILES for kind in others):
        return headers, []
    return largest, [header for kind in others for header in kind]


def _ending(uid: str, series: Mapping[str, object]) -> str:
    """The shortest text that names a series in a message and after a #."""
    ending = uid[-SHOWN_ENDING:]
    return ending if sum(other.endswith(ending) for other in series) == 1 else uid


def _listed(series: Mapping[str, Sequence[Header]]) -> str:
    ordered = sorted(series.items(), key=lambda item: (-len(item[1]), item[0]))
    shown = [_series_label(uid, headers, _ending(uid, series)) for uid, headers in ordered[:SHOWN_SERIES]]
    more = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _series_label(uid: str, headers: Sequence[Header], ending: str) -> str:
    header = headers[0]
    number = header.text("SeriesNumber")
    description = header.text("SeriesDescription")[:LONGEST_DESCRIPTION]
    words = [f"number {number}" if number else "one", f"{description!r}" if description else ""]
    shown = f"UID {'' if ending == uid else '..'}{ending}" if uid else "no UID"
    return f"{' '.join(word for word in words if word)} ({count_files(headers)}, {shown})"
