"""Contrast and structure in an evaluation: known changes of a made-up liver, and their way to the tables."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from mpfnl.data.manifest import Manifest, read_manifest
from mpfnl.errors import ConflictError
from mpfnl.evaluation import evaluate
from mpfnl.evaluation.cases import STRUCTURE_COLUMNS, Case, columns, read_cases
from mpfnl.evaluation.probes import PROBE_COLUMNS
from mpfnl.evaluation.scoring import score_cohort
from mpfnl.evaluation.structure import CleanScan
from mpfnl.evaluation.tables.metric_table import tabulate_structure, write_summary
from mpfnl.metrics.contrast import sphere_fraction
from mpfnl.metrics.registry import register_metric
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.window import ABDOMEN

PV = Phase.PORTAL_VENOUS
SPACING = (1.5, 1.5, 2.5)


@pytest.fixture(scope="module")
def liver() -> tuple[np.ndarray, np.ndarray]:
    """HU and labels: a liver of 110 HU in fat, with a portal vein of 170 HU, a small and a large lesion."""
    shape = (60, 54, 30)
    hu, labels = np.full(shape, -1000.0), np.zeros(shape, np.uint8)
    hu[4:-4, 4:-4] = -90
    hu[8:50, 8:46, 3:27], labels[8:50, 8:46, 3:27] = 110, 5
    hu[12:22, 12:22, 3:27], labels[12:22, 12:22, 3:27] = 170, 64
    for centre, diameter in (((35, 20, 15), 8.0), ((35, 36, 15), 14.0)):
        sphere = sphere_fraction(shape, SPACING, centre, diameter)
        hu -= 50 * sphere
        labels[sphere > 0.5] = 203
    return hu + np.random.default_rng(0).normal(0, 3, shape), labels


def clean_scan(hu: np.ndarray, labels: np.ndarray | None) -> CleanScan:
    scan = Volume.from_array(hu.astype(np.float32), np.diag([*SPACING, 1.0]), Path("clean.nii.gz"), PV)
    return CleanScan.of(scan, labels, ABDOMEN)


def clipped(hu: np.ndarray) -> np.ndarray:
    return hu.clip(ABDOMEN.lower, ABDOMEN.upper).astype(np.float32)


def test_the_clean_scan_itself_has_no_error(liver: tuple[np.ndarray, np.ndarray]) -> None:
    hu, labels = liver
    values = clean_scan(hu, labels).measure(clipped(hu))
    missing = {"vena_cava_kept", "aorta_kept", "liver_vessels_kept"}
    assert set(STRUCTURE_COLUMNS) - set(values) == missing | set(PROBE_COLUMNS)
    ideal = {column: 1.0 if column.endswith(("ratio", "kept")) else 0.0 for column in values}
    assert values == pytest.approx(ideal, abs=1e-5)


def test_known_changes_are_measured(liver: tuple[np.ndarray, np.ndarray]) -> None:
    hu, labels = liver
    clean = clean_scan(hu, labels)
    lesion = labels == 203
    faint = clean.measure(clipped(np.where(lesion, hu + 25, hu)))
    contrast = 110 - hu[:, 28:][lesion[:, 28:]].mean()  # of the large one
    assert faint["large_lesions_kept"] == pytest.approx(1 - 25 / contrast, abs=0.02)
    assert faint["portal_vein_kept"] == pytest.approx(1.0)
    pale = clean.measure(clipped(np.where(labels == 64, hu - 30, hu)))
    assert pale["portal_vein_kept"] == pytest.approx(0.5, abs=0.01)
    assert pale["organ_error_hu"] == pytest.approx(30.0, abs=0.1)
    shifted = clean.measure(clipped(hu - 7 * (labels == 5)))
    assert shifted["organ_error_hu"] == pytest.approx(7.0, abs=0.1)
    blob = 40 * sphere_fraction(hu.shape, SPACING, (20, 34, 15), 9.0)
    volume = np.count_nonzero(clean.homogeneous[5]) * 1.5 * 1.5 * 2.5 / 1000
    assert clean.measure(clipped(hu + blob))["blobs_per_100_ml"] == pytest.approx(100 / volume)
    blurred = clean.measure(clipped(gaussian_filter(hu, 1.5)))
    assert blurred["edge_ratio"] < 0.8
    assert blurred["noise_ratio"] < 0.5
    assert blurred["small_lesions_kept"] < blurred["large_lesions_kept"] < 1


def test_without_labels_the_body_is_measured_and_without_a_body_nothing(
    liver: tuple[np.ndarray, np.ndarray],
) -> None:
    hu, _ = liver
    values = clean_scan(hu, None).measure(clipped(hu + 4))
    assert set(values) == {"body_rmse_hu", "edge_ratio", "noise_ratio"}
    assert values["body_rmse_hu"] == pytest.approx(4.0, abs=0.01)
    assert not clean_scan(np.full(hu.shape, -1000.0), None).measure(clipped(hu))


@pytest.fixture
def labelled(cohort: Path, tmp_path: Path) -> Manifest:
    """The first test study with a label map: a liver, and a vessel that is brighter."""
    manifest = read_manifest(cohort)
    study = manifest.split("test").studies[0]
    scan = read_volume(study.file(PV))
    labels = np.where(scan.data > 60, 5, 0).astype(np.uint8)
    labels[16:22, 14:20, 8:22] = 52
    path = tmp_path / "labels.nii.gz"
    write_volume(path, labels, like=scan)
    return replace(manifest, studies=(replace(study, masks={"labels": path}),))


def test_the_rows_reach_table_summary_and_report(labelled: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    evaluation = evaluate(labelled, {}, out)
    (case,) = read_cases(out / "cases.csv")
    assert case.structure == evaluation.cases[0].structure
    assert {"body_rmse_hu", "edge_ratio", "noise_ratio", "organ_error_hu"} <= set(case.structure)
    (study,) = labelled
    files = out / "volumes" / study.study_id / "degraded_portal_venous.nii.gz", study.file(PV)
    image, clean = (clipped(read_volume(file).data.astype(float)) for file in files)
    body = read_volume(study.file(PV)).data > -500  # a convex body without lungs
    expected = np.sqrt(np.mean((image - clean)[body] ** 2.0))
    assert case.structure["body_rmse_hu"] == pytest.approx(expected, rel=0.1)
    tables = {table.metric.column: table for table in evaluation.structure_tables}
    assert set(tables) == set(case.structure)
    record = json.loads((out / "summary.json").read_text())
    assert record["edge_ratio"]["best"] == 1.0
    assert record["body_rmse_hu"]["methods"]["degraded"]["mean"] == case.structure["body_rmse_hu"]
    assert "Contrast and structure" in (out / "report.html").read_text("utf-8")
    with (out / "structure.csv").open(newline="") as file:
        rows = {row["structure"]: row for row in csv.DictReader(file)}
    for column, name in (("aorta_kept", "aorta"), ("liver_vessels_kept", "liver_vessels")):
        assert (column in case.structure) == (name in rows)
        if name in rows:
            assert float(rows[name]["kept"]) == pytest.approx(case.structure[column], abs=1e-3)


def test_a_label_map_may_be_added_later(labelled: Manifest, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    plain = replace(labelled, studies=(replace(labelled.studies[0], masks={}),))
    first = score_cohort(plain, {}, out).cases[0].structure
    second = score_cohort(labelled, {}, out).cases[0].structure
    assert "organ_error_hu" not in first
    assert "organ_error_hu" in second
    assert {name: second[name] for name in first} == first


def test_a_ratio_is_compared_by_its_distance_from_one(tmp_path: Path) -> None:
    ratios = {"degraded": [0.7, 1.2, 0.8], "sharper": [1.1, 0.9, 1.1], "plastic": [0.2, 0.3, 0.1]}
    cases = [
        Case(f"s{number}", "p", name, structure={"edge_ratio": value})
        for name, values in ratios.items()
        for number, value in enumerate(values)
    ]
    (table,) = tabulate_structure(cases)
    for name, values in ratios.items():
        assert table.summaries[name].mean == pytest.approx(np.mean(values))
    assert table.gains["sharper"].mean == pytest.approx(0.1 - (0.3 + 0.2 + 0.2) / 3)
    assert table.gains["plastic"].mean == pytest.approx(0.8 - (0.3 + 0.2 + 0.2) / 3)
    test = table.against_baseline("sharper")
    assert test is not None
    assert test.effect == -1.0
    write_summary(tmp_path, [table])
    gain = json.loads((tmp_path / "summary.json").read_text())["edge_ratio"]["gains"]["sharper"]["mean"]
    assert gain == pytest.approx(table.gains["sharper"].mean)


def test_no_other_metric_takes_their_columns() -> None:
    assert set(STRUCTURE_COLUMNS) < set(columns())
    for column in STRUCTURE_COLUMNS:
        with pytest.raises(ConflictError):
            register_metric(column.replace("_", " "), lambda a, b: (a - b).mean())
