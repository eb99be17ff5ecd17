"""The examples run, with a small budget."""

from __future__ import annotations

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


@pytest.mark.slow
def test_fine_tune(tmp_path: Path) -> None:
    """From weights that return what they are given; each held-out phantom is better than before."""
    torch.manual_seed(0)
    untuned = mpfnl.PFNL3D(features=8, blocks=1).save_pretrained(tmp_path / "untuned")
    options = {f"--{name.lower().replace('_', '-')}": str(value) for name, value in SMALL_BUDGET.items()}
    options |= {"--weights": str(untuned), "--degradation": "severe"}
    words = [word for option in options.items() for word in option]
    command = [sys.executable, str(EXAMPLES / "fine_tune.py"), "--output", "tuned", *words]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr[-2000:]
    gains = re.findall(r"^ *phantom-7002-\d{4} .* ([+-]\d+\.\d\d)$", result.stdout, re.M)
    assert len(gains) == SMALL_BUDGET["HELD_OUT"]
    assert min(map(float, gains)) > 0.1
    record = load_model(tmp_path / "tuned" / "weights").training_record
    assert record is not None
    assert (record.phantoms, record.steps, record.degradation) == (True, 60, "second-order-severe-v1")
    assert record.started_from is not None
    assert record.metrics["PSNR (dB)"].n == 2
