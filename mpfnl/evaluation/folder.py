"""The evaluation folder: where its files lie, and how its tables are written and read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mpfnl.data.csv_table import read_csv
from mpfnl.errors import FormatError
from mpfnl.files import write_text
from mpfnl.phases import Phase

CASE_TABLE = "cases.csv"
LEAK_TABLE = "phase_leak.csv"
SWAP_TABLE = "swap.csv"
STRUCTURE_TABLE = "structure.csv"
PROVENANCE = "provenance.json"
REPORT = "report.html"
FIGURES = "figures"

VOLUMES = "volumes"
"""The folder of the scans, with a folder for each study."""

MASKS = "masks"
"""The folder of the predicted masks in a study's folder."""

REFERENCE = "reference"
"""The method that is the clean scan itself: segmented, and the reference of image quality."""

BASELINE = "degraded"
"""The method that is the degraded scan itself: the comparator of every test."""


def volume_files(folder: Path, study_id: str, methods: Sequence[str], target: Phase) -> dict[str, Path]:
    """Paths of a study's scans of the target phase, by method.

    Args:
        folder: The evaluation folder.
        study_id: The study.
        methods: The methods; the reference, whose scan is the study's own, is left out.
        target: The phase that was restored.
    """
    return {
        method: degraded_file(folder, study_id, target)
        if method == BASELINE
        else folder / VOLUMES / study_id / f"{method}.nii.gz"
        for method in methods
        if method != REFERENCE
    }


def degraded_file(folder: Path, study_id: str, phase: Phase) -> Path:
    """Path of the degraded scan of a phase."""
    return folder / VOLUMES / study_id / f"{BASELINE}_{phase}.nii.gz"


def mask_file(folder: Path, study_id: str, method: str, structure: str) -> Path:
    """Path of the mask of a structure that was predicted in a method's scan.

    Args:
        folder: The evaluation folder.
        study_id: The study.
        method: The method; the reference has a predicted mask too.
        structure: The structure, by TotalSegmentator's name.
    """
    return folder / VOLUMES / study_id / MASKS / f"{method}_{structure}.nii.gz"


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes a CSV, whole or not at all; a column that a row lacks is an empty cell.

    Raises:
        OutputError: The file system refuses.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Reads the rows of a CSV that `write_table` wrote; none if there is no file.

    A spreadsheet may have saved it again.

    Raises:
        FormatError: The file has other columns, or cannot be read; see `read_csv`.
    """
    if not path.exists():
        return []
    table = read_csv(path, columns, exact=True)
    if table.columns != tuple(columns):
        raise FormatError(
            f"{path}: has other columns than an evaluation of this version writes; delete it,"
            " or choose another output folder"
        )
    return [dict(row.cells) for row in table.rows]


def number(cell: str) -> float:
    """The number in a cell, perhaps with a spreadsheet's decimal comma; NaN for an empty one.

    Raises:
        ValueError: The cell holds no number.

    >>> number("0,25")
    0.25
    """
    return float(cell.replace(",", ".", 1) or "nan")
