"""The examples run, with a small budget."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import Processes

import mpfnl
from mpfnl.models.loading import load_model

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_train(cohort: Path, tmp_path: Path) -> None:
    small = ["--epochs", "1", "--patch-size", "16", "--features", "8", "--blocks", "1"]
    command = [
        sys.executable,
        str(EXAMPLES / "train.py"),
        str(cohort),
        "--output",
        str(tmp_path / "out"),
        *small,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "test_psnr" in result.stdout
    assert mpfnl.PFNL3D.from_pretrained(tmp_path / "out" / "weights").config["features"] == 8


@pytest.mark.slow
def test_a_slurm_job_that_is_out_of_time_goes_on_at_its_step(cohort: Path, tmp_path: Path) -> None:
    """The script with a stand-in for srun: two nodes of one process, both on this machine."""
    epochs, steps = 16, 2
    out, requeued = tmp_path / "out", tmp_path / "requeued.txt"
    stand_in = EXAMPLES.parent / "tests" / "support" / "fake_srun.py"
    for name, line in {
        "srun": f'exec "{sys.executable}" "{stand_in}" "$@"',
        "scontrol": f'echo "$@" >> "{requeued}"',
    }.items():
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{line}\n")
        program.chmod(0o755)
    job = {"JOB_ID": "4711", "NNODES": "2", "NTASKS_PER_NODE": "1", "CPUS_PER_TASK": "1"}
    variables = {f"SLURM_{name}": value for name, value in job.items()} | {
        "SLURM_SUBMIT_DIR": str(EXAMPLES.parent),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHON": sys.executable,
    }
    small = f"--epochs {epochs} --patch-size 12 --patches-per-study 2 --batch-size 4 --features 4 --blocks 1"
    words = ["bash", EXAMPLES / "slurm_ddp.sbatch", cohort, "--output", out, *small.split()]
    words += ["--accelerator", "cpu", "--precision", "32-true", "--workers", "0"]

    def trained() -> int:
        return int(torch.load(out / "last.ckpt", weights_only=True)["global_step"])

    with Processes(tmp_path) as first:
        first.start(words, variables | {"SIGNAL_WHEN": str(out / "last.ckpt")})
        first.wait(120)
    assert requeued.read_text() == "requeue 4711\n"
    assert 0 < trained() < epochs * steps
    with Processes(tmp_path) as second:
        second.start(words, variables)
        [output] = second.wait(120)
    assert "Restored all states" in output
    assert trained() == epochs * steps
    assert requeued.read_text() == "requeue 4711\n"
    assert mpfnl.PFNL3D.from_pretrained(out / "weights").config["features"] == 4


SMALL_BUDGET = {"PATIENTS": 2, "HELD_OUT": 2, "STEPS": 60, "PATCH_SIZE": 16}


@pytest.fixture(scope="module")
def untuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small weights that have learned nothing: they return what they are given."""
    torch.manual_seed(0)
    return mpfnl.PFNL3D(features=8, blocks=1).save_pretrained(tmp_path_factory.mktemp("untuned") / "weights")


def check_gains(table: str) -> None:
    """Each held-out phantom is better than before, as far as a minute's training goes."""
    gains = [float(gain) for gain in re.findall(r"^ *phantom-7002-\d{4} .* ([+-]\d+\.\d\d)$", table, re.M)]
    assert len(gains) == SMALL_BUDGET["HELD_OUT"]
    assert min(gains) > 0.1


@pytest.mark.slow
def test_fine_tune(untuned: Path, tmp_path: Path) -> None:
    options = {f"--{name.lower().replace('_', '-')}": str(value) for name, value in SMALL_BUDGET.items()}
    options |= {"--weights": str(untuned), "--degradation": "severe"}
    words = [word for option in options.items() for word in option]
    command = [sys.executable, str(EXAMPLES / "fine_tune.py"), "--output", "tuned", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    check_gains(result.stdout)
    record = load_model(tmp_path / "tuned" / "weights").training_record
    assert record is not None
    assert (record.phantoms, record.steps, record.degradation) == (True, 60, "second-order-severe-v1")
    assert record.started_from is not None
    assert record.metrics["PSNR (dB)"].n == 2


@pytest.mark.slow
def test_fine_tuning_notebook(untuned: Path, tmp_path: Path) -> None:
    """Its cells in order, with other parameters; what is committed holds outputs and a picture."""
    cells = json.loads((EXAMPLES / "fine_tuning.ipynb").read_text("utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    (parameters,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    given = SMALL_BUDGET | {"WEIGHTS": str(untuned), "DEGRADATION": "severe", "OUTPUT": "tuned"}
    assert {line.split(" = ")[0] for line in parameters["source"]} == {
        "WEIGHTS",
        "DEGRADATION",
        "PATIENTS, HELD_OUT, STEPS, PATCH_SIZE",
        "OUTPUT",
    }
    parameters["source"] = [f"{name} = {value!r}\n" for name, value in given.items()]
    script = tmp_path / "notebook.py"
    script.write_text("\n".join("".join(cell["source"]) for cell in code))
    result = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr[-2000:]
    check_gains(result.stdout)
    assert load_model(tmp_path / "tuned" / "weights").patch_size == 16
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not any(output["output_type"] == "error" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
