"""The verb enhance: a model or its weights, scans by phase."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import mpfnl
from mpfnl.models.enhance import enhance
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume


@pytest.fixture
def scan() -> Volume:
    hu = np.random.default_rng(0).normal(60, 20, (24, 20, 10)).astype(np.int16)
    return Volume.from_array(hu, np.diag([0.8, 0.8, 5.0, 1.0]), "pv.nii")


def test_weights_do_what_their_model_does(scan: Volume, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mpfnl.RCAN3D(channels=8, groups=1, blocks=1)
    weights = model.save_pretrained(tmp_path / "weights")
    expected = enhance(model, {Phase.PORTAL_VENOUS: scan}, precision=torch.float32)
    made = enhance(weights, {"portal_venous": scan}, tmp_path / "out.nii.gz", precision=torch.float32)
    assert (expected.data != scan.data).any()
    assert np.array_equal(made.data, expected.data)
    assert np.array_equal(read_volume(tmp_path / "out.nii.gz").data, expected.data)
