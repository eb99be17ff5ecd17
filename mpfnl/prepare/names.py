"""What lies where in a prepared cohort's folder."""

from __future__ import annotations

from mpfnl.phases import Phase

MANIFEST = "cohort.csv"
FAILURES = "failures.csv"
SETTINGS = "prepare.json"
INDEX = "index.html"
STUDIES = "studies"
WORK = ".work"  # only while a run is at work
RECORD = "record.json"
SHEET = "sheet.png"


def file_name(column: str) -> str:
    """The file of a manifest's column: phases unpacked, to read patches from; masks packed."""
    return f"{column}.nii" if column in tuple(Phase) else f"{column}.nii.gz"
