"""The examples run, with a small budget."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mpfnl

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
