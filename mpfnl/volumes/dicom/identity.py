"""What the files of one scan share: the patient, the study and the frame of reference."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mpfnl.errors import ConflictError
from mpfnl.volumes.dicom.headers import Header
from mpfnl.volumes.dicom.slices import count_files

IDENTITY = {
    "PatientID": "patient",
    "PatientName": "patient",
    "StudyInstanceUID": "study",
    "FrameOfReferenceUID": "frame of reference",
}
"""Elements that all slices of a scan share, and what they identify; a patient's name counts where no file has
an ID. Positions in different frames of reference cannot be compared (PS3.3, C.7.4.1.1.1)."""

SHOWN_VALUES = 4

LOGGER = logging.getLogger("mpfnl.volumes")

Kinds = dict[str, list[Header]]


def same_identity(headers: Sequence[Header]) -> bool:
    """Whether files are of one patient, study and frame of reference; none needs to be named."""
    return not _differing(headers)


def check_identity(headers: Sequence[Header], remedy: str, name: str) -> None:
    """Refuses files that are not of one patient, study and frame of reference.

    A UID of its own in each of three or more files was replaced file by file, and tells nothing.

    Args:
        headers: The headers of a scan.
        remedy: What to do, in a message.
        name: Name of the scan in messages.

    Raises:
        ConflictError: They differ. The message tells how many files have each value, and no value.
    """
    for key, kinds in _differing(headers).items():
        (_, first), (_, second), *_ = kinds.items()
        counts = [f"{count_files(kind)}{'' if value else ' without it'}" for value, kind in kinds.items()]
        shown = ", ".join(counts[:SHOWN_VALUES]) + (", ..." if len(counts) > SHOWN_VALUES else "")
        raise ConflictError(
            f"{name}: {first[0].path.name} and {second[0].path.name} are not of one {IDENTITY[key]} ({key}):"
            f" it has {len(kinds)} values in one series ({shown}); {remedy}"
        )
    for key in IDENTITY:
        if _was_replaced(key, _kinds(headers, key)):
            LOGGER.info("%s: each file has a %s of its own, which tells nothing", name, key)


def identity_labels(headers: Sequence[Header]) -> list[str]:
    """A label for each file that tells patients, studies and frames apart, such as `frame-2`; no value.

    Args:
        headers: The headers of a series.

    Returns:
        Labels, numbered in the order of the values; empty where nothing differs.
    """
    labels: list[list[str]] = [[] for _ in headers]
    for key, kinds in _differing(headers).items():
        number = {value: index for index, value in enumerate(sorted(kinds), start=1)}
        for header, own in zip(headers, labels, strict=True):
            own.append(f"{IDENTITY[key].split()[0]}-{number[header.text(key)]}")
    return ["+".join(own) for own in labels]


def _differing(headers: Sequence[Header]) -> dict[str, Kinds]:
    """The files by the value of each element in which they differ."""
    kinds = {key: _kinds(headers, key) for key in IDENTITY}
    if any(header.text("PatientID") for header in headers):
        del kinds["PatientName"]
    return {key: each for key, each in kinds.items() if len(each) > 1 and not _was_replaced(key, each)}


def _kinds(headers: Sequence[Header], key: str) -> Kinds:
    kinds: Kinds = {}
    for header in headers:
        kinds.setdefault(header.text(key), []).append(header)
    return kinds


def _was_replaced(key: str, kinds: Kinds) -> bool:
    each_its_own = all(len(kind) == 1 for kind in kinds.values())
    return key.endswith("UID") and len(kinds) > 2 and each_its_own and "" not in kinds
