"""Folder of a prepared cohort: its files, the record of a study, and the key of a study's work."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mpfnl.data.manifest import Study
from mpfnl.errors import InputError
from mpfnl.files import file_digest
from mpfnl.phases import Phase
from mpfnl.prepare.settings import PrepareSettings
from mpfnl.volumes.fileio import scan_name
from mpfnl.volumes.masks import split_labels
from mpfnl.volumes.scan import content_files

MANIFEST = "cohort.csv"
FAILURES = "failures.csv"
SETTINGS = "prepare.json"
INDEX = "index.html"
STUDIES = "studies"
WORK = ".work"  # during a run only
RECORD = "record.json"
SHEET = "sheet.png"

VERSION = 2
"""Version of the method; the work of an earlier one, which marked no uncovered voxels, is repeated."""

PACKAGES = ("antspyx", "SimpleITK", "numpy", "scipy")
"""Packages that determine the result; a record holds their versions."""


def file_name(column: str) -> str:
    """File of a manifest column: scans uncompressed, since patches are read from them; masks compressed."""
    return f"{column}.nii" if column in tuple(Phase) else f"{column}.nii.gz"


def study_key(study: Study, settings: PrepareSettings) -> str:
    """Key of a study's work: a hash of the content of its files and of the settings.

    File names and folders play no part, nor do the versions of the libraries: a newer version does not
    invalidate finished work.

    Raises:
        InputError: A file cannot be read.
    """
    inputs = {phase.value: _content(study.file(phase), phase) for phase in study.phases}
    inputs |= {column: _content(split_labels(path)[0]) for column, path in study.masks.items()}
    plain = {"inputs": inputs, "settings": settings.to_json(), "version": VERSION}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _content(path: Path, phase: Phase | None = None) -> list[str]:
    try:
        return sorted(file_digest(file) for file in content_files(path))
    except InputError as error:
        raise type(error)(str(error).replace(str(path), scan_name(path, phase), 1)) from None


def read_record(folder: Path) -> dict[str, Any]:
    """The record of a prepared study."""
    record: dict[str, Any] = json.loads((folder / RECORD).read_text("utf-8"))
    return record


def is_prepared(folder: Path, key: str) -> bool:
    """Whether a folder holds the work of this key, with every file that its record names."""
    try:
        record = read_record(folder)
        return record["key"] == key and all((folder / name).is_file() for name in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def versions() -> dict[str, str | None]:
    """The installed versions of `PACKAGES`; None for a package that is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def without_paths(study: Study, reason: str) -> str:
    """A message with each path of the study replaced by its column: folders may be named after patients."""
    columns = {str(study.file(phase).absolute()): phase.value for phase in study.phases}
    columns |= {str(split_labels(path)[0].absolute()): column for column, path in study.masks.items()}
    for path in sorted(columns, key=len, reverse=True):
        reason = reason.replace(path, f"<{columns[path]}>")
    return reason
