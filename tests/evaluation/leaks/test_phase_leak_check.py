"""The phase-leak check over an evaluation folder: a leak is named, what cannot be checked is named too."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt, gaussian_filter, median_filter

from mpfnl.data.manifest import SplitCounts, Study, read_manifest
from mpfnl.errors import NotFoundError
from mpfnl.evaluation.folder import volume_files
from mpfnl.evaluation.leaks import check
from mpfnl.evaluation.leaks.check import ORGANS, OrganMasks, read_organs
from mpfnl.evaluation.leaks.table import LeakRow, leak_warnings, summarize_leaks, unchecked
from mpfnl.metrics.phase_leak import Verdict
from mpfnl.phantoms import write_cohort
from mpfnl.phantoms.config import SMALL
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.volumes.masks import read_label_volume
from mpfnl.window import ABDOMEN

PV = Phase.PORTAL_VENOUS
METHODS = ["reference", "degraded", "honest", "leaking"]
AORTA = 52


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, ...]:
    """Two phantoms, their phases on top of each other."""
    folder = tmp_path_factory.mktemp("phantoms")
    config = replace(SMALL, misalignment=0.0)
    return read_manifest(write_cohort(folder, 2, seed=11, config=config, splits=SplitCounts(0, 0, 2))).studies


@pytest.fixture(scope="module")
def evaluation(studies: tuple[Study, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an evaluation leaves: a noisy scan, a filtered one, and one with 60 HU more in the aorta."""
    folder = tmp_path_factory.mktemp("evaluation")
    for number, study in enumerate(studies):
        reference = read_volume(study.file(Phase.PORTAL_VENOUS), PV)
        noise = np.random.default_rng(number).normal(0, 25, reference.shape)
        degraded = (reference.data + noise).astype(np.float32)
        edge = gaussian_filter(read_label_volume(study.masks["labels"]).data == AORTA, 0.5, output=np.float32)
        honest = median_filter(degraded, 3)
        write_scans(folder, study, reference, degraded=degraded, honest=honest, leaking=honest + 60 * edge)
    return folder


@pytest.fixture
def folder(evaluation: Path, tmp_path: Path) -> Path:
    """A copy, to be written to."""
    return Path(shutil.copytree(evaluation, tmp_path / "evaluation"))


def check_phase_leak(
    studies: Sequence[Study],
    methods: Sequence[str],
    folder: Path,
    organs: Callable[[Study], OrganMasks] | None = None,
) -> list[LeakRow]:
    return check.check_phase_leak(studies, methods, folder, PV, ABDOMEN, organs)


def write_scans(folder: Path, study: Study, like: Volume, **scans: np.ndarray) -> None:
    for method, path in volume_files(folder, study.study_id, list(scans), PV).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(path, scans[method], like=like)


def of(rows: list[LeakRow], method: str, organ: str) -> list[LeakRow]:
    return [row for row in rows if (row.method, row.organ) == (method, organ)]


def test_the_leak_is_found_where_it_was_put_and_nowhere_else(
    studies: tuple[Study, ...], folder: Path
) -> None:
    rows = check_phase_leak(studies, METHODS, folder)
    assert len(rows) == 2 * 3 * len(ORGANS)
    verdicts = {(row.method, row.organ): row.drift.verdict() for row in rows if row.drift}
    leaks = {named for named, verdict in verdicts.items() if verdict is Verdict.LEAK}
    assert leaks == {("leaking", "aorta")}
    assert Verdict.SHIFT not in verdicts.values()
    first, *_ = leak_warnings(rows, PV)
    assert first.startswith(f"study {studies[0].study_id}: leaking: aorta ")
    assert "HU brighter than the portal venous reference, " in first
    assert "% of the way to the arterial phase" in first


def test_the_numbers_are_numpys_on_the_written_files(studies: tuple[Study, ...], folder: Path) -> None:
    rows = check_phase_leak(studies, METHODS, folder)
    for study, row in zip(studies, of(rows, "leaking", "aorta"), strict=True):
        aorta = read_label_volume(study.masks["labels"]).data == AORTA
        spacing = read_volume(study.file(Phase.PORTAL_VENOUS)).spacing
        # SMALL phantoms have voxels of under 3 mm: deeper than 3 mm is past the voxels with an open face.
        core = distance_transform_edt(np.pad(aorta, 1, mode="edge"), sampling=spacing)[1:-1, 1:-1, 1:-1] > 3
        assert row.drift is not None
        means = {
            phase: np.clip(read_volume(study.file(phase)).data[core].astype(float), -175, 275).mean()
            for phase in PHASES
        }
        assert row.drift.reference_hu == pytest.approx(means[PV])
        assert row.drift.others_hu[Phase.ARTERIAL] == pytest.approx(means[Phase.ARTERIAL])
        path = volume_files(folder, study.study_id, ["leaking"], PV)["leaking"]
        enhanced = np.clip(read_volume(path).data[core].astype(float), -175, 275).mean()
        assert row.drift.enhanced_hu == pytest.approx(enhanced)
        gap = means[Phase.ARTERIAL] - means[PV]
        assert row.drift.fraction(Phase.ARTERIAL) == pytest.approx((enhanced - means[PV]) / gap)


def test_the_table_holds_every_row(studies: tuple[Study, ...], folder: Path) -> None:
    rows = check_phase_leak(studies, METHODS, folder)
    with (folder / "phase_leak.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [(r["study_id"], r["method"], r["organ"]) for r in table] == [
        (row.study_id, row.method, row.organ) for row in rows
    ]
    for cells, row in zip(table, rows, strict=True):
        if row.drift:
            assert float(cells["drift_hu"]) == pytest.approx(row.drift.drift_hu, rel=1e-3)
            assert cells["verdict"] == row.drift.verdict()
            assert (cells["toward"] == "arterial") == (row.method == "leaking" and row.organ == "aorta")
        else:
            assert cells["note"]
            assert cells["drift_hu"] == cells["verdict"] == ""
    before = (folder / "phase_leak.csv").read_bytes()
    check_phase_leak(studies, METHODS, folder)
    assert (folder / "phase_leak.csv").read_bytes() == before


def test_the_summary_is_numpys(studies: tuple[Study, ...], folder: Path) -> None:
    rows = check_phase_leak(studies, METHODS, folder)
    summary = {(s.method, s.organ): s for s in summarize_leaks(rows)}
    drifts = [row.drift.drift_hu for row in of(rows, "leaking", "aorta") if row.drift]
    aorta = summary["leaking", "aorta"]
    assert (aorta.n, aorta.n_unmeasured, aorta.n_flagged) == (2, 0, 2)
    assert aorta.drift_hu == pytest.approx(np.mean(drifts))
    assert aorta.drift_sd_hu == pytest.approx(np.std(drifts, ddof=1))
    assert aorta.verdicts == {"leak": 2}
    assert summary["honest", "aorta"].n_flagged == 0
    assert list(summary)[: len(ORGANS)] == [("degraded", organ) for organ in ORGANS]


def test_what_the_input_has_is_not_held_against_the_method(studies: tuple[Study, ...], folder: Path) -> None:
    study = studies[0]
    scans = volume_files(folder, study.study_id, METHODS, PV)
    leaking = read_volume(scans["leaking"])
    write_scans(folder, study, leaking, degraded=leaking.data)
    rows = check_phase_leak([study], METHODS, folder)
    found = {row.method: row.drift.verdict() for row in rows if row.organ == "aorta" and row.drift}
    assert found == {"degraded": Verdict.INPUT, "honest": Verdict.NONE, "leaking": Verdict.INPUT}
    assert leak_warnings(rows, PV) == []


def test_what_cannot_be_checked_is_named(studies: tuple[Study, ...], folder: Path) -> None:
    unlabelled = replace(studies[1], masks={})
    degraded = volume_files(folder, studies[0].study_id, ["leaking"], PV)["leaking"]
    degraded.write_bytes(degraded.read_bytes()[:1000])
    rows = check_phase_leak([studies[0], unlabelled], [*METHODS, "gone"], folder)
    notes = {(row.study_id, row.method): row.note for row in rows if not row.organ}
    assert set(notes) == {
        (studies[0].study_id, "leaking"),
        (studies[0].study_id, "gone"),
        (studies[1].study_id, ""),
    }
    assert "no scan" in notes[studies[0].study_id, "gone"]
    assert "no label map" in notes[studies[1].study_id, ""]
    assert not [line for line in leak_warnings(rows, PV) if "not checked" in line]  # that is no leak
    told = unchecked(rows)
    assert told.startswith("Not checked: ")
    assert "\n" not in told
    assert all(name in told for name in (f"{studies[0].study_id} (gone)", studies[1].study_id))
    assert unchecked([row for row in rows if row.organ]) == ""
    assert len(of(rows, "honest", "aorta")) == 1  # the rest goes on


def test_masks_may_come_from_elsewhere(studies: tuple[Study, ...], folder: Path) -> None:
    def predicted(study: Study) -> dict[str, np.ndarray]:
        assert "labels" not in study.masks
        masks = read_organs(studies[0], PV)
        empty, tiny = np.zeros_like(masks["liver"]), np.zeros_like(masks["liver"])
        tiny[30:34, 30:34, 30:34] = True
        return {"aorta": masks["aorta"], "spleen": empty, "pancreas": tiny}

    rows = check_phase_leak([replace(studies[0], masks={})], ["leaking"], folder, organs=predicted)
    assert [(row.organ, row.drift is None) for row in rows] == [
        ("aorta", False),
        ("spleen", True),
        ("pancreas", True),
    ]
    assert rows[1].note == "not in the scan"
    assert rows[2].note.startswith("too small")
    rows = check_phase_leak(
        studies[:1], ["honest"], folder, organs=lambda _: {"aorta": np.ones((3, 3, 3), bool)}
    )
    assert "aorta has (3, 3, 3) voxels" in rows[0].note


def test_another_target_takes_its_own_label_map(studies: tuple[Study, ...]) -> None:
    with pytest.raises(NotFoundError, match="arterial_labels"):
        read_organs(studies[0], Phase.ARTERIAL)
    named = replace(studies[0], masks={"arterial_labels": studies[0].masks["labels"]})
    assert set(read_organs(named, Phase.ARTERIAL)) == set(ORGANS)


def test_the_numbers_are_totalsegmentators() -> None:
    mapping = pytest.importorskip("totalsegmentator.map_to_binary")
    total = mapping.class_map["total"]
    assert {name: total[number] for name, number in ORGANS.items()} == {name: name for name in ORGANS}
