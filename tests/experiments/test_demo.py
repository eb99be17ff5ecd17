"""The demonstration from end to end, with the smallest budget."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mpfnl.cli import main
from mpfnl.data.manifest import Split, SplitCounts, read_manifest
from mpfnl.experiments import demo
from mpfnl.experiments.budget import TrainingBudget
from mpfnl.experiments.demo import SHIPPED, DemoSettings, run_demo
from mpfnl.models import shipped_weights
from mpfnl.models.loading import load_model
from mpfnl.segmentation import process

QUICK = (sys.executable, str(Path(__file__).parents[1] / "support" / "quick_worker.py"))
SETTINGS = DemoSettings(
    patients=SplitCounts(train=2, val=1, test=2),
    budget=TrainingBudget(epochs=1, patches_per_study=2, batch_size=1, patch_size=16),
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")  # inside Lightning
def test_the_whole_study_runs_and_goes_on_from_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", QUICK)
    folder = tmp_path / "demo"
    run_demo(folder, seed=3, settings=SETTINGS)
    printed = capsys.readouterr().out
    assert "Table I: portal venous phase, n = 2 studies" in printed
    assert "Phantoms, not patients" in printed
    assert "Phantoms, not patients" in (folder / "evaluation" / "report.html").read_text(encoding="utf-8")
    with (folder / "evaluation" / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    tested = {study.study_id for study in read_manifest(folder / "cohort" / "cohort.csv").split(Split.TEST)}
    assert {row["study_id"] for row in rows} == tested
    assert {row["method"] for row in rows} == {"reference", "degraded", "RCAN3D", "PFNL3D"}
    assert "Table II: pancreas, n = 2 studies" in printed
    assert "phantom weights" in printed
    figures = {path.name for path in (folder / "evaluation" / "figures").iterdir()}
    assert {"image_quality.png", "segmentation.png"} <= figures
    assert any(name.startswith("contours_") for name in figures)
    assert (folder / "evaluation" / "phase_leak.csv").is_file()
    assert list((folder / "training").rglob("montages/*.png"))
    weights = (folder / "weights" / "PFNL3D" / "model.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(process, "COMMAND", ("false",))  # nothing is left to segment
    run_demo(folder, seed=3, settings=SETTINGS)
    assert "not trained again" in capsys.readouterr().out
    assert (folder / "weights" / "PFNL3D" / "model.safetensors").stat().st_mtime_ns == weights
    with (folder / "evaluation" / "cases.csv").open() as file:
        assert list(csv.DictReader(file)) == rows


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
def test_it_can_begin_with_the_weights_that_ship(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[object] = []  # which the other test is about
    monkeypatch.setattr(demo, "evaluate", lambda *arguments, **_: evaluated.append(arguments[1]))
    run_demo(tmp_path, seed=3, settings=replace(SETTINGS, fine_tune=True))
    assert len(evaluated) == 1
    printed = capsys.readouterr().out
    for name, weights in SHIPPED.items():
        assert weights in shipped_weights()
        assert f"steps from {weights}" in printed
        trained = load_model(tmp_path / "weights" / name).training_record
        assert trained is not None
        assert trained.started_from == load_model(weights).training_record
        settings = json.loads((tmp_path / "training" / f"{name}.json").read_text())["settings"]
        assert settings["start_from"]["weights"] == weights


@pytest.mark.parametrize("seed", ["7107", "7108"])
def test_phantoms_that_were_trained_on_are_not_held_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: str
) -> None:
    """Those of either cycle of the shipped weights."""
    assert main(["demo", "-o", str(tmp_path / "demo"), "--seed", seed, "--fine-tune"]) == 2
    error = capsys.readouterr().err
    assert f"--seed {seed}" in error
    assert "rcan3d-phantoms" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "demo").exists()
