"""Tables as spreadsheets and statistics programs save them: the one reader of manifests and labels.csv."""

from __future__ import annotations

import codecs
import csv
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpfnl.errors import DamagedError, FormatError, InputWarning, NotFoundError

DELIMITERS = (",", ";", "\t")

BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like that of UTF-16, and so comes first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),  # Excel's "Unicode text"
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

OTHER_FILES = {
    b"PK\x03\x04": "an Excel or OpenDocument workbook",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"\x1f\x8b": "compressed",
}
"""First bytes of files that are taken for tables."""

SAVE = "save it as CSV in UTF-8"

ROW_NAMES = ("", "Unnamed: 0")
"""Headers of the column of row names that R and pandas write in front."""

_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[ ,;]*(?:\r\n|\r|\n)', re.IGNORECASE)
_FORMULA = re.compile(r'="([^"]*)"')
_SCIENTIFIC = re.compile(r"\d(?:[.,]\d+)?E\+\d\d+")
_ERRORS = ("#NAME?", "#REF!", "#VALUE!", "#N/A", "#DIV/0!", "#NUM!", "#NULL!")


@dataclass(frozen=True)
class CsvRow:
    """A row of a table.

    Args:
        number: Number of the row, as a spreadsheet counts; the header has 1.
        cells: Cells by column, without surrounding spaces; a missing one is empty.
        count: Number of cells in the file, without empty ones at the end.
    """

    number: int
    cells: Mapping[str, str]
    count: int


@dataclass(frozen=True)
class CsvTable:
    """A table.

    Args:
        path: CSV file.
        columns: Names of the columns, as their reader knows them.
        rows: Rows that are not empty.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[CsvRow, ...]


def read_csv(
    path: Path, needed: Sequence[str], known: Sequence[str] = (), *, exact: bool = False
) -> CsvTable:
    r"""Reads a table as spreadsheets save it.

    Commas, semicolons or tabs separate the cells: whichever makes the header hold most of the needed columns.
    Text is UTF-8, UTF-16 or UTF-32 with a byte-order mark, or UTF-16 without one; other text is read as
    Windows-1252. Lines end with LF, CRLF or CR. Excel's line `sep=;`, the quotes around whole lines, `="..."`
    around a cell, empty cells left out or added at the end of a row (Excel does both), empty lines, and the
    column of row names that R and pandas write are understood. Names of columns may differ in case, and in
    spaces for underscores.

    Args:
        path: CSV file.
        needed: Columns that tell which mark separates the cells; whether all are there, the caller checks.
        known: Other columns that the table may have.
        exact: Whether spaces around a cell belong to it.

    Raises:
        NotFoundError: There is no such file.
        FormatError: The file is a folder, a workbook, no text or empty; a quote is not closed; a row has more
            cells than the header, or repeats it; a cell holds an error of a spreadsheet.
        DamagedError: The file cannot be read.

    Warns:
        InputWarning: The text is not UTF-8 and was read as Windows-1252.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder) / "labels.csv"
    ...     _ = path.write_text("Study;Label;Note\r\n1.2.3;Venous\r\n")
    ...     table = read_csv(path, ["Study", "Label"])
    >>> table.columns, dict(table.rows[0].cells)
    (('Study', 'Label', 'Note'), {'Study': '1.2.3', 'Label': 'Venous', 'Note': ''})
    """
    text = _text(path)
    line = _SEPARATOR_LINE.match(text)
    marks = (line[1], *DELIMITERS) if line else DELIMITERS
    text = text[line.end() :] if line else text
    names = (*needed, *known)
    mark = max(marks, key=lambda each: _fit(text, each, needed))
    rows = [(number, cells) for number, cells in _parsed(path, text, mark, exact) if cells]
    if not rows:
        raise FormatError(f"{path}: is empty; its first row must be {','.join(needed)}")
    columns = [_column(name, names) for name in rows[0][1]]
    if not set(columns) & set(names):
        first = ",".join(rows[0][1])
        raise FormatError(
            f"{path}: its first row, {first[:60]!r}, names none of the columns {', '.join(needed)}; name them"
            f" there, separated by commas, and {SAVE}"
        )
    twice = [column for column in names if columns.count(column) > 1]
    if twice:
        raise FormatError(f"{path}: column {twice[0]} appears twice; keep one")
    longest = max((len(cells) for _, cells in rows[1:]), default=0)
    if longest == len(columns) + 1 and all(cells[0].isdigit() for _, cells in rows[1:]):
        rows[1:] = [(number, cells[1:]) for number, cells in rows[1:]]  # row names of R, without a header
    table = [_row(f"{path}: row {number}", columns, number, cells, names) for number, cells in rows[1:]]
    kept = [place for place, column in enumerate(columns) if _is_kept(path, place, column, table)]
    return CsvTable(
        path,
        tuple(columns[place] for place in kept),
        tuple(
            CsvRow(number, {columns[place]: cells[place] for place in kept}, count)
            for number, cells, count in table
        ),
    )


def turned_into_number(cell: str) -> bool:
    """Whether a spreadsheet took an identifier for a number and rounded it: `1.23E+15`.

    >>> turned_into_number("1.2E+05"), turned_into_number("1.2.840.1")
    (True, False)
    """
    return _SCIENTIFIC.fullmatch(cell) is not None


def _text(path: Path) -> str:
    if path.is_dir():
        raise FormatError(f"{path}: is a folder; give the CSV file")
    if not path.exists():
        raise NotFoundError(f"{path}: there is no such file; check the path")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror}); check the file") from error
    for start, kind in OTHER_FILES.items():
        if raw.startswith(start):
            raise FormatError(f"{path}: is {kind}, not a CSV; open it and {SAVE}")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if raw.startswith(mark)), None)
    try:
        text = raw.decode(encoding or _encoding(path, raw))
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: is not text ({error.reason}); {SAVE}") from None
    return text.removeprefix("\ufeff")


def _encoding(path: Path, raw: bytes) -> str:
    """The encoding of text without a byte-order mark."""
    start = raw[:64]
    if len(start) > 3 and not any(start[1::2]) and all(start[::2]):
        return "utf-16-le"
    if len(start) > 3 and not any(start[::2]) and all(start[1::2]):
        return "utf-16-be"
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        warnings.warn(
            f"{path}: is not UTF-8 (line {line}); read as Windows-1252, check its letters, or {SAVE}",
            InputWarning,
            stacklevel=4,
        )
        return "cp1252"
    return "utf-8"


def _fit(text: str, mark: str, needed: Sequence[str]) -> tuple[int, int]:
    """The number of needed columns in the header that a mark separates, and of all columns."""
    try:
        header = next((cells for _, cells in _cells(text, mark) if cells), [])
    except csv.Error:
        return 0, 0
    names = [_column(name, needed) for name in header]
    return sum(name in names for name in needed), len(names) if len(names) > 1 else 0


def _parsed(path: Path, text: str, mark: str, exact: bool) -> list[tuple[int, list[str]]]:
    rows: list[tuple[int, list[str]]] = []
    try:
        rows.extend(_cells(text, mark, exact))
    except csv.Error as error:
        last = rows[-1][0] if rows else 0
        raise FormatError(
            f"{path}: row {last + 1} cannot be read as CSV ({error}); check its quotation marks"
        ) from None
    return rows


def _cells(text: str, mark: str, exact: bool = False) -> Iterator[tuple[int, list[str]]]:
    """The rows with their numbers, without empty cells at the end."""
    for number, row in enumerate(_reader(text, mark, exact), 1):
        if len(row) == 1 and mark in row[0]:  # the whole line is quoted
            row = next(_reader(row[0], mark, exact))
        cells = [_unwrapped(cell if exact else cell.strip()) for cell in row]
        while cells and not cells[-1]:
            cells.pop()
        yield number, cells


def _reader(text: str, mark: str, exact: bool) -> Iterator[list[str]]:
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=mark, strict=True, skipinitialspace=not exact)


def _unwrapped(cell: str) -> str:
    """A cell without the `="..."` by which a spreadsheet keeps text from becoming a number."""
    match = _FORMULA.fullmatch(cell)
    return match[1].strip() if match else cell


def _column(name: str, known: Sequence[str]) -> str:
    """A column as its reader knows it; another name stays."""
    folded = {_folded(column): column for column in known}
    return name if name in known else folded.get(_folded(name), name)


def _folded(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip("\ufeff \t")).casefold()


def _row(
    name: str, columns: Sequence[str], number: int, cells: list[str], known: Sequence[str]
) -> tuple[int, list[str], int]:
    """The number of a row, its cells, as many as there are columns, and how many the file has."""
    if len(cells) > len(columns):
        raise FormatError(
            f"{name} has {len(cells)} cells for {len(columns)} columns ({cells[len(columns)]!r} is too many);"
            " put a cell that holds the separating mark in quotes"
        )
    if len(columns) > 1 and [_column(cell, known) for cell in cells] == list(columns):
        raise FormatError(f"{name} repeats the header; delete the row")
    for column, cell in zip(columns, cells, strict=False):
        if column in known and cell in _ERRORS:
            raise FormatError(
                f"{name}, column {column}: holds a spreadsheet's error {cell}; enter it as text"
            )
    return number, [*cells, *[""] * (len(columns) - len(cells))], len(cells)


def _is_kept(path: Path, place: int, column: str, rows: Sequence[tuple[int, list[str], int]]) -> bool:
    """Whether a column is kept: not without a name, where it must be empty or number the rows."""
    filled = [(number, cells[place]) for number, cells, _ in rows if cells[place]]
    if place == 0 and column in ROW_NAMES and all(cell.isdigit() for _, cell in filled):
        return False
    if not column and filled:
        number, cell = filled[0]
        raise FormatError(
            f"{path}: column {place + 1} has no name, and row {number} has {cell!r} there; name the column"
        )
    return bool(column)
