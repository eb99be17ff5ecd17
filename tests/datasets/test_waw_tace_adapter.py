"""WAW-TACE's layout, whole and broken, through the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from mpfnl.cli.main import main
from mpfnl.data.manifest import read_manifest
from mpfnl.phases import PHASES, Phase


def write_patient(root: Path, patient: str, numbers: str = "0123") -> None:
    folder = root / patient
    folder.mkdir(parents=True)
    for number in numbers:
        (folder / f"{patient}_{number}_scan.nii.gz").write_bytes(b"scan")


def test_patients_with_three_phases_and_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "waw"
    for patient, numbers in {"10": "0123", "2": "012", "7": "0123", "5": "123", "30": "03", "31": ""}.items():
        write_patient(root, patient, numbers)
    write_patient(root, "33")
    (root / "33" / "33_2_scan.nii.gz").write_bytes(b"")
    (root / "documents").mkdir()
    masks = tmp_path / "masks"
    for scan in ("2_2", "7_1", "7_3"):
        (masks / scan).mkdir(parents=True)
        (masks / scan / "pancreas.nii.gz").write_bytes(b"mask")
    output = tmp_path / "cohort.csv"
    assert main(["manifest", "waw-tace", str(root), "-o", str(output), "--masks", str(masks)]) == 0
    printed = capsys.readouterr().out
    assert "3 studies, 4 excluded" in printed
    assert "1 non-contrast phase missing, " in printed
    cohort = read_manifest(output)
    assert [study.study_id for study in cohort] == ["2", "7", "10"]
    for study in cohort:
        assert study.patient_id == study.study_id
        names = [study.file(phase).name for phase in PHASES]
        assert names == [f"{study.study_id}_{number}_scan.nii.gz" for number in range(3)]
    assert {study.split for study in cohort} == {"train", "val", "test"}
    assert [list(study.masks) for study in cohort] == [
        ["pancreas"],
        ["arterial_pancreas", "delayed_pancreas"],
        [],
    ]
    assert [Phase.DELAYED in study.phases and study.file(Phase.DELAYED).name for study in cohort] == [
        False,
        "7_3_scan.nii.gz",
        "10_3_scan.nii.gz",
    ]
    with (tmp_path / "cohort.excluded.csv").open(newline="") as file:
        assert {row["study_id"]: row["reason"] for row in csv.DictReader(file)} == {
            "5": "non-contrast phase missing",
            "30": "arterial phase missing; portal venous phase missing",
            "31": "non-contrast phase missing; arterial phase missing; portal venous phase missing",
            "33": "portal venous phase file empty",
        }
    assert not (tmp_path / "cohort.series.csv").exists()


def test_the_seed_decides_the_splits(tmp_path: Path) -> None:
    for patient in range(12):
        write_patient(tmp_path / "waw", str(patient))
    splits = []
    for seed in ("0", "0", "1", "2"):
        output = tmp_path / "cohort.csv"
        assert main(["manifest", "waw-tace", str(tmp_path / "waw"), "-o", str(output), "--seed", seed]) == 0
        splits.append([study.split for study in read_manifest(output)])
    assert splits[0] == splits[1]
    assert len({tuple(split) for split in splits}) > 1


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nowhere", "waw: "),
        ("empty", "<pid>_0_scan.nii.gz"),
        ("none", "1 arterial phase missing"),
        ("masks", "--masks"),
        ("seed", "--seed -1"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    root = tmp_path / "waw"
    words = {"masks": ["--masks", str(tmp_path)], "seed": ["--seed", "-1"]}.get(kind, [])
    if kind != "nowhere":
        root.mkdir()
    if kind not in ("nowhere", "empty"):
        write_patient(root, "4", "02" if kind == "none" else "012")
    before = sorted(tmp_path.iterdir())
    assert main(["manifest", "waw-tace", str(root), "-o", str(tmp_path / "cohort.csv"), *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert sorted(tmp_path.iterdir()) == before
