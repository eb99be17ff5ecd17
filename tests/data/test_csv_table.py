"""Tables as people save them: the same rows, however a spreadsheet or a program wrote them.

How Excel writes: StataCorp's FAQ "How Excel writes empty cells" (trailing cells left out in blocks of rows);
the list separator of the locale in place of commas; RFC 4180 for quotes; UTF-16 with tabs as "Unicode text".
R's `write.csv` and pandas' `to_csv` write row names in front, and R writes NA for a missing cell.
"""

from __future__ import annotations

import csv
import io
import re
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpfnl.data.csv_table import read_csv, turned_into_number
from mpfnl.data.manifest import read_manifest
from mpfnl.datasets.vindr import read_labels
from mpfnl.errors import ConflictError, FormatError, InputError, InputWarning, NotFoundError
from mpfnl.phases import Phase

COLUMNS = ("study", "file", "note")
HEADER = "study_id,patient_id,split,noncontrast,arterial,portal_venous"
LABELS = "StudyInstanceUID,SeriesInstanceUID,Label"


def cells_of(path: Path, needed: tuple[str, ...] = COLUMNS) -> list[list[str]]:
    table = read_csv(path, needed)
    return [[row.cells[column] for column in needed] for row in table.rows]


def saved(folder: Path, content: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path, kind: type[InputError] = FormatError) -> str:
    with pytest.raises(kind) as caught:
        read_csv(path, COLUMNS)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


text = (
    st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=9)
    .map(str.strip)
    .filter(lambda cell: not cell.startswith("#"))  # a spreadsheet's errors are refused
)
rows = st.lists(
    st.tuples(text.filter(lambda cell: cell and cell not in COLUMNS), text, text), min_size=1, max_size=5
)
encodings = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom", "utf-32"])


def encoded(content: str, encoding: str) -> bytes:
    if encoding.endswith("-bom"):
        return ("\ufeff" + content).encode(encoding.removesuffix("-bom"))
    return content.encode(encoding)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=rows,
    mark=st.sampled_from([",", ";", "\t"]),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=encodings,
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    empty=st.sampled_from(["kept", "left out", "added"]),
    hint=st.booleans(),
    blank=st.booleans(),
)
def test_the_same_rows_however_they_were_saved(
    tmp_path: Path,
    rows: list[tuple[str, str, str]],
    mark: str,
    ending: str,
    encoding: str,
    quoting: int,
    empty: str,
    hint: bool,
    blank: bool,
) -> None:
    """Against Python's own writer in each of Excel's dialects; cells come back without outer spaces."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=mark, lineterminator=ending, quoting=quoting)
    for row in (COLUMNS, *rows):
        cells = list(row)
        while empty == "left out" and len(cells) > 1 and not cells[-1]:
            cells.pop()
        writer.writerow([*cells, "", ""] if empty == "added" else cells)
        if blank:
            writer.writerow(["", "", ""])
    content = f"sep={mark}{ending}" * hint + out.getvalue()
    assert cells_of(saved(tmp_path, encoded(content, encoding))) == [list(row) for row in rows]


def test_row_numbers_are_those_of_a_spreadsheet(tmp_path: Path) -> None:
    path = saved(tmp_path, 'study;file;note\r\n\r\ns1;"two\r\nlines";x\r\ns2;b\r\n')
    assert [(row.number, row.count) for row in read_csv(path, COLUMNS).rows] == [(3, 3), (4, 2)]


def test_a_semicolon_within_a_cell_does_not_separate(tmp_path: Path) -> None:
    assert cells_of(saved(tmp_path, "study,file,note\na;b,c;d;e;f,g\n")) == [["a;b", "c;d;e;f", "g"]]


@pytest.mark.parametrize(
    "header", [" Study,FILE ,Note", "study, file, note", '"study","file","note"', "\ufeffstudy,file,note"]
)
def test_a_header_that_differs_in_case_and_spaces(tmp_path: Path, header: str) -> None:
    assert cells_of(saved(tmp_path, f"{header}\na,b,c\n")) == [["a", "b", "c"]]


def test_lines_that_are_quoted_as_a_whole(tmp_path: Path) -> None:
    """A spreadsheet that splits at semicolons takes each line of a CSV with commas for one cell."""
    content = '"study,file,note"\r\n"a,""b,c"",d"\r\ne,f,g\r\n'
    assert cells_of(saved(tmp_path, content)) == [["a", "b,c", "d"], ["e", "f", "g"]]


def test_text_that_was_protected_from_becoming_a_number(tmp_path: Path) -> None:
    assert cells_of(saved(tmp_path, 'study,file,note\n"=""007""",b,c\n')) == [["007", "b", "c"]]
    assert turned_into_number("1,2E+17")
    assert not turned_into_number("1E5")


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_row_names_in_front_are_passed_over(tmp_path: Path, name: str) -> None:
    assert cells_of(saved(tmp_path, f'"{name}",study,file,note\n"1",a,b,c\n"2",d,e,f\n')) == [
        ["a", "b", "c"],
        ["d", "e", "f"],
    ]
    assert cells_of(saved(tmp_path, "study,,file,note\na,,b,c\n")) == [["a", "b", "c"]]
    assert "column 2" in refusal(saved(tmp_path, "study,,file,note\na,x,b,c\n"))


def test_text_of_windows_is_read_with_a_warning(tmp_path: Path) -> None:
    path = saved(tmp_path, "study;file;note\nMüller;é;—\n".encode("cp1252"))
    with pytest.warns(InputWarning, match=r"table\.csv: .*line 2.*UTF-8"):
        assert cells_of(path) == [["Müller", "é", "—"]]


def test_utf_16_without_a_mark(tmp_path: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        path = saved(tmp_path, "study\tfile\tnote\na\tb\té\n".encode(encoding))
        assert cells_of(path) == [["a", "b", "é"]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04xl", "workbook"),
        (b"\xd0\xcf\x11\xe0\xa1", "workbook"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"", "empty"),
        (b",,,\r\n\r\n,,,\r\n", "empty"),
        (b"name,path\na,b\n", "'name,path'"),
        (b'study,file,note\na,b,c\nd,"e,f\n', "row 3 "),
        (b"study,file,note\na,b,c,d\n", "row 2 .*'d'"),
        (b"study,file,note\na,b,c\nstudy,file,note\n", "row 3 "),
        (b"study,file,note\na,#NAME?,c\n", "row 2, column file: .*#NAME"),
        (b"study,file,file,note\n", "file .*twice"),
        (b"study,file,note\n\x81\x8d,b,c\n", "UTF-8"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.warns(InputWarning) if b"\x81" in content else nullcontext():
        message = refusal(saved(tmp_path, content))
    assert re.search(words, message)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    refusal(tmp_path / "table.csv", NotFoundError)
    assert "folder" in refusal(tmp_path)


# Manifests


def manifest(folder: Path, content: str) -> Path:
    for name in ("nc.nii", "art.nii", "pv.nii", "sub/pv.nii", "pancreas.nii.gz", "m#2.nii.gz#1"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    path = folder / "cohort.csv"
    path.write_bytes(content.encode())
    return path


def test_a_manifest_without_trailing_commas(tmp_path: Path) -> None:
    rows = [f"{HEADER},pancreas"]
    rows += [f"s{n},p{n},test,nc.nii,art.nii,pv.nii" + ",pancreas.nii.gz" * (n == 1) for n in (1, 2, 3)]
    studies = read_manifest(manifest(tmp_path, "\r\n".join(rows) + "\r\n"))
    assert [list(study.masks) for study in studies] == [["pancreas"], [], []]


def test_a_manifest_of_a_spreadsheet_on_windows(tmp_path: Path) -> None:
    content = "\ufeff" + HEADER.replace(",", ";").upper() + ";Pancreas\r\n"
    content += 's1;p1; Train;.\\nc.nii; art.nii ;"""sub\\pv.nii""";NA\r\n;;;;;;\r\n'
    (study,) = read_manifest(manifest(tmp_path, content))
    assert study.split == "train"
    assert study.file(Phase.NONCONTRAST) == tmp_path / "nc.nii"
    assert study.file(Phase.PORTAL_VENOUS) == tmp_path / "sub" / "pv.nii"
    assert study.masks == {}


def test_accents_are_found_in_either_form(tmp_path: Path) -> None:
    (tmp_path / "Mu\u0308ller.nii").write_bytes(b"x")  # as macOS stores it
    (study,) = read_manifest(manifest(tmp_path, f"{HEADER}\ns,p,val,nc.nii,art.nii,Müller.nii\n"))
    assert study.file(Phase.PORTAL_VENOUS).exists()


def test_labels_of_masks_in_a_manifest(tmp_path: Path) -> None:
    content = f"{HEADER},pancreas,labels\ns,p,val,nc.nii,art.nii,pv.nii,pancreas.nii.gz#1+2,m#2.nii.gz#1\n"
    (study,) = read_manifest(manifest(tmp_path, content))
    assert study.masks["pancreas"].name == "pancreas.nii.gz#1+2"
    assert study.masks["labels"].is_file()  # a file whose own name ends so
    path = manifest(tmp_path, content.replace("nc.nii", "nc.nii#1").replace("pancreas.nii", "other.nii"))
    with pytest.raises(NotFoundError, match=r"row 2, study 's', non-contrast phase: .*nc\.nii#1.*1 more"):
        read_manifest(path)


def test_row_names_of_r_without_a_header(tmp_path: Path) -> None:
    """write.table(sep = ",") names the columns only, and pandas writes <NA> with na_rep."""
    lines = [
        f"{HEADER},pancreas",
        "1,s1,p1,train,nc.nii,art.nii,pv.nii,NA",
        "2,s2,p2,val,nc.nii,art.nii,pv.nii,<NA>",
    ]
    studies = read_manifest(manifest(tmp_path, "\n".join(lines)))
    assert [(study.study_id, study.masks) for study in studies] == [("s1", {}), ("s2", {})]
    with pytest.raises(FormatError, match="too many"):
        read_manifest(manifest(tmp_path, "\n".join([*lines, "s3,p3,val,nc.nii,art.nii,pv.nii,,x"])))


@pytest.mark.parametrize("identifier", ["1.2E+05", "1,23E+15"])
def test_an_identifier_that_became_a_number(tmp_path: Path, identifier: str) -> None:
    path = manifest(tmp_path, f'{HEADER}\ns,"{identifier}",val,nc.nii,art.nii,pv.nii\n')
    with pytest.raises(FormatError, match=r"row 2, study 's': its patient_id .*spreadsheet"):
        read_manifest(path)


# labels.csv of VinDr-Multiphase


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_labels_as_a_spreadsheet_saves_them(tmp_path: Path, mark: str) -> None:
    lines = [
        f"{LABELS},Note",
        "1.2.3,1.2.3.1,Non-contrast",
        "1.2.3,1.2.3.2,Aterial,x",
        "1.2.3,1.2.3.3,Venous",
    ]
    path = saved(tmp_path, "\r\n".join(line.replace(",", mark) for line in lines))
    assert read_labels(path) == {
        "1.2.3": {
            "1.2.3.1": Phase.NONCONTRAST,
            "1.2.3.2": Phase.ARTERIAL,
            "1.2.3.3": Phase.PORTAL_VENOUS,
        }
    }


@pytest.mark.parametrize(
    ("row", "kind", "words"),
    [
        ("1.2E+17,1.2.3.1,Venous", FormatError, "row 2 .*'1.2E.17'.*spreadsheet"),
        ("1.2.3,1.2.3.1", FormatError, "row 2 .*Label"),
        ("1.2.3,1.2.3.1,Venous\n1.2.4,1.2.3.1,Venous", ConflictError, "row 3 "),
        ("1.2.3,1.2.3.1,Venous,more", FormatError, "row 2 .*'more'"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, row: str, kind: type[InputError], words: str) -> None:
    with pytest.raises(kind, match=words):
        read_labels(saved(tmp_path, f"{LABELS}\n{row}\n"))
