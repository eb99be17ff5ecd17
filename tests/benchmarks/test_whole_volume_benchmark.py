"""The memory that is predicted for a study is what it takes, as the benchmark measures it."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel as nib
import pytest
from whole_volume import PACKED, QUICK, measure_memory, write_study

from mpfnl.phases import PHASES
from mpfnl.volumes import read_volume


def test_the_study_is_three_scans_on_one_grid(tmp_path: Path) -> None:
    files = write_study(tmp_path, (12, 10, 40))
    assert set(files) == set(PHASES)
    for phase, file in files.items():
        assert file.name.endswith(PACKED[phase])
        image = nib.load(file)
        assert image.shape == (12, 10, 40)
        assert image.get_data_dtype() == "int16"
        hu = read_volume(file, phase).data
        assert hu.min() == -1000
        assert hu.std() > 50


@pytest.mark.skipif(sys.platform != "linux", reason="there is no VmHWM elsewhere")
def test_a_row_tells_prediction_and_peak() -> None:
    row = measure_memory(QUICK[0])
    assert row["predicted_over_peak"] == pytest.approx(1.0, abs=0.25)
    assert 0.2 < row["peak_gb"] < 6
    assert row["voxels"] == "48x40x36"
