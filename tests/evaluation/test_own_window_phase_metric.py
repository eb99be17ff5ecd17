"""Window, phases and metrics are data: those of models, studies and registry reach the report."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

import mpfnl
from mpfnl.data.manifest import Manifest, read_manifest
from mpfnl.errors import ConflictError, FormatError
from mpfnl.evaluation import EvaluateOptions, evaluate
from mpfnl.evaluation.cases import read_cases
from mpfnl.evaluation.scoring import score_cohort
from mpfnl.inference.tiling import Tiling
from mpfnl.metrics.registry import register_metric, unregister_metric
from mpfnl.phases import Phase
from mpfnl.volumes import read_volume, write_volume
from mpfnl.window import ABDOMEN, Window

LIVER = Window(level=60, width=150)
OPTIONS = EvaluateOptions(tiling=Tiling(32, 8), precision=torch.float32)
PV = Phase.PORTAL_VENOUS


def rcan3d(window: Window) -> mpfnl.RCAN3D:
    torch.manual_seed(0)
    model = mpfnl.RCAN3D(channels=8, groups=1, blocks=1)
    model.window = window
    return model.eval()


def one_study(cohort: Path) -> Manifest:
    manifest = read_manifest(cohort)
    return replace(manifest, studies=manifest.split("test").studies[:1])


def test_a_liver_window_reaches_the_scores_the_record_and_the_report(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = one_study(cohort)
    evaluation = evaluate(manifest, {"RCAN3D": rcan3d(LIVER)}, tmp_path, OPTIONS)
    assert evaluation.window == LIVER
    (study,) = manifest
    clean = read_volume(study.file(PV)).data
    for case in read_cases(tmp_path / "cases.csv"):
        name = "degraded_portal_venous" if case.method == "degraded" else case.method
        scan = read_volume(tmp_path / "volumes" / study.study_id / f"{name}.nii.gz").data
        unit, target = (np.clip((hu + 15.0) / 150.0, 0, 1) for hu in (scan, clean))
        assert case.psnr_db == pytest.approx(peak_signal_noise_ratio(target, unit, data_range=1.0), abs=1e-3)
    record = json.loads((tmp_path / "provenance.json").read_text())
    assert record["settings"]["window_hu"] == {"level": 60.0, "width": 150.0}
    report = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert report.count("[−15, 135] HU") >= 3  # definitions, captions, the phase-leak check
    assert "275" not in report[: report.index("Provenance")].split("base64")[0]
    assert "[−15, 135] HU" in capsys.readouterr().out


def test_models_of_two_windows_are_refused(cohort: Path, tmp_path: Path) -> None:
    models = {"liver": rcan3d(LIVER), "abdomen": rcan3d(ABDOMEN)}
    with pytest.raises(ConflictError, match=r"liver: .* width 150 HU; abdomen: .* width 450 HU"):
        score_cohort(read_manifest(cohort), models, tmp_path / "e", OPTIONS)
    assert not (tmp_path / "e").exists()


def test_folders_alone_are_compared_in_the_window_of_the_options(cohort: Path, tmp_path: Path) -> None:
    manifest = one_study(cohort)
    assert score_cohort(manifest, {}, tmp_path / "a", OPTIONS).window == ABDOMEN
    liver = score_cohort(manifest, {}, tmp_path / "b", replace(OPTIONS, window=LIVER))
    assert liver.window == LIVER


ONE_MORE_PHASE = """
import importlib.util, sys
from pathlib import Path

spec = importlib.util.find_spec("mpfnl.phases")
source = Path(spec.origin).read_text(encoding="utf-8")
last = '    DELAYED = "delayed"\\n'
assert source.count(last) == 1
phases = importlib.util.module_from_spec(spec)
sys.modules["mpfnl.phases"] = phases
source = source.replace(last, last + '    NEPHROGRAPHIC = "nephrographic"\\n')
exec(compile(source, spec.origin, "exec"), phases.__dict__)

from mpfnl.cli import main

sys.exit(main(sys.argv[1:]))
"""
"""The command line of a package whose enumeration of phases has one more member."""


def test_a_phase_that_the_code_does_not_know_reaches_the_report(cohort: Path, tmp_path: Path) -> None:
    (study,) = one_study(cohort)
    labels = tmp_path / "labels.nii.gz"
    clean = read_volume(study.file(PV))
    organ = np.zeros(clean.shape, np.uint8)
    organ[8:30, 8:28, 5:25] = 5  # the liver of the phase-leak check
    write_volume(labels, organ, like=clean, dtype=np.dtype(np.uint8))
    files = [*study.scans.values(), study.file(Phase.ARTERIAL), labels]
    header = ["study_id", "patient_id", "split", *study.phases, "nephrographic", "labels"]
    with (tmp_path / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, ["s", "p", "test", *files]])
    out = tmp_path / "evaluation"
    command = [sys.executable, "-c", ONE_MORE_PHASE, "evaluate", str(tmp_path / "cohort.csv"), "-o", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (out / "volumes" / "s" / "degraded_nephrographic.nii.gz").is_file()
    assert "nephrographic" in json.loads((out / "provenance.json").read_text())["studies"]["s"]
    with (out / "phase_leak.csv").open(newline="", encoding="utf-8") as file:
        liver = next(row for row in csv.DictReader(file) if row["organ"] == "liver")
    assert float(liver["nephrographic_hu"]) == pytest.approx(float(liver["arterial_hu"]))
    assert "share toward nephrographic" in (out / "report.html").read_text(encoding="utf-8")


def test_an_image_metric_of_ones_own_reaches_the_tables(cohort: Path, tmp_path: Path) -> None:
    register_metric("MAE", lambda a, b: (a - b).abs().mean(), higher_is_better=False)
    try:
        evaluation = score_cohort(one_study(cohort), {"RCAN3D": rcan3d(ABDOMEN)}, tmp_path, OPTIONS)
        assert [table.metric.name for table in evaluation.image_tables] == ["PSNR", "SSIM", "MAE"]
        cases = read_cases(tmp_path / "cases.csv")
        assert repr(cases) == repr(evaluation.cases)  # NaN is not equal to itself
        for case in cases:
            (study,) = one_study(cohort)
            name = "degraded_portal_venous" if case.method == "degraded" else case.method
            scan = read_volume(tmp_path / "volumes" / study.study_id / f"{name}.nii.gz").data
            clean = read_volume(study.file(PV)).data
            unit, target = (ABDOMEN.normalize(hu.astype(float)) for hu in (scan, clean))
            assert case.values["mae"] == pytest.approx(np.abs(unit - target).mean(), rel=1e-4)
    finally:
        unregister_metric("MAE")
    with pytest.raises(FormatError, match=r"cases\.csv"):  # its column is unknown now
        read_cases(tmp_path / "cases.csv")
