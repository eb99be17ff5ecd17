"""Which files of a folder make up the scan."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from mpfnl.errors import InputError
from mpfnl.volumes.dicom.headers import Header, Tag, is_dicom, read_header
from mpfnl.volumes.fileio import one_line

SHORTEST_ENDING = 8
"""Characters that the ending of a UID must have to name a series: longer than a series number gets."""

SHOWN_ENDING = 12
SHOWN_SERIES = 4
LONGEST_DESCRIPTION = 40


def split_selector(path: Path) -> tuple[Path, str | None]:
    """A path and the series that it names: `FOLDER#UID` is the series UID in FOLDER.

    Args:
        path: A path as it was given. One that exists names itself, whatever is in it.

    Returns:
        The folder and the UID, or the path and None.
    """
    found = re.fullmatch(r"(.+)#([0-9.]+)", str(path))
    if found is None or os.path.exists(path):
        return path, None
    return Path(found[1]), found[2]


def read_headers(folder: Path, uid: str | None, name: str) -> list[Header]:
    """The headers of the one series in a folder, or of the one that is named.

    Args:
        folder: The folder. Its subfolders, hidden files, a DICOMDIR and files that are not DICOM are not
            looked at.
        uid: The SeriesInstanceUID, or its ending; None where there is one series.
        name: How messages name the scan.

    Raises:
        InputError: There is no such folder; it has no DICOM, or a DICOM file that cannot be read; it has
            several series and none is named, or not the one that is named.
    """
    files = _dicom_files(folder, name)
    if not files:
        raise InputError(
            f"{name}: is a folder without DICOM files; give the folder that holds the slices themselves"
        )
    series: dict[str, list[Header]] = {}
    for file in files:
        header = read_header(file, name)
        series.setdefault(header.text(Tag.SERIES_UID), []).append(header)
    return series[_select(series, uid, folder, name)]


def _dicom_files(folder: Path, name: str) -> list[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError as error:
        raise InputError(f"{name}: there is no folder {folder}; check the path") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({one_line(error)}); check the folder") from error
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
        raise InputError(
            f"{name}: holds {len(series)} series: {_listed(series)}; put each in a folder of its own, or name"
            f" one as {folder.name}#UID (the last {SHOWN_ENDING} characters do)"
        )
    if uid in series:
        return uid
    ending = [other for other in series if len(uid) >= SHORTEST_ENDING and other.endswith(uid)]
    if len(ending) == 1:
        return ending[0]
    what = "two series end in" if ending else "there is no series"
    raise InputError(f"{name}: {what} {uid} in it; it holds {_listed(series)}: name one by its whole UID")


def _listed(series: Mapping[str, Sequence[Header]]) -> str:
    ordered = sorted(series.items(), key=lambda item: (-len(item[1]), item[0]))
    shown = [_described(uid, headers) for uid, headers in ordered[:SHOWN_SERIES]]
    more = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _described(uid: str, headers: Sequence[Header]) -> str:
    header = headers[0]
    number = header.text(Tag.SERIES_NUMBER)
    description = header.text(Tag.SERIES_DESCRIPTION)[:LONGEST_DESCRIPTION]
    words = [f"number {number}" if number else "one", f"{description!r}" if description else ""]
    files = f"{len(headers)} file{'s' if len(headers) > 1 else ''}"
    ending = f"UID ..{uid[-SHOWN_ENDING:]}" if uid else "no UID"
    return f"{' '.join(word for word in words if word)} ({files}, {ending})"
