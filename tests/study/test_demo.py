"""The demonstration from end to end, with the smallest budget."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from mpfnl.data.manifest import Split, read_manifest
from mpfnl.data.phantom import SplitCounts
from mpfnl.study.demo import DemoSettings, run_demo

SETTINGS = DemoSettings(
    patients=SplitCounts(train=2, val=1, test=2), epochs=1, patches_per_study=2, batch_size=1, patch_size=16
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")  # inside Lightning
def test_the_whole_study_runs_and_goes_on_from_what_is_finished(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert {row["method"] for row in rows} == {"degraded", "RCAN3D", "PFNL3D"}
    assert list((folder / "training").rglob("montages/*.png"))
    weights = (folder / "weights" / "PFNL3D" / "model.safetensors").stat().st_mtime_ns
    shutil.rmtree(folder / "evaluation")
    run_demo(folder, seed=3, settings=SETTINGS)
    assert "not trained again" in capsys.readouterr().out
    assert (folder / "weights" / "PFNL3D" / "model.safetensors").stat().st_mtime_ns == weights
    with (folder / "evaluation" / "cases.csv").open() as file:
        assert list(csv.DictReader(file)) == rows
