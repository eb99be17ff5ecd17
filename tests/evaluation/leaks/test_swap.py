"""The swap test on a network whose mixture of phases is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mpfnl.evaluation.leaks.swap import BODY, swap_test
from mpfnl.inference.enhancement import EnhanceOptions
from mpfnl.inference.tiling import Tiling
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Volume
from mpfnl.window import ABDOMEN, Window

NC, ARTERIAL, PV = PHASES
SHAPE = (24, 22, 20)
SPACING = 2.0
OPTIONS = EnhanceOptions(Tiling(16, 4), precision=torch.float32)
LEVELS = {NC: 40.0, ARTERIAL: 190.0, PV: 110.0}


class Mixture(nn.Module):
    """Adds up the phases, each with its weight."""

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights)[None, :, None, None, None])

    def forward(self, phases: torch.Tensor) -> torch.Tensor:
        return (phases * self.weights).sum(1, keepdim=True)


@dataclass
class Model:
    weights: Sequence[float]
    name: str = "mixture"
    phases: Sequence[Phase] = PHASES
    target: Phase = PV
    window: Window = ABDOMEN
    reference_noise: None = None
    network: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        self.network = Mixture(self.weights)


def ball() -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n) - n / 2 for n in SHAPE), indexing="ij"))
    return np.asarray((grid**2).sum(0) * SPACING**2 < 14.0**2)


@pytest.fixture(scope="module")
def scans() -> dict[Phase, Volume]:
    """A ball of 14 mm in fat, within the window so that HU pass through the network."""
    rng = np.random.default_rng(3)
    affine = np.diag([SPACING] * 3 + [1.0])
    return {
        phase: Volume.from_array(
            (np.where(ball(), hu, -80.0) + rng.uniform(-5, 5, SHAPE)).astype(np.float32),
            affine,
            Path(f"{phase}.nii.gz"),
            phase,
        )
        for phase, hu in LEVELS.items()
    }


@settings(deadline=None, max_examples=8)
@given(arterial=st.floats(0.0, 0.4), noncontrast=st.floats(0.0, 0.3))
def test_what_a_phase_gave_is_its_weight_times_the_gap(
    scans: dict[Phase, Volume], arterial: float, noncontrast: float
) -> None:
    weights = {NC: noncontrast, ARTERIAL: arterial, PV: 1.0 - arterial - noncontrast}
    rows = swap_test(Model([weights[phase] for phase in PHASES]), scans, {"liver": ball()}, OPTIONS)
    assert [(row.swapped, row.region) for row in rows] == [
        (NC, "liver"),
        (NC, BODY),
        (ARTERIAL, "liver"),
        (ARTERIAL, BODY),
    ]
    for row in rows:
        assert row.by is PV
        difference = weights[row.swapped] * (scans[row.swapped].data - scans[PV].data)
        if row.region == "liver":
            assert row.given_hu == pytest.approx(
                weights[row.swapped] * (LEVELS[row.swapped] - LEVELS[PV]), abs=1
            )
        else:  # all of this is soft tissue
            assert row.given_hu == pytest.approx(difference.mean(), abs=0.01)
            assert row.rms_hu == pytest.approx(np.sqrt((difference**2).mean()), abs=0.01)


def test_another_phase_may_stand_in(scans: dict[Phase, Volume]) -> None:
    model = Model([0.2, 0.3, 0.5])
    rows = swap_test(model, scans, {"liver": ball()}, OPTIONS, by=ARTERIAL)
    assert {row.swapped for row in rows} == {NC}
    assert rows[0].given_hu == pytest.approx(0.2 * (LEVELS[NC] - LEVELS[ARTERIAL]), abs=1)


def test_a_model_of_one_phase_has_nothing_to_swap(scans: dict[Phase, Volume]) -> None:
    model = Model([1.0], phases=[PV])
    assert swap_test(model, {PV: scans[PV]}, {"liver": ball()}, OPTIONS) == []


def test_air_is_no_body_and_small_organs_have_no_row(scans: dict[Phase, Volume]) -> None:
    half = {}
    for phase, scan in scans.items():
        data = scan.data.copy()
        data[12:] = -175.0  # as a degradation leaves air
        half[phase] = Volume.from_array(data, scan.affine, scan.path, phase)
    tiny = np.zeros(SHAPE, bool)
    tiny[5:8, 5:8, 5:8] = True
    rows = swap_test(Model([0.0, 0.5, 0.5]), half, {"tiny": tiny, "none": ~tiny & tiny}, OPTIONS)
    assert {row.region for row in rows} == {BODY}
    inside = 0.5 * (half[ARTERIAL].data - half[PV].data)[:12]
    assert rows[1].rms_hu == pytest.approx(np.sqrt((inside**2).mean()), rel=0.1)


def test_what_does_not_fit_is_refused(scans: dict[Phase, Volume]) -> None:
    with pytest.raises(ValueError, match="not arterial"):
        swap_test(Model([0.5, 0.5], phases=[NC, PV]), scans, {}, OPTIONS, by=ARTERIAL)
    with pytest.raises(ValueError, match="mask of liver"):
        swap_test(Model([0.2, 0.3, 0.5]), scans, {"liver": np.ones((3, 3, 3), bool)}, OPTIONS)
