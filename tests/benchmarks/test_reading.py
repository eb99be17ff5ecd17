"""The comparison with SimpleITK's reader runs, and counts what it compares."""

from __future__ import annotations

from pathlib import Path

import pytest
import reading
from reading import OURS, THEIRS, measure, report, rows

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux' /proc")


def test_a_small_series(capsys: pytest.CaptureFixture[str]) -> None:
    """Memory does not depend on the machine: the volume once, and little beside it."""
    table = measure(slices=24, repeats=1)
    ours, theirs = table
    assert (ours.reader, theirs.reader) == (OURS, THEIRS)
    assert theirs.wall_to_simpleitk == theirs.cpu_to_simpleitk == 1
    assert 0.9 < ours.memory_per_voxels < reading.MOST_MEMORY
    report(table)
    printed = capsys.readouterr().out
    assert "512 x 512 x 24 " in printed
    assert f"{ours.memory_per_voxels:.2f}" in printed


def test_medians_and_ratios() -> None:
    size = 10 * 512 * 512 * 2
    found = {
        OURS: [{"wall_s": wall, "cpu_s": 1, "bytes": size} for wall in (9, 2, 1)],
        THEIRS: [{"wall_s": wall, "cpu_s": 2, "bytes": 2 * size} for wall in (4, 4, 4)],
    }
    ours, theirs = rows(found, 10)
    assert (ours.wall_s, ours.wall_to_simpleitk, ours.cpu_to_simpleitk) == (2, 0.5, 0.5)
    assert ours.memory_per_voxels == 1
    assert theirs.memory_per_voxels == 2


def test_readers_that_differ_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(({"sums": [1]}, {"sums": [2]}))
    monkeypatch.setattr(reading, "read_once", lambda reader, small, large: next(answers))
    with pytest.raises(ValueError, match="differ"):
        measure(slices=2, repeats=1)
