"""VinDr-Multiphase's layout, whole and broken, through the command line."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mpfnl.cli.main import main
from mpfnl.data.manifest import read_manifest
from mpfnl.datasets.vindr import find_vindr
from mpfnl.errors import ConflictError, FormatError, InputError, NotFoundError
from mpfnl.phantoms.dicom import SliceHeader, phantom_uid, write_slice
from mpfnl.phases import PHASES, Phase

PHASE_LABELS = ("Non-contrast", "Aterial", "Venous")
Row = tuple[str, str, str]


def write_series(folder: Path, slices: int = 24, thick: float = 5.0, **changes: Any) -> None:
    """A series of 4x4 voxels; `changes` are SliceHeader's."""
    folder.mkdir(parents=True)
    for index in range(slices):
        header = SliceHeader(
            patient=f"Doe {folder.parent.name}",
            study=folder.parent.name,
            series=folder.name,
            instance=phantom_uid(folder.name, index),
            frame="2.25.1",
            series_number=1,
            number=slices - index,
            position=(0.0, 0.0, -400.0 + thick * index),
            spacing=(0.8, 0.8),
            thickness=thick,
        )
        write_slice(
            folder / f"{header.instance}.dcm", np.full((4, 4), -1000, np.int16), replace(header, **changes)
        )


def write_study(root: Path, study: str, batch: str = "batch_1", **changes: Any) -> list[Row]:
    """A study with the three phases; returns its rows of labels.csv."""
    rows = [(study, f"{study}.{number}", label) for number, label in enumerate(PHASE_LABELS)]
    for _, series, _ in rows:
        write_series(root / "abdomen_phases" / batch / study / series, **changes)
    return rows


def write_labels(root: Path, rows: Sequence[Sequence[str]]) -> Path:
    path = root / "abdomen_phases" / "labels.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [("StudyInstanceUID", "SeriesInstanceUID", "Label"), *rows]
    path.write_text("\n".join(",".join(row) for row in lines) + "\n")
    return path


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def error_of(capsys: pytest.CaptureFixture[str], root: Path, *words: str) -> str:
    """The one line that a bad dataset gives; nothing is written."""
    output = root.parent / "out" / "cohort.csv"
    output.parent.mkdir()
    assert main(["manifest", "vindr", str(root), "-o", str(output), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert not list(output.parent.iterdir())
    return line


def test_studies_series_and_exclusions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "vindr"
    batch = root / "abdomen_phases" / "batch_1"
    rows = [row for n in range(4) for row in write_study(root, f"1.{n}")]
    rows += write_study(root, "1.9", batch="batch_02")
    write_series(batch / "1.0" / "1.0.7", image_type=("DERIVED", "SECONDARY", "AXIAL"))
    write_series(batch / "1.0" / "1.0.8", orientation=(1, 0, 0, 0, 0, -1))
    rows += [("1.0", "1.0.7", "ARTERIAL"), ("1.0", "1.0.8", " arterial "), ("1.0", "1.0.6", "other")]
    rows.append(("1.1", "1.1.5", "venous"))  # not downloaded
    rows += [("1.5", "1.5.0", "Venous")]
    rows += [row for row in write_study(root, "1.6") if row[2] != "Aterial"]
    rows += [*write_study(root, "1.7", slices=3), rows[0]]  # and a row twice
    for file in (batch / "1.3" / "1.3.0").iterdir():
        file.unlink()
    write_labels(root, rows)
    output = tmp_path / "cohort.csv"
    assert main(["manifest", "vindr", str(root), "-o", str(output)]) == 0
    printed = capsys.readouterr().out
    assert "4 studies, 4 excluded (see" in printed
    assert "1 no arterial phase" in printed

    cohort = read_manifest(output)
    assert [study.study_id for study in cohort] == ["1.0", "1.1", "1.2", "1.9"]
    assert str(tmp_path) not in output.read_text()
    first = cohort.studies[0]
    assert [first.file(phase).name for phase in PHASES] == ["1.0.0", "1.0.1", "1.0.2"]
    assert cohort.studies[3].file(Phase.ARTERIAL).parent.parent.name == "batch_02"
    assert {row["study_id"]: row["reason"] for row in table(tmp_path / "cohort.excluded.csv")} == {
        "1.3": "no usable non-contrast phase (folder empty)",
        "1.5": "study folder missing",
        "1.6": "no arterial phase",
        "1.7": "; ".join(
            f"no usable {phase} phase (shorter than 100 mm)" for phase in (each.label for each in PHASES)
        ),
    }
    picks = {(row["study_id"], row["phase"]): row for row in table(tmp_path / "cohort.series.csv")}
    assert len(picks) == 12
    arterial = picks["1.0", "arterial"]
    assert (arterial["series"], arterial["slices"], arterial["candidates"]) == ("1.0.1", "24", "3")
    assert float(arterial["spacing_mm"]) == 5.0
    assert arterial["reason"] == "3 series; 1 not axial; original rather than derived"
    assert picks["1.1", "portal_venous"]["reason"] == "the only series; 1 with its folder missing"
    for path in tmp_path.glob("*.csv"):
        assert "Doe" not in path.read_text()


def test_the_folder_itself_and_the_same_result_again(tmp_path: Path) -> None:
    root = tmp_path / "vindr"
    write_labels(root, [row for n in range(3) for row in write_study(root, f"1.{n}")])
    tables = []
    for name, given in (("a", root), ("b", root / "abdomen_phases"), ("c", root)):
        assert main(["manifest", "vindr", str(given), "-o", str(tmp_path / f"{name}.csv")]) == 0
        tables.append({path.suffixes[0]: path.read_bytes() for path in tmp_path.glob(f"{name}.*")})
    assert len(tables[0]) == 3
    assert tables[0] == tables[1] == tables[2]


@pytest.mark.parametrize(
    ("patients", "expected"),
    [
        (("X", "Y", "X", "Y"), ("1.0", "1.1", "1.0", "1.1")),
        (("X", "", "", "Y"), ("1.0", "1.1", "1.2", "1.3")),
        (("anonymous",) * 4, ("1.0", "1.1", "1.2", "1.3")),
        (("",) * 4, ("1.0", "1.1", "1.2", "1.3")),
    ],
)
def test_patients_are_grouped_but_not_named(
    tmp_path: Path, patients: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    rows = [row for n, who in enumerate(patients) for row in write_study(tmp_path, f"1.{n}", patient=who)]
    write_labels(tmp_path, rows)
    found = find_vindr(tmp_path)
    assert tuple(study.patient_id for study in found.studies) == expected
    split = {study.patient_id: study.split for study in found.studies}
    assert all(study.split is split[study.patient_id] for study in found.studies)
    assert ("patient of its own" in found.notes[0]) == (len(set(patients)) == 1)


def test_masks_go_to_the_phase_that_they_lie_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, masks = tmp_path / "vindr", tmp_path / "masks"
    write_labels(root, [row for n in range(3) for row in write_study(root, f"1.{n}")])
    for scan, mask in (
        ("1.0.0", "labels"),
        ("1.0.1", "pancreas"),
        ("1.0.2", "pancreas"),
        ("1.2.2", "labels"),
    ):
        (masks / scan).mkdir(exist_ok=True, parents=True)
        (masks / scan / f"{mask}.nii.gz").write_bytes(b"mask")
    output = tmp_path / "cohort.csv"
    assert main(["manifest", "vindr", str(root), "-o", str(output), "--masks", str(masks)]) == 0
    assert "1 of 3 studies have a pancreas mask" in capsys.readouterr().out
    first, second, third = read_manifest(output)
    where = {column: path.parent.name for column, path in first.masks.items()}
    assert where == {"noncontrast_labels": "1.0.0", "arterial_pancreas": "1.0.1", "pancreas": "1.0.2"}
    assert second.masks == {}
    assert list(third.masks) == ["labels"]
    assert "--masks" in error_of(capsys, root, "--masks", str(tmp_path / "nowhere"))


HEADER = "StudyInstanceUID,SeriesInstanceUID,Label\n"


@pytest.mark.parametrize(
    ("content", "kind", "detail"),
    [
        ("StudyInstanceUID,SeriesInstanceUID\n1,2\n", FormatError, "Label"),
        ("", FormatError, "StudyInstanceUID"),
        (HEADER, FormatError, "labels.csv"),
        (f"{HEADER}1.0,1.0.0,Venous\n1.0,1.0.1,Late\n", FormatError, "row 3 .*'Late'"),
        (f"{HEADER}1.0,,Venous\n", FormatError, "row 2"),
        (f"{HEADER}1.0,../1,Venous\n", FormatError, r"row 2 .*\.\./1"),
        (f"{HEADER}1.0,1.1,Venous\n1.0,1.1,Other\n", ConflictError, r"row 3 .*1\.1"),
        (f"{HEADER}1.0,1.1,Venous\n2.0,1.1,Venous\n", ConflictError, r"row 3 .*1\.1"),
        (f'{HEADER}1.0,"1.1,Venous\n', FormatError, "CSV"),
    ],
)
def test_a_bad_table_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, kind: type[InputError], detail: str
) -> None:
    root = tmp_path / "vindr"
    write_study(root, "1.0")
    path = write_labels(root, [])
    path.write_text(content)
    with pytest.raises(kind, match=detail):
        find_vindr(root)
    line = error_of(capsys, root)
    assert str(path) in line
    assert re.search(detail, line)


def test_what_is_no_such_dataset_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "labels.csv" in error_of(capsys, tmp_path / "nowhere")


def test_labels_without_batches_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_labels(tmp_path / "vindr", [("1.0", "1.0.0", "Venous")])
    assert str(tmp_path / "vindr" / "abdomen_phases") in error_of(capsys, tmp_path / "vindr")
    with pytest.raises(NotFoundError):
        find_vindr(tmp_path / "vindr")


def test_a_study_in_two_batches_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_study(tmp_path / "vindr", "1.0")
    write_study(tmp_path / "vindr", "1.0", batch="batch_2")
    write_labels(tmp_path / "vindr", rows)
    line = error_of(capsys, tmp_path / "vindr")
    assert "batch_1" in line
    assert str(Path("batch_2") / "1.0") in line


def test_no_study_left_tells_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_study(tmp_path / "vindr", "1.0")
    for file in (tmp_path / "vindr").rglob("1.0.2/*.dcm"):
        file.write_bytes(b"broken")
    write_labels(tmp_path / "vindr", rows)
    line = error_of(capsys, tmp_path / "vindr")
    assert "1 no usable portal venous phase (DICOM unreadable)" in line


@pytest.mark.parametrize("output", ["cohort.txt", "missing/cohort.csv", "folder.csv"])
def test_a_bad_output_is_refused_before_any_reading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert main(["manifest", "vindr", str(tmp_path / "nowhere"), "-o", str(tmp_path / output)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(tmp_path / output) in line
    assert "nowhere" not in line
