"""The plot of the operator's benchmark: each method's points, from the rows that have a time."""

from __future__ import annotations

from pathlib import Path

import plot_nonlocal_attention as plot
import pytest
from common import write_csv
from matplotlib.image import imread

SHARED = {"mode": "gaussian", "task": "forward and backward", "precision": "float32", "channels": 24}


def row(method: str, positions: int, milliseconds: str, memory: str, status: str = "ok") -> dict[str, object]:
    own = {"method": method, "positions": positions, "status": status}
    return own | {"median_ms": milliseconds, "peak_mb_above_inputs": memory}


ROWS = [
    row("materialised", 2048, "40", "50"),
    row("materialised", 1024, "10", "12.5"),
    row("materialised", 4096, "", "", status="out of memory"),
    row("ours, dispatched", 1024, "9", "3"),
    row("ours, dispatched", 1024, "8", "2"),
    row("ours, dispatched", 4096, "80", "4"),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    write_csv(tmp_path / "rows.csv", ROWS, SHARED | {"device": "some CPU"})
    return tmp_path / "rows.csv"


def test_both_panels_show_every_point(table: Path, tmp_path: Path) -> None:
    figure = plot.figure_of(plot.read(table, "gaussian", "forward and backward", "float32"), "title")
    time, memory = figure.axes
    shown = {line.get_label(): line.get_xydata().tolist() for line in time.lines}
    assert shown == {
        "materialised": [[1024, 0.01], [2048, 0.04]],
        "ours, dispatched": [[1024, 0.008], [4096, 0.08]],
    }
    assert memory.lines[1].get_ydata().tolist() == [2, 4]
    for panel in figure.axes:
        assert panel.get_xscale() == panel.get_yscale() == "log"
        assert panel.get_title() == "float32, some CPU"
    assert "memory" in memory.get_ylabel()


def test_the_picture_is_written(table: Path, tmp_path: Path) -> None:
    assert plot.main([str(table), "-o", str(tmp_path / "plot.png")]) == 0
    height, width = imread(tmp_path / "plot.png").shape[:2]
    assert width >= 800
    assert height >= 400


def test_a_table_without_such_rows_is_told(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        plot.main([str(table), "--precision", "bfloat16"])
    assert "has no times of gaussian, forward and backward, bfloat16" in capsys.readouterr().err
