"""The rows of `cases.csv`: one a case and method, written after each case and read back on a restart."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mpfnl.errors import InputError
from mpfnl.files import write_text


@dataclass(frozen=True)
class Case:
    """How one method did on one study.

    Args:
        study_id: The study.
        patient_id: Its patient.
        method: The method.
        psnr_db: PSNR of the windowed target phase against the reference, whole volume, in dB.
        ssim: SSIM likewise.
    """

    study_id: str
    patient_id: str
    method: str
    psnr_db: float
    ssim: float


COLUMNS = [field.name for field in fields(Case)]


def write_cases(path: Path, cases: Iterable[Case]) -> None:
    """Writes the rows, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(case) for case in cases)
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
        return [
            Case(row["study_id"], row["patient_id"], row["method"], float(row["psnr_db"]), float(row["ssim"]))
            for row in reader
        ]


def values_by_method(cases: Sequence[Case], metric: str) -> dict[str, list[float]]:
    """The values of one metric for each method, all in the same order of studies.

    Args:
        cases: Rows; a method without a row for a study gets NaN there.
        metric: A column: `psnr_db` or `ssim`.
    """
    studies = list(dict.fromkeys(case.study_id for case in cases))
    methods = list(dict.fromkeys(case.method for case in cases))
    found = {(case.study_id, case.method): float(getattr(case, metric)) for case in cases}
    return {method: [found.get((study, method), float("nan")) for study in studies] for method in methods}
