"""What the files of one scan share: the patient, the study and the frame of reference."""

from __future__ import annotations

from collections.abc import Sequence

from mpfnl.errors import ConflictError
from mpfnl.volumes.dicom.headers import Header
from mpfnl.volumes.dicom.slices import count_files

IDENTITY = {
    "PatientID": "patient",
    "StudyInstanceUID": "study",
    "FrameOfReferenceUID": "frame of reference",
}
"""Elements that all slices of a scan share, and what they identify. Positions in different frames of
reference cannot be compared (PS3.3, C.7.4.1.1.1)."""

SHOWN_VALUES = 4


def same_identity(headers: Sequence[Header]) -> bool:
    """Whether files are of one patient, study and frame of reference; none needs to be named."""
    return all(len({header.text(key) for header in headers}) == 1 for key in IDENTITY)


def check_identity(headers: Sequence[Header], remedy: str, name: str) -> None:
    """Refuses files that are not of one patient, study and frame of reference.

    Args:
        headers: The headers of a scan.
        remedy: What to do, in a message.
        name: Name of the scan in messages.

    Raises:
        ConflictError: They differ. The message tells how many files have each value, and no value.
    """
    for key, identified in IDENTITY.items():
        kinds: dict[str, list[Header]] = {}
        for header in headers:
            kinds.setdefault(header.text(key), []).append(header)
        if len(kinds) > 1:
            (_, first), (_, second), *_ = kinds.items()
            counts = [f"{count_files(kind)}{'' if value else ' without it'}" for value, kind in kinds.items()]
            shown = ", ".join(counts[:SHOWN_VALUES]) + (", ..." if len(counts) > SHOWN_VALUES else "")
            raise ConflictError(
                f"{name}: {first[0].path.name} and {second[0].path.name} are not of one {identified} ({key}):"
                f" it has {len(kinds)} values in one series ({shown}); {remedy}"
            )
