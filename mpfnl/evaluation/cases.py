"""The rows of `cases.csv`: one for each study and method, written after each case and read on a restart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpfnl.data.manifest import Study
from mpfnl.errors import ConflictError, FormatError
from mpfnl.evaluation.folder import CASE_TABLE, REFERENCE, number, read_table, write_table
from mpfnl.evaluation.tables.metrics import STRUCTURE_METRICS
from mpfnl.metrics.registry import image_metrics

STRUCTURE_COLUMNS = tuple(metric.column for metric in STRUCTURE_METRICS)
"""Columns of contrast and structure."""


@dataclass(frozen=True)
class Case:
    """Scores of one method on one study.

    Args:
        study_id: The study.
        patient_id: Its patient.
        method: The method: `reference`, `degraded`, a model's or a folder's name.
        psnr_db: PSNR of the windowed target phase against the reference, whole volume, in dB. NaN for the
            reference itself, and where there is no scan.
        ssim: SSIM of the same scans.
        dsc: Dice similarity coefficient, in [0, 1], of the structure segmented in this method's scan against
            the reference mask. NaN where nothing was segmented (not requested, or failed). 0 where the
            segmenter found no voxel of the structure.
        nsd: Normalized surface distance of the same masks, in [0, 1].
        failure: Reason of a failure in one line; empty if nothing failed. A row with an empty segmentation
            has a failure too, and counts in the means with its 0.
        added: Values of registered image metrics besides PSNR and SSIM, by column.
        structure: Values of contrast and structure, by column; those that could not be measured are missing.
    """

    study_id: str
    patient_id: str
    method: str
    psnr_db: float = math.nan
    ssim: float = math.nan
    dsc: float = math.nan
    nsd: float = math.nan
    failure: str = ""
    added: Mapping[str, float] = field(default_factory=dict, hash=False)
    structure: Mapping[str, float] = field(default_factory=dict, hash=False)

    @property
    def values(self) -> dict[str, float]:
        """Value of each metric by column of `cases.csv`; NaN where there is none."""
        images = {"psnr_db": self.psnr_db, "ssim": self.ssim, **self.added}
        return {column: images.get(column, math.nan) for column in image_columns()} | {
            "dsc": self.dsc,
            "nsd": self.nsd,
            **{column: self.structure.get(column, math.nan) for column in STRUCTURE_COLUMNS},
        }

    @property
    def cells(self) -> dict[str, object]:
        """The row of `cases.csv`, by column; a missing value is an empty cell."""
        values = {column: "" if math.isnan(value) else value for column, value in self.values.items()}
        names = {"study_id": self.study_id, "patient_id": self.patient_id, "method": self.method}
        return {**names, **values, "failure": self.failure}


def image_columns() -> list[str]:
    """Columns of the image metrics: PSNR, SSIM, then those that were registered."""
    return [metric.column for metric in image_metrics()]


def columns() -> list[str]:
    """The columns of `cases.csv`."""
    return list(Case("", "", "").cells)


def write_cases(path: Path, cases: Iterable[Case]) -> None:
    """Writes the rows, whole or not at all; a missing value is an empty cell."""
    write_table(path, columns(), (case.cells for case in cases))


def read_cases(path: Path) -> list[Case]:
    """Reads the rows of an earlier run; none if there is no file.

    Raises:
        FormatError: The file has other columns, or a cell of a metric holds no number.
    """
    return [_case(path, number, row) for number, row in enumerate(read_table(path, columns()), start=2)]


def _case(path: Path, line: int, row: dict[str, str]) -> Case:
    try:
        values = {
            column: number(row[column]) for column in [*image_columns(), "dsc", "nsd", *STRUCTURE_COLUMNS]
        }
    except (TypeError, ValueError):
        raise FormatError(f"{path}: line {line} has a metric that is no number; delete that line") from None
    structure = {column: values.pop(column) for column in STRUCTURE_COLUMNS}
    return Case(
        row["study_id"],
        row["patient_id"],
        row["method"],
        psnr_db=values.pop("psnr_db"),
        ssim=values.pop("ssim"),
        dsc=values.pop("dsc"),
        nsd=values.pop("nsd"),
        failure=row["failure"],
        added=values,
        structure={column: value for column, value in structure.items() if not math.isnan(value)},
    )


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
        metric: Column of the metric: one of `columns`.
    """
    values = {(case.study_id, case.method): case.values[metric] for case in cases}
    studies = studies_of(cases)
    return {
        method: [values.get((study, method), math.nan) for study in studies] for method in methods_of(cases)
    }


class CaseTable:
    """The rows of an evaluation, in memory and in `cases.csv`.

    Args:
        folder: The evaluation folder, with the rows of earlier runs.
        studies: The studies of the evaluation.
        methods: The methods with image quality, in the order of the tables.

    Raises:
        ConflictError: The folder has rows of another study or method.
    """

    def __init__(self, folder: Path, studies: Sequence[Study], methods: Sequence[str]) -> None:
        self._path = folder / CASE_TABLE
        self._rows = {(case.study_id, case.method): case for case in read_cases(self._path)}
        self._order = [(study.study_id, name) for study in studies for name in (REFERENCE, *methods)]
        foreign = [key for key in self._rows if key not in self._order]
        if foreign:
            study, method = foreign[0]
            raise ConflictError(
                f"{self._path}: has results of {method} on study {study}, which this evaluation leaves out;"
                " include them, or choose another output folder"
            )

    def get(self, study: Study, method: str) -> Case:
        """The row of a study and method; a new one if there is none."""
        return self._rows.get((study.study_id, method), self.new(study, method))

    def has(self, study: Study, method: str) -> bool:
        """Whether a study and method have a row."""
        return (study.study_id, method) in self._rows

    @staticmethod
    def new(study: Study, method: str) -> Case:
        """A row without a value."""
        return Case(study.study_id, study.patient_id, method)

    @property
    def cases(self) -> list[Case]:
        """Every row, by study and method."""
        return [self._rows[key] for key in self._order if key in self._rows]

    def scored(self, study: Study, method: str) -> bool:
        """Whether the image quality of a method's scan of a study is known."""
        return not math.isnan(self.get(study, method).psnr_db)

    def put(self, cases: Iterable[Case]) -> None:
        """Adds or replaces rows, and writes all."""
        self._rows |= {(case.study_id, case.method): case for case in cases}
        write_cases(self._path, self.cases)
