"""The CSV of a manifest: reading, checking and writing."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from mpfnl.data.manifest.study import MASK_COLUMNS, Manifest, Quality, Split, Study
from mpfnl.errors import ConflictError, DamagedError, FormatError, InputError, NotFoundError
from mpfnl.files import atomic_file
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes.scan import scan_exists

PHASE_COLUMNS = tuple(phase.value for phase in PHASES)
REQUIRED = ("study_id", "patient_id", "split", *PHASE_COLUMNS)
OPTIONAL_PHASES = tuple(phase.value for phase in Phase if phase not in PHASES)
FILE_COLUMNS = (*PHASE_COLUMNS, *OPTIONAL_PHASES, *MASK_COLUMNS)
QUALITY = "quality"
COLUMNS = (*REQUIRED, *OPTIONAL_PHASES, *MASK_COLUMNS, QUALITY)
IDENTIFIERS = ("study_id", "patient_id")


def read_manifest(path: str | Path, check_files: bool = True) -> Manifest:
    r"""Reads a manifest and checks it.

    Args:
        path: CSV in UTF-8 with commas. The first row names the columns, in any order; paths are relative to
            the CSV.
        check_files: Whether every file must exist.

    Returns:
        The studies, with paths joined to the folder of the CSV.

    Raises:
        NotFoundError: The manifest or a file in it does not exist.
        FormatError: The file is not a CSV or has no studies; a column is missing or unknown; a cell is empty;
            an identifier cannot name a folder; a split or quality is unknown; a file is empty.
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
    (_, header), *rows = _read_rows(path)
    _check_columns(path, header)
    if not rows:
        raise FormatError(f"{path}: has no studies; add one row a study")
    problems: list[InputError] = []
    studies: list[tuple[int, Study]] = []
    for number, cells in rows:
        faults = _check_row(header, cells)
        problems += [FormatError(f"row {number}, {fault}") for fault in faults]
        if not faults:
            studies.append((number, _study(path.parent, dict(zip(header, cells, strict=True)))))
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
        for fault in _check_row(columns, cells)
    ]
    _raise_first(path, [*problems, *_conflicts(list(enumerate(manifest, 2)))])
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())
    return manifest


def _read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, numbered as in a spreadsheet; the header is the first."""
    if path.is_dir():
        raise FormatError(f"{path}: is a folder; give the manifest's CSV file")
    if not path.exists():
        raise NotFoundError(f"{path}: there is no such manifest; check the path")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = list(enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), 1))
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not text in UTF-8; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise FormatError(f"{path}: is not a CSV ({error}); save it as CSV with commas") from error
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    stripped = [(number, [cell.strip() for cell in cells]) for number, cells in rows]
    filled = [(number, cells) for number, cells in stripped if any(cells)]
    if not filled:
        raise FormatError(f"{path}: is empty; its first row must be {','.join(REQUIRED)}")
    return filled


def _check_columns(path: Path, header: Sequence[str]) -> None:
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise FormatError(f"{path}: its columns are not separated by commas; save it as CSV with commas")
    problems: list[str] = []
    for column in header:
        if column not in COLUMNS:
            near = get_close_matches(column.lower(), COLUMNS, n=1)
            advice = f"did you mean {near[0]}?" if near else f"the columns are {', '.join(COLUMNS)}"
            problems.append(f"unknown column {column!r}; {advice}")
    problems += [f"column {column} is missing; add it" for column in REQUIRED if column not in header]
    problems += [f"column {column} appears twice; keep one" for column in COLUMNS if header.count(column) > 1]
    _raise_first(path, [FormatError(problem) for problem in problems])


def _check_row(header: Sequence[str], cells: Sequence[str]) -> list[str]:
    if len(cells) != len(header):
        return [f"study {cells[0]!r}: it has {len(cells)} cells instead of {len(header)}; check the commas"]
    row = dict(zip(header, cells, strict=True))
    study = f"study {row['study_id']!r}"
    problems = []
    for column in REQUIRED:
        if not row[column]:
            name = f"{Phase(column).label} phase's file" if column in PHASE_COLUMNS else column
            problems.append(f"{study}: its {name} is empty; fill in column {column}")
    problems += [
        f"{study}: its {column} {row[column]!r} cannot name a folder; use no '/', no '\\' and no control"
        " character, nor '.' or '..' alone"
        for column in IDENTIFIERS
        if not _names_a_folder(row[column])
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
    files = {column: folder / cell for column, cell in row.items() if column in FILE_COLUMNS and cell}
    return Study(
        study_id=row["study_id"],
        patient_id=row["patient_id"],
        split=Split(row["split"]),
        scans={phase: files[phase] for phase in Phase if phase in files},
        masks={column: files[column] for column in MASK_COLUMNS if column in files},
        quality=Quality(row[QUALITY]) if row.get(QUALITY) else None,
    )


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
        if not scan_exists(path):
            yield NotFoundError(f"{name}: there is no file {path}; correct column {column}")
        elif path.is_file() and path.stat().st_size == 0:
            yield FormatError(f"{name}: the file {path} is empty; copy or convert it again")


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
