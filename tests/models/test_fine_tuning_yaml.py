"""The configuration of docs/fine_tuning.md, as it stands there, through the command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

import mpfnl
from mpfnl.models.loading import load_model

DOCUMENT = Path(__file__).parents[2] / "docs" / "fine_tuning.md"


def test_the_documents_configuration_runs(cohort: Path, tmp_path: Path) -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", DOCUMENT.read_text("utf-8"), flags=re.M | re.S)
    weights = mpfnl.PFNL3D(features=8, blocks=1).save_pretrained(tmp_path / "weights")
    assert block.count("pfnl3d-phantoms") == block.count("prepared/cohort.csv") == 1
    config = tmp_path / "fine_tune.yaml"
    block = block.replace("pfnl3d-phantoms", "weights")
    config.write_text(block.replace("prepared/cohort.csv", str(cohort)))
    small = ["--trainer.max_steps=8", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    small += ["--data.patch_size=16", "--data.patches_per_study=2", "--data.batch_size=2", "--data.workers=0"]
    command = [str(Path(sys.executable).with_name("mpfnl")), "fit", "--config", str(config), *small]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    log = tmp_path / "lightning_logs" / "version_0"
    used = yaml.safe_load((log / "config.yaml").read_text())
    assert used["model"]["class_path"] == "mpfnl.models.loading.start_from"
    model = load_model(log / "checkpoints" / "last.ckpt")
    record = model.training_record
    assert record is not None
    assert (record.steps, record.degradation, record.patch_size) == (8, "motion-v1", 16)
    assert record.started_from is not None
    assert record.recipe["optimiser"] == "Adam, learning rate 0.0005 merge, 0.0005 trunk, 0.001 others"
    # Eight steps are two epochs of four, in which these are frozen.
    assert record.recipe["frozen parts"] == "nonlocal_block, first"
    before = load_model(weights).network.state_dict()
    for name, tensor in model.network.state_dict().items():
        step = float((tensor - before[name]).abs().max())
        if name.startswith(("first", "nonlocal_block")):
            assert step < 1e-6  # what averaging rounds
        elif name == "reconstruct.0.bias":
            assert step > 1e-5  # averaged over eight steps of a warm-up
    (log / "checkpoints" / "last.ckpt").rename(tmp_path / "last.ckpt")
    assert load_model(model.save_pretrained(tmp_path / "adapted")).training_record == record
