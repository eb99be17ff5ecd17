"""Today's thresholds on what the calibration of the quality record measured: its committed numbers."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from quality_calibration import BAD, GOOD

from mpfnl.data.manifest import Quality
from mpfnl.prepare.quality import Thresholds, judge

CALIBRATION = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "quality_calibration.csv"


@pytest.mark.parametrize("group", ["chosen on", "held out"])
def test_thresholds_sort_the_registered_phantoms(group: str) -> None:
    """The verdicts of today's thresholds on the numbers that the calibration measured."""
    with CALIBRATION.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == group]
    verdicts: dict[str, dict[str, list[Quality]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        numbers = {name: float(value) for name, value in row.items() if _is_number(value)}
        verdict = judge(numbers, Thresholds())[0] if "similarity_after" in numbers else Quality.FAIL
        verdicts[row["kind"]][f"{row['size']} {row['patient']}"].append(verdict)
    for kind in BAD:
        assert {verdict for study in verdicts[kind].values() for verdict in study} == {Quality.FAIL}
    good = [set(study) == {Quality.PASS} for study in verdicts[GOOD].values()]
    assert len(good) >= 12
    assert np.mean(good) >= 0.95


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
