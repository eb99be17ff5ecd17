"""The rows of `cases.csv`: one a case and method, written after each case and read back on a restart."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mpfnl.errors import InputError
from mpfnl.files import write_text

REFERENCE = "reference"
"""The method that is the clean scan itself: segmented, and compared with in image quality."""

BASELINE = "degraded"
"""The method that is the degraded scan itself: what the others are tested against."""


@dataclass(frozen=True)
class Case:
    """How one method did on one study.

    Args:
        study_id: The study.
        patient_id: Its patient.
        method: The method: `reference`, `degraded`, a model's or a folder's name.
        psnr_db: PSNR of the windowed target phase against the reference, whole volume, in dB. NaN for the
            reference itself, and where there is no scan.
        ssim: SSIM likewise.
        dsc: Dice similarity coefficient, in [0, 1], of the structure that was segmented in this method's scan
            against the reference mask. NaN where nothing was segmented: not asked for, or failed. 0 where the
            segmenter found no voxel of the structure.
        nsd: Normalized surface distance likewise.
        failure: One line that says what went wrong; empty if nothing did. A row with an empty segmentation
            has a failure too, and counts in the means with its 0.
    """

    study_id: str
    patient_id: str
    method: str
    psnr_db: float = math.nan
    ssim: float = math.nan
    dsc: float = math.nan
    nsd: float = math.nan
    failure: str = ""


COLUMNS = [field.name for field in fields(Case)]
METRICS = ("psnr_db", "ssim", "dsc", "nsd")


def write_cases(path: Path, cases: Iterable[Case]) -> None:
    """Writes the rows, whole or not at all; a value that is not there is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for case in cases:
        row = asdict(case)
        writer.writerow(row | {name: "" for name in METRICS if math.isnan(row[name])})
    write_text(path, text.getvalue())


def read_cases(path: Path) -> list[Case]:
    """Reads the rows that an earlier run wrote; none if there is no file.

    Raises:
        InputError: If the file is not one of these.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise InputError(f"{path}: not a table of cases of this mpfnl; give another output folder")
        return [_case(path, number, row) for number, row in enumerate(reader, start=2)]


def _case(path: Path, line: int, row: dict[str, str]) -> Case:
    try:
        values = {name: float(row[name] or "nan") for name in METRICS}
    except (TypeError, ValueError):
        raise InputError(f"{path}: line {line} has no number where one belongs; delete that line") from None
    return Case(row["study_id"], row["patient_id"], row["method"], failure=row["failure"], **values)


def methods_of(cases: Sequence[Case]) -> list[str]:
    """The methods, in the order of the rows."""
    return list(dict.fromkeys(case.method for case in cases))


def studies_of(cases: Sequence[Case]) -> list[str]:
    """The studies, in the order of the rows."""
    return list(dict.fromkeys(case.study_id for case in cases))


def values_by_method(cases: Sequence[Case], metric: str) -> dict[str, list[float]]:
    """The values of one metric for each method, all in the same order of studies.

    Args:
        cases: Rows; a method without a row for a study gets NaN there.
        metric: A column: `psnr_db`, `ssim`, `dsc` or `nsd`.
    """
    found = {(case.study_id, case.method): float(getattr(case, metric)) for case in cases}
    studies = studies_of(cases)
    return {
        method: [found.get((study, method), math.nan) for study in studies] for method in methods_of(cases)
    }
