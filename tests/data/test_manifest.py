"""The manifest: round trips, and one line for each table that cannot be used."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpfnl.data.manifest import (
    COLUMNS,
    MASK_COLUMNS,
    MASKS,
    Quality,
    Split,
    Study,
    mask_column,
    mask_phase,
    read_manifest,
    write_manifest,
)
from mpfnl.errors import ConflictError, FormatError, InputError, NotFoundError
from mpfnl.phases import PHASES, Phase

HEADER = "study_id,patient_id,split,noncontrast,arterial,portal_venous"


def table(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "cohort.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def refusal(path: Path, kind: type[InputError] = FormatError, check_files: bool = False) -> str:
    """The one line of an error of the kind; it begins with the manifest's path."""
    with pytest.raises(kind) as caught:
        read_manifest(path, check_files)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


def test_reads_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    content = "pancreas,split,patient_id,study_id,noncontrast,arterial,portal_venous\r\n"
    content += 'm.nii.gz,train,p1, s1 ,a/nc.nii.gz,"a,b.nii.gz",/abs/pv.nii.gz\r\n\r\n,test,p2,s2,1,2,3\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + content.encode())  # as Excel writes it: byte order mark, CRLF
    manifest = read_manifest(path, check_files=False)
    first, second = manifest
    assert first.study_id == "s1"
    assert first.file(Phase.NONCONTRAST) == tmp_path / "a/nc.nii.gz"
    assert first.file(Phase.ARTERIAL) == tmp_path / "a,b.nii.gz"
    assert first.file(Phase.PORTAL_VENOUS) == Path("/abs/pv.nii.gz")
    assert first.masks == {"pancreas": tmp_path / "m.nii.gz"}
    assert second.masks == {}
    assert list(manifest.split("test")) == [second]
    assert len(manifest.split(Split.VAL)) == 0
    with pytest.raises(ValueError, match="holdout"):
        manifest.split("holdout")


def test_missing_and_folder(tmp_path: Path) -> None:
    assert "cohort.csv" in refusal(tmp_path / "cohort.csv", NotFoundError)
    assert "folder" in refusal(tmp_path)


@pytest.mark.parametrize("content", ["", "\n", " \n\n", ",,,\n"])
def test_no_header(tmp_path: Path, content: str) -> None:
    (tmp_path / "cohort.csv").write_text(content)
    assert HEADER in refusal(tmp_path / "cohort.csv")


def test_no_rows(tmp_path: Path) -> None:
    assert "no studies" in refusal(table(tmp_path))


@pytest.mark.parametrize("content", [b"\xff\xfe\x00bad", b"\xff\xfebad", b"PK\x03\x04\xf0"])
def test_not_text(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cohort.csv").write_bytes(content)
    assert "UTF-8" in refusal(tmp_path / "cohort.csv")


def test_not_a_csv(tmp_path: Path) -> None:
    assert "CSV" in refusal(table(tmp_path, '"never closed'))
    assert "commas" in refusal(table(tmp_path, header=HEADER.replace(",", "|")))


def test_unknown_column_suggests_the_nearest(tmp_path: Path) -> None:
    message = refusal(table(tmp_path, "s,p,train,1,2,3", header=HEADER.replace("arterial", "Arterial_")))
    assert re.search("'Arterial_'.* arterial", message)
    assert "(and 1 more problem)" in message  # arterial itself is missing


def test_missing_and_repeated_column(tmp_path: Path) -> None:
    assert "column split " in refusal(table(tmp_path, "s", header=HEADER.replace("split,", "")))
    assert "column arterial " in refusal(table(tmp_path, "s", header=HEADER + ",arterial"))


def test_unknown_split(tmp_path: Path) -> None:
    message = refusal(table(tmp_path, "s1,p1,train,1,2,3", "s2,p2,trian,1,2,3"))
    assert re.search("row 3, study 's2': .*'trian'.* train, val, test", message)


def test_repeated_study(tmp_path: Path) -> None:
    message = refusal(table(tmp_path, "s1,p1,train,1,2,3", "", "s1,p2,train,1,2,3"), ConflictError)
    assert re.search("row 4, study 's1': .*row 2", message)


def test_patient_in_two_splits(tmp_path: Path) -> None:
    message = refusal(table(tmp_path, "s1,p7,train,1,2,3", "s2,p7,test,1,2,3"), ConflictError)
    assert re.search("row 3, study 's2': patient 'p7' .*test.*train.*row 2", message)


@pytest.mark.parametrize("column", ["study_id", "patient_id"])
@pytest.mark.parametrize(
    "name", [".", "..", "../s1", "/s1", "a/b", "a\\b", "a\nb", "a\tb", "a\rb", "a\x00b", "a\x7f", "a\x85b"]
)
def test_identifier_that_cannot_name_a_folder(tmp_path: Path, column: str, name: str) -> None:
    ids = {"study_id": "s1", "patient_id": "p1"} | {column: name}
    quoted = ",".join(f'"{value}"' for value in ids.values())
    path = tmp_path / "cohort.csv"
    path.write_bytes(f"{HEADER}\n{quoted},train,1,2,3\n".encode())  # text mode would change the line ends
    assert f"row 2, study {ids['study_id']!r}: its {column} {name!r}" in refusal(path)
    path.unlink()
    study = Study(**ids, split=Split.TRAIN, scans=dict.fromkeys(PHASES, tmp_path / "x"))
    with pytest.raises(FormatError, match=column):
        write_manifest(path, [study])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["...", "a..b", ".a", "é 1", "CT-1004_pv.1", "患者"])
def test_identifier_that_can(tmp_path: Path, name: str) -> None:
    assert next(iter(read_manifest(table(tmp_path, f"{name},p,train,1,2,3"), False))).study_id == name
    (tmp_path / name).mkdir()
    assert (tmp_path / name).parent.samefile(tmp_path)


@pytest.mark.parametrize("column", ["study_id", "patient_id"])
def test_empty_identifier(tmp_path: Path, column: str) -> None:
    cells = ["" if name == column else name for name in ("study_id", "patient_id")]
    message = refusal(table(tmp_path, ",".join([*cells, "train,1,2,3"])))
    assert f"column {column}" in message
    assert "more problem" not in message


@pytest.mark.parametrize("phase", PHASES)
def test_empty_cell(tmp_path: Path, phase: Phase) -> None:
    cells = ["s1", "p1", "train", *("" if p is phase else p.value for p in PHASES)]
    path = table(tmp_path, ",".join(cells))
    if phase is Phase.PORTAL_VENOUS:
        message = refusal(path)
        assert f"row 2, study 's1': its {phase.label} phase" in message
        assert f"column {phase}" in message
        return
    (study,) = read_manifest(path, check_files=False)
    assert study.phases == tuple(p for p in PHASES if p is not phase)
    written = write_manifest(tmp_path / "again.csv", [study]).path
    assert written.read_text().splitlines()[1] == ",".join(cells)
    with pytest.raises(NotFoundError, match=f"column {phase}"):
        study.file(phase)


def test_wrong_number_of_cells(tmp_path: Path) -> None:
    assert re.search("row 2, study 's1': .*4 .*6", refusal(table(tmp_path, "s1,p1,train,1")))


def test_missing_and_empty_file(tmp_path: Path) -> None:
    for name in "123":
        (tmp_path / name).write_bytes(b"x")
    path = table(tmp_path, "s1,p1,train,1,2,3,4", header=HEADER + ",pancreas")
    assert "study 's1', pancreas reference: " in refusal(path, NotFoundError, check_files=True)
    (tmp_path / "4").write_bytes(b"x")
    assert len(read_manifest(path)) == 1
    (tmp_path / "2").unlink()
    message = refusal(path, NotFoundError, check_files=True)
    assert "row 2, study 's1', arterial phase: " in message
    assert "column arterial" in message
    (tmp_path / "2").touch()
    assert "arterial phase: the file" in refusal(path, FormatError, check_files=True)


def test_counts_the_other_problems(tmp_path: Path) -> None:
    assert "(and 4 more problems)" in refusal(table(tmp_path, "s1,,x,1,2,", "s2,,train,1,2,"))


names = st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1, max_size=12).filter(
    lambda text: text == text.strip() and text not in (".", "..") and not set(text) & set("/\\")
)
files = st.lists(st.sampled_from(["a b", "c,d", 'q"', "é", "..", "x.nii.gz"]), min_size=1, max_size=4)


Row = tuple[str, str, Split, list[list[str] | None], dict[str, list[str]], Quality | None]


@st.composite
def cohorts(draw: st.DrawFn) -> list[Row]:
    ids = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    splits = {patient: draw(st.sampled_from(Split)) for patient in ("p1", "p2", "é,3")}
    rows = []
    for study_id in ids:
        patient = draw(st.sampled_from(sorted(splits)))
        others = [phase for phase in Phase if phase is not Phase.PORTAL_VENOUS]
        paths = {Phase.PORTAL_VENOUS: draw(files)}
        paths |= draw(st.dictionaries(st.sampled_from(others), files))
        masks = draw(st.dictionaries(st.sampled_from(sorted(MASK_COLUMNS)), files))
        quality = draw(st.none() | st.sampled_from(Quality))
        rows.append((study_id, patient, splits[patient], paths, masks, quality))
    return rows


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=cohorts())
def test_round_trip(tmp_path: Path, rows: list[Row]) -> None:
    studies = [
        Study(
            *head,
            {phase: tmp_path.joinpath(*parts) for phase, parts in paths.items()},
            {column: tmp_path.joinpath(*parts) for column, parts in masks.items()},
            quality=quality,
        )
        for *head, paths, masks, quality in rows
    ]
    write_manifest(tmp_path / "cohort.csv", studies)
    again = read_manifest(tmp_path / "cohort.csv", check_files=False)
    normal = lambda path: path and os.path.normpath(path)  # noqa: E731
    for before, after in zip(studies, again, strict=True):
        for column in COLUMNS[:3]:
            assert getattr(before, column) == getattr(after, column)
        assert {p: normal(f) for p, f in before.scans.items()} == {
            p: normal(f) for p, f in after.scans.items()
        }
        assert {c: normal(p) for c, p in before.masks.items()} == {
            c: normal(p) for c, p in after.masks.items()
        }
        assert before.quality is after.quality


def test_paths_are_relative_and_the_folder_can_move(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    scans = {phase: old / "s1" / f"{phase.value}.nii.gz" for phase in PHASES}
    write_manifest(old / "cohort.csv", [Study("s1", "p1", Split.TEST, scans)])
    assert str(tmp_path) not in (old / "cohort.csv").read_text()
    new = old.rename(tmp_path / "new")
    study = next(iter(read_manifest(new / "cohort.csv", check_files=False)))
    assert study.file(Phase.ARTERIAL) == new / "s1" / "arterial.nii.gz"


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    def study(name: str, split: Split) -> Study:
        return Study(name, "p1", split, {phase: tmp_path / phase.value for phase in PHASES})

    path = tmp_path / "cohort.csv"
    for studies, kind, match in (
        ([], FormatError, "cohort.csv"),
        (
            [study("s1", Split.TRAIN), study("s2", Split.VAL)],
            ConflictError,
            "row 3, study 's2': patient 'p1'",
        ),
        ([study("s1", Split.TRAIN), study("s1", Split.TRAIN)], ConflictError, "row 3, study 's1': .*row 2"),
        ([study("", Split.TRAIN)], FormatError, "row 2, .*column study_id"),
    ):
        with pytest.raises(kind, match=match):
            write_manifest(path, studies)
    assert not list(tmp_path.iterdir())


def test_each_mask_column_belongs_to_one_phase() -> None:
    columns = {mask_column(mask, phase): phase for phase in Phase for mask in MASKS}
    assert set(columns) == set(MASK_COLUMNS)
    assert {column: mask_phase(column) for column in MASK_COLUMNS} == columns
    assert [mask_column(mask, Phase.PORTAL_VENOUS) for mask in MASKS] == list(MASKS)
