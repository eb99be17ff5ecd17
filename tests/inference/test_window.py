"""Any HU window: the one of the model is used from the network's input to the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpfnl.inference.enhancement import EnhanceOptions, enhance_study
from mpfnl.inference.tiling import Tiling
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume
from mpfnl.window import ABDOMEN, Window

LIVER = Window(level=60, width=150)  # [-15, 135] HU
OPTIONS = EnhanceOptions(Tiling(16, 4), torch.float32)


class Brighter(nn.Module):
    """Adds a tenth of the window; records the range of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.high = np.inf, -np.inf

    def forward(self, phases: Tensor) -> Tensor:
        self.low, self.high = min(self.low, float(phases.min())), max(self.high, float(phases.max()))
        return phases[:, -1:] + 0.1


@dataclass
class Model:
    network: nn.Module
    window: Window
    phases: Sequence[Phase] = (Phase.PORTAL_VENOUS,)
    name: str = "stand-in"
    target: Phase = Phase.PORTAL_VENOUS
    optional_phases: tuple[Phase, ...] = ()
    trained_without_phases: bool = False
    reference_noise: None = None
    patch_size: int | None = None


def liver() -> Volume:
    """Liver of 100 HU, fat of -100 HU to one side and bone of 700 HU to the other."""
    hu = np.full((30, 20, 24), 100, np.int16)
    hu[:10], hu[20:] = -100, 700
    return Volume.from_array(hu, np.diag([0.8, 0.8, 2.5, 1.0]), "liver.nii", Phase.PORTAL_VENOUS)


@pytest.mark.parametrize("window", [LIVER, ABDOMEN, Window(level=300, width=1500)], ids=str)
def test_the_models_window_goes_all_the_way(window: Window, tmp_path: Path) -> None:
    network, scan = Brighter(), liver()
    enhanced = enhance_study(
        Model(network, window), {Phase.PORTAL_VENOUS: scan}, tmp_path / "out.nii.gz", OPTIONS
    )
    inner = {-100: slice(0, 7), 100: slice(13, 17), 700: slice(23, 30)}  # away from the borders
    assert network.low == pytest.approx(window.normalize(-100.0))
    assert network.high == pytest.approx(window.normalize(700.0))
    for hu, place in inner.items():
        inside = window.lower <= hu <= window.upper
        # Voxels far outside the window keep the input's HU.
        expected = min(hu + 0.1 * window.width, window.upper) if inside else hu
        assert np.abs(enhanced.data[place] - expected).max() <= 0.5, hu
    assert np.array_equal(read_volume(tmp_path / "out.nii.gz").data, enhanced.data)


def test_bone_and_fat_keep_their_hu_under_a_liver_window() -> None:
    scan = liver()
    enhanced = enhance_study(Model(Brighter(), LIVER), {Phase.PORTAL_VENOUS: scan}, options=OPTIONS)
    assert (enhanced.data[13:17] == 115).all()
    for outside in (slice(0, 7), slice(23, 30)):
        assert np.array_equal(enhanced.data[outside], scan.data[outside])
