"""The CSV of a manifest: reading, checking and writing."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from mpfnl.data.csv_table import read_csv, turned_into_number
from mpfnl.data.manifest.study import MASK_COLUMNS, Manifest, Quality, Split, Study, mask_column, mask_phase
from mpfnl.errors import ConflictError, FormatError, InputError, NotFoundError
from mpfnl.files import atomic_file
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes.masks import mask_exists, split_labels
from mpfnl.volumes.scan import scan_exists

PHASE_COLUMNS = tuple(phase.value for phase in PHASES)
REQUIRED = ("study_id", "patient_id", "split", *PHASE_COLUMNS)
OPTIONAL_PHASES = tuple(phase.value for phase in Phase if phase not in PHASES)
FILE_COLUMNS = (*PHASE_COLUMNS, *OPTIONAL_PHASES, *MASK_COLUMNS)
QUALITY = "quality"
COLUMNS = (*REQUIRED, *OPTIONAL_PHASES, *MASK_COLUMNS, QUALITY)
NEEDED = ("study_id", "patient_id", "split", Phase.PORTAL_VENOUS.value)
"""Columns of which no cell is empty; a study may lack any other phase."""
IDENTIFIERS = ("study_id", "patient_id")
MISSING = ("NA", "N/A", "NAN", "NONE", "NULL", "<NA>")
"""Marks for an empty cell of R, pandas and others, in any case."""


def read_manifest(path: str | Path, check_files: bool = True) -> Manifest:
    r"""Reads a manifest and checks it.

    Args:
        path: CSV as `read_csv` understands it. The first row names the columns, in any order; paths are
            relative to the CSV, with slashes or Windows' backslashes. The cell of a phase that a study lacks
            is empty; no study lacks the portal venous phase. A mask in a column `pancreas` may be
            `FILE#LABEL`.
        check_files: Whether every file must exist.

    Returns:
        The studies, with paths joined to the folder of the CSV.

    Raises:
        NotFoundError: The manifest or a file in it does not exist.
        FormatError: The file is not a CSV or has no studies; a column is missing, unknown or there twice; a
            cell is empty that is needed; an identifier cannot name a folder; a split or quality is unknown; a
            file is empty.
        ConflictError: A study appears twice, or a patient is in two splits.

    The message states the first problem and the number of others.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "cohort.csv"
    ...     _ = path.write_text(f"{','.join(REQUIRED)}\ns1,p1,train,1.nii,2.nii,3.nii\n")
    ...     study = read_manifest(path, check_files=False).studies[0]
    >>> study.file(Phase.ARTERIAL).name
    '2.nii'
    """
    path = Path(path)
    table = read_csv(path, REQUIRED, COLUMNS)
    _check_columns(path, table.columns)
    if not table.rows:
        raise FormatError(f"{path}: has no studies; add one row a study")
    problems: list[InputError] = []
    studies: list[tuple[int, Study]] = []
    for row in table.rows:
        cells = _filled(path.parent, row.cells)
        short = f" ({row.count} cells for {len(table.columns)} columns)" if row.count < len(REQUIRED) else ""
        faults = _check_row(cells, short)
        if not faults:
            study = _study(path.parent, cells)
            studies.append((row.number, study))
            faults = _label_faults(study)
        problems += [FormatError(f"row {row.number}, {fault}") for fault in faults]
    problems += _conflicts(studies)
    if check_files:
        problems += [problem for number, study in studies for problem in _file_problems(number, study)]
    _raise_first(path, problems)
    return Manifest(path, tuple(study for _, study in studies))


def write_manifest(path: str | Path, studies: Iterable[Study]) -> Manifest:
    """Writes a manifest, complete or not at all, with paths relative to it.

    Args:
        path: CSV to write; an existing file is replaced.
        studies: Studies of the cohort, at least one.

    Returns:
        The manifest written.

    Raises:
        FormatError: There is no study, or an identifier is empty or cannot name a folder.
        ConflictError: A study appears twice, or a patient is in two splits.
        OutputError: The file cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     scans = {phase: Path(folder) / f"{phase}.nii" for phase in PHASES}
    ...     manifest = write_manifest(Path(folder) / "cohort.csv", [Study("s1", "p1", Split.TEST, scans)])
    ...     print(manifest.path.read_text().splitlines()[1])
    s1,p1,test,noncontrast.nii,arterial.nii,portal_venous.nii
    """
    path = Path(path)
    manifest = Manifest(path, tuple(studies))
    if not manifest.studies:
        raise FormatError(f"{path}: has no studies; give at least one")
    columns = REQUIRED + tuple(c for c in OPTIONAL_PHASES if any(c in study.phases for study in manifest))
    columns += tuple(c for c in MASK_COLUMNS if any(c in study.masks for study in manifest))
    columns += (QUALITY,) if any(study.quality for study in manifest) else ()
    rows = [[_cell(path.parent, study, column) for column in columns] for study in manifest]
    problems: list[InputError] = [
        FormatError(f"row {number}, {fault}")
        for number, cells in enumerate(rows, 2)
        for fault in _check_row(dict(zip(columns, cells, strict=True)))
    ]
    _raise_first(path, [*problems, *_conflicts(list(enumerate(manifest, 2)))])
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
    return manifest


def _check_columns(path: Path, header: Sequence[str]) -> None:
    problems: list[str] = []
    for column in header:
        if column not in COLUMNS:
            near = get_close_matches(column.lower(), COLUMNS, n=1)
            advice = f"did you mean {near[0]}?" if near else f"the columns are {', '.join(COLUMNS)}"
            problems.append(f"unknown column {column!r}; {advice}")
    problems += [f"column {column} is missing; add it" for column in REQUIRED if column not in header]
    _raise_first(path, [FormatError(problem) for problem in problems])


def _filled(folder: Path, row: Mapping[str, str]) -> dict[str, str]:
    """The cells of a row, with splits and qualities in lower case and no marks for a missing file."""
    cells = dict(row)
    for column in FILE_COLUMNS:
        cell = cells.get(column, "")
        if cell.upper() in MISSING and not os.path.lexists(folder / cell):
            cells[column] = ""
    for column in ("split", QUALITY):
        if column in cells:
            cells[column] = cells[column].lower()
    if cells.get(QUALITY, "").upper() in MISSING:
        cells[QUALITY] = ""
    return cells


def _check_row(row: Mapping[str, str], short: str = "") -> list[str]:
    study = f"study {row['study_id']!r}"
    problems = []
    for column in NEEDED:
        if not row[column]:
            name = f"{Phase(column).label} phase's file" if column in PHASE_COLUMNS else column
            problems.append(f"{study}: its {name} is empty{short}; fill in column {column}")
    problems += [
        f"{study}: its {column} {row[column]!r} cannot name a folder; use no '/', no '\\' and no control"
        " character, nor '.' or '..' alone"
        for column in IDENTIFIERS
        if not _names_a_folder(row[column])
    ]
    problems += [
        f"{study}: its {column} {row[column]!r} is a number that a spreadsheet made of it; enter it as text"
        for column in IDENTIFIERS
        if turned_into_number(row[column])
    ]
    if row["split"] and row["split"] not in tuple(Split):
        problems.append(f"{study}: unknown split {row['split']!r}; use {', '.join(Split)}")
    if row.get(QUALITY) and row[QUALITY] not in tuple(Quality):
        problems.append(
            f"{study}: unknown quality {row[QUALITY]!r}; use {', '.join(Quality)} or leave it empty"
        )
    return problems


def _names_a_folder(identifier: str) -> bool:
    """Whether an identifier can name a folder; the check for empty cells reports an empty one."""
    if identifier.strip() in (".", ".."):
        return False
    return not any(letter in "/\\" or unicodedata.category(letter) == "Cc" for letter in identifier)


def _study(folder: Path, row: dict[str, str]) -> Study:
    files = {column: _place(folder, column, row[column]) for column in FILE_COLUMNS if row.get(column)}
    return Study(
        study_id=row["study_id"],
        patient_id=row["patient_id"],
        split=Split(row["split"]),
        scans={phase: files[phase] for phase in Phase if phase in files},
        masks={column: files[column] for column in MASK_COLUMNS if column in files},
        quality=Quality(row[QUALITY]) if row.get(QUALITY) else None,
    )


def _place(folder: Path, column: str, cell: str) -> Path:
    """The file of a cell: as it stands, or where nothing lies there, as the name was before it was copied.

    Windows writes backslashes, and quotes around a copied path; macOS and Linux store accents in two ways.
    """
    exists = mask_exists if column in MASK_COLUMNS else scan_exists
    bare = cell[1:-1] if len(cell) > 2 and cell[0] == cell[-1] == '"' else cell
    slashes = bare.replace("\\", "/")
    forms = [unicodedata.normalize(form, slashes) for form in ("NFC", "NFD")]
    names = list(dict.fromkeys([cell, bare, slashes, *forms]))
    if len(names) == 1:
        return folder / cell
    return next((folder / name for name in names if exists(folder / name)), folder / slashes)


def _label_faults(study: Study) -> list[str]:
    """The columns of whole label maps that name a label, which would stand for any structure."""
    columns = [mask_column("labels", phase) for phase in Phase]
    return [
        f"study {study.study_id!r}: its {column} {study.masks[column].name!r} names a label, and the column"
        " holds whole label maps; name the file alone, and a label of the pancreas in column"
        f" {mask_column('pancreas', mask_phase(column))}"
        for column in columns
        if column in study.masks and split_labels(study.masks[column])[1]
    ]


def _conflicts(studies: Sequence[tuple[int, Study]]) -> list[InputError]:
    problems: list[InputError] = []
    rows: dict[str, int] = {}
    splits: dict[str, tuple[int, Split]] = {}
    for number, study in studies:
        name = f"row {number}, study {study.study_id!r}"
        first_row = rows.setdefault(study.study_id, number)
        if first_row != number:
            problems.append(
                ConflictError(f"{name}: it is in row {first_row} already; give each study_id once")
            )
        row, split = splits.setdefault(study.patient_id, (number, study.split))
        if split is not study.split:
            problems.append(
                ConflictError(
                    f"{name}: patient {study.patient_id!r} is in split {study.split} here and in split"
                    f" {split} in row {row}; put each patient in one split"
                )
            )
    return problems


def _file_problems(number: int, study: Study) -> Iterator[InputError]:
    files = {phase.value: path for phase, path in study.scans.items()} | dict(study.masks)
    for column, path in files.items():
        scan = f"{column} reference" if column in study.masks else f"{Phase(column).label} phase"
        name = f"row {number}, study {study.study_id!r}, {scan}"
        file = split_labels(path)[0] if column in study.masks else path
        if not scan_exists(file):
            yield NotFoundError(f"{name}: there is no file {file}; correct column {column}")
        elif file.is_file() and file.stat().st_size == 0:
            yield FormatError(f"{name}: the file {file} is empty; copy or convert it again")


def _cell(folder: Path, study: Study, column: str) -> str:
    if column in FILE_COLUMNS:
        path = study.scans[Phase(column)] if column in study.phases else study.masks.get(column)
        return "" if path is None else _relative(path, folder)
    if column == QUALITY:
        return study.quality or ""
    return {"study_id": study.study_id, "patient_id": study.patient_id, "split": study.split.value}[column]


def _relative(path: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:  # another drive
        return path.absolute().as_posix()


def _raise_first(path: Path, problems: Sequence[InputError]) -> None:
    """Raises the first problem in its kind, with the number of the others."""
    if problems:
        others = len(problems) - 1
        more = f" (and {others} more problem{'s' if others > 1 else ''})" if others else ""
        raise type(problems[0])(f"{path}: {problems[0]}{more}")
