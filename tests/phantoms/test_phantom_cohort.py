"""A cohort on disk: files that others can read, resumed and never mixed."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

from mpfnl.data.manifest import SplitCounts
from mpfnl.errors import ConflictError, OptionError, OutputError
from mpfnl.phantoms import PhantomConfig, cohort, generate_study, write_cohort
from mpfnl.phantoms.labels import LABELS
from mpfnl.phases import PHASES

TINY = PhantomConfig(
    in_plane_mm=(6.0, 7.0), slice_mm=(8.0, 9.0), coverage_mm=(130.0, 140.0), depth_fraction=0.8
)
FILES = (*(p.value for p in PHASES), "pancreas", "labels")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort") / "phantoms"
    return write_cohort(folder, 3, seed=9, config=TINY).parent


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "cohort.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_manifest_names_every_file(written: Path) -> None:
    rows = manifest(written)
    assert list(rows[0]) == [
        "study_id",
        "patient_id",
        "split",
        *(p.value for p in PHASES),
        "pancreas",
        "labels",
    ]
    assert [row["split"] for row in rows] == ["train", "val", "test"]
    assert len({row["patient_id"] for row in rows}) == 3
    for row in rows:
        for column in FILES:
            assert (written / row[column]).is_file()
    assert not list(written.rglob("*.partial"))


def test_record_says_what_it_is(written: Path) -> None:
    record = json.loads((written / "phantom.json").read_text())
    assert "phantom" in record["notice"]
    assert record["seed"] == 9
    assert record["config"]["slice_mm"] == [8.0, 9.0]
    assert record["labels"]["7"] == LABELS[7] == "pancreas"
    assert len(record["truth"]) == 3
    assert all(truth["phantom"] is True for truth in record["truth"].values())


def test_nibabel_and_simpleitk_read_the_study_that_was_made(written: Path) -> None:
    rows = manifest(written)
    for patient, row in enumerate(rows):
        study = generate_study(9, patient, TINY)
        arrays = {p.value: study.phases[p] for p in PHASES} | {
            "labels": study.labels,
            "pancreas": (study.labels == 7).astype(np.uint8),
        }
        for column, expected in arrays.items():
            image = nibabel.load(written / row[column])
            assert image.get_data_dtype() == expected.dtype
            assert np.array_equal(np.asanyarray(image.dataobj), expected)
            assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
            assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 1)
            np.testing.assert_allclose(image.affine, study.affine, atol=1e-3)
            np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
            other = SimpleITK.ReadImage(str(written / row[column]))
            assert np.array_equal(SimpleITK.GetArrayFromImage(other).T, expected)
            np.testing.assert_allclose(other.GetSpacing(), study.spacing, rtol=1e-5)
            flip = np.diag([-1.0, -1.0, 1.0])  # ITK counts x and y the other way
            np.testing.assert_allclose(np.reshape(other.GetDirection(), (3, 3)), flip, atol=1e-6)
            np.testing.assert_allclose(other.GetOrigin(), flip @ study.affine[:3, 3], atol=1e-3)


def test_a_patient_does_not_depend_on_the_cohort(written: Path, tmp_path: Path) -> None:
    alone = write_cohort(tmp_path / "one", 1, seed=9, config=TINY).parent
    assert contents(alone / "phantom-9-0000") == contents(written / "phantom-9-0000")


def test_a_second_run_goes_on_where_the_first_stopped(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "broken"
    made: list[int] = []

    def stops_at_the_third(seed: int, patient: int, config: PhantomConfig) -> object:
        if patient == 2:
            raise KeyboardInterrupt
        made.append(patient)
        return generate_study(seed, patient, config)

    with monkeypatch.context() as patch:
        patch.setattr(cohort, "generate_study", stops_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            write_cohort(folder, 3, seed=9, config=TINY)
    assert made == [0, 1]
    assert not (folder / "cohort.csv").exists()
    half = folder / ".phantom-9-0002.partial"  # as a crash while writing leaves it
    half.mkdir()
    (half / "noncontrast.nii.gz").write_bytes(b"half")
    before = {p: p.stat().st_mtime_ns for p in folder.glob("phantom-9-000*/*")}
    write_cohort(folder, 3, seed=9, config=TINY)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert contents(folder) == contents(written)


def test_a_study_with_a_file_gone_is_made_again(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(written, folder)
    (folder / "phantom-9-0001" / "arterial.nii.gz").unlink()
    write_cohort(folder, 3, seed=9, config=TINY)
    assert contents(folder) == contents(written)


@pytest.mark.parametrize(
    ("patients", "seed", "config", "splits"),
    [
        (3, 8, TINY, None),
        (4, 9, TINY, None),
        (3, 9, PhantomConfig(), None),
        (3, 9, TINY, SplitCounts(2, 0, 1)),
    ],
)
def test_other_settings_in_the_same_folder_are_refused(
    written: Path, patients: int, seed: int, config: PhantomConfig, splits: SplitCounts | None
) -> None:
    before = contents(written)
    with pytest.raises(ConflictError, match=re.escape(str(written))) as caught:
        write_cohort(written, patients, seed, config, splits)
    assert "\n" not in str(caught.value)
    assert contents(written) == before


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cohort.csv").write_text("study_id\n")
    with pytest.raises(OutputError, match=re.escape(str(tmp_path))):
        write_cohort(tmp_path, 1, config=TINY)
    with pytest.raises(OutputError, match=r"cohort\.csv: is a file"):
        write_cohort(tmp_path / "cohort.csv", 1, config=TINY)
    (tmp_path / "phantom.json").write_text("no json")
    with pytest.raises(OutputError, match=r"phantom\.json"):
        write_cohort(tmp_path, 1, config=TINY)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cohort.csv", "phantom.json"]


@pytest.mark.parametrize(
    ("patients", "seed", "splits"), [(0, 0, None), (2, -1, None), (3, 0, SplitCounts(1, 1, 2))]
)
def test_impossible_counts_are_refused(
    tmp_path: Path, patients: int, seed: int, splits: SplitCounts | None
) -> None:
    with pytest.raises(OptionError):
        write_cohort(tmp_path / "new", patients, seed, TINY, splits)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("patients", [1, 2, 3, 5, 10, 24, 180])
def test_default_splits_hold_everybody_once(patients: int) -> None:
    splits = SplitCounts.default(patients)
    assert len(splits.assignment()) == patients
    assert splits.train >= 1
    if patients >= 3:
        assert min(splits.val, splits.test) >= 1
    if patients >= 10:
        assert splits.train / patients == pytest.approx(0.8, abs=0.05)


def test_progress_bar_does_not_disturb(tmp_path: Path, written: Path) -> None:
    folder = write_cohort(tmp_path / "bar", 3, 9, TINY, progress=True).parent
    assert contents(folder) == contents(written)
