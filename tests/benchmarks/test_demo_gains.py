"""The demonstration's check: holds exactly where both methods gain enough, in every metric, on every case."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import demo_gains
import numpy as np
import pytest

from mpfnl.evaluation.cases import Case
from mpfnl.evaluation.tables.metric_table import tabulate, write_summary

ENOUGH = {"RCAN3D": (2.05, 0.155), "PFNL3D": (3.0, 0.2)}


def cases(gains: dict[str, tuple[float, float]]) -> list[Case]:
    """Six phantoms; the gains scatter evenly about their means, so that single phantoms fall short."""
    rows = []
    for number, scatter in enumerate(np.linspace(-0.1, 0.1, 6)):
        rows.append(Case(f"s{number}", f"p{number}", "degraded", 23.0 + number, 0.4))
        for method, (psnr, ssim) in gains.items():
            gained = Case(f"s{number}", f"p{number}", method, 23.0 + number + psnr + scatter, 0.4 + ssim)
            rows.append(gained)
    return rows


def status(folder: Path, rows: list[Case]) -> int:
    (folder / "evaluation").mkdir()
    write_summary(folder / "evaluation", tabulate(rows))
    return demo_gains.main([str(folder)])


def test_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(tmp_path, cases(ENOUGH)) == 0
    printed = capsys.readouterr().out
    assert printed.count("n 6") == printed.count(": holds") == 4
    assert "RCAN3D  PSNR, dB  n 6  +2.05 (95 % CI +" in printed


@pytest.mark.parametrize(
    ("method", "gain"),
    [("RCAN3D", (1.9, 0.2)), ("RCAN3D", (4.0, 0.14)), ("PFNL3D", (1.9, 0.2)), ("PFNL3D", (4.0, 0.14))],
)
def test_one_too_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, gain: tuple[float, float]
) -> None:
    assert status(tmp_path, cases(ENOUGH | {method: gain})) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "DOES NOT HOLD" in line]
    assert line.startswith(method)


def test_a_failed_case_does_not_hold(tmp_path: Path) -> None:
    rows = cases(ENOUGH)
    rows[-1] = replace(rows[-1], psnr_db=math.nan)
    assert status(tmp_path, rows) == 1


def test_a_missing_method_or_file_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo_gains.main([str(tmp_path)]) == 1
    assert status(tmp_path, cases({"RCAN3D": (3.0, 0.2)})) == 1
    assert capsys.readouterr().err.count("summary.json: no summary") == 2
