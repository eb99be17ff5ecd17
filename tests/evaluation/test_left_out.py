"""Studies whose preparation failed: not evaluated, and named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import mpfnl
from mpfnl.data.manifest import Manifest, Quality, read_manifest, write_manifest
from mpfnl.errors import InputError
from mpfnl.evaluation import evaluate
from mpfnl.evaluation.scoring import EvaluateOptions, score_cohort
from mpfnl.inference.tiling import Tiling

OPTIONS = EvaluateOptions(tiling=Tiling(48, 8))


def with_failed(cohort: Path, *failed: str) -> Manifest:
    studies = [
        replace(study, quality=Quality.FAIL if study.study_id in failed else Quality.WARN)
        for study in read_manifest(cohort)
    ]
    write_manifest(cohort.parent / "prepared.csv", studies)
    return read_manifest(cohort.parent / "prepared.csv")


def test_a_failed_study_is_left_out_and_named(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = with_failed(cohort, "test0", "train1")
    models = {"RCAN3D": mpfnl.RCAN3D(channels=16, groups=1, blocks=1)}
    evaluation = evaluate(manifest, models, tmp_path, OPTIONS)
    assert {case.study_id for case in evaluation.cases} == {"test1"}
    left_out = json.loads((tmp_path / "provenance.json").read_text())["left_out"]
    assert left_out["test0"] == "its preparation failed"
    assert left_out["train1"] == "split train"
    assert "test1" not in left_out
    lines = capsys.readouterr().out.splitlines()
    assert any("1 of 2" in line and "test0" in line for line in lines)
    failures = (tmp_path / "report.html").read_text().partition('id="failures"')[2]
    assert "test0" in failures.partition("</section>")[0]


def test_nothing_left_to_evaluate_is_told(cohort: Path, tmp_path: Path) -> None:
    manifest = with_failed(cohort, "test0", "test1")
    models = {"RCAN3D": mpfnl.RCAN3D(channels=16, groups=1, blocks=1)}
    with pytest.raises(InputError, match="split test"):
        score_cohort(manifest, models, tmp_path / "evaluation", OPTIONS)
    assert not (tmp_path / "evaluation").exists()


def test_many_names_are_cut_short(cohort: Path) -> None:
    study = read_manifest(cohort).studies[0]
    failed = [replace(study, study_id=f"s{n}", quality=Quality.FAIL) for n in range(13)]
    line = Manifest(Path("folder/cohort.csv"), tuple(failed)).left_out()
    assert all(f"s{n}," in line for n in range(10))
    assert all(text in line for text in ("cohort.csv", "13 of 13", "3 more"))
    assert "s10" not in line
    assert Manifest(Path("cohort.csv"), (study,)).left_out() == ""
