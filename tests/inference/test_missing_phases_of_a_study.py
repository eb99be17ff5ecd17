"""Missing phases: declared to the network, reported, and refused if the model needs them."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mpfnl
from mpfnl.errors import NotFoundError
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study, open_study
from mpfnl.inference.selection import warn_once
from mpfnl.inference.tiling import Tiling
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Volume, write_volume
from mpfnl.window import ABDOMEN, Window

NC, ART, PV = PHASES
OPTIONS = EnhanceOptions(Tiling(16, 4), precision=torch.float32)


class MeanOfThose(nn.Module):
    """The mean of the phases that are there; notes what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: set[tuple[int, tuple[int, ...] | None]] = set()

    def forward(self, phases: Tensor, present: Sequence[int] | None = None) -> Tensor:
        self.told.add((phases.shape[1], None if present is None else tuple(present)))
        return phases.mean(1, keepdim=True)


@dataclass
class Model:
    network: nn.Module
    trained_without_phases: bool = True
    reference_noise: None = None
    name: str = "stand-in"
    optional_phases: tuple[Phase, ...] = (NC, ART)
    phases: tuple[Phase, ...] = PHASES
    target: Phase = PV
    window: Window = ABDOMEN
    patch_size: int | None = None


@pytest.fixture(autouse=True)
def _said_nothing_yet() -> None:
    warn_once.cache_clear()


@pytest.fixture
def scans() -> dict[Phase, Volume]:
    levels = {NC: 30, ART: 60, PV: 120}
    return {
        phase: Volume.from_array(
            np.full((20, 18, 12), level, np.int16), np.eye(4), Path(f"{phase}.nii"), phase
        )
        for phase, level in levels.items()
    }


@pytest.mark.parametrize(
    ("given", "present", "level"),
    [
        ((NC, ART, PV), None, 70),
        ((ART, PV), (1, 2), 90),
        ((NC, PV), (0, 2), 75),
        ((PV,), (2,), 120),
    ],
)
def test_the_network_gets_the_indices_of_the_available_phases(
    scans: dict[Phase, Volume], given: tuple[Phase, ...], present: tuple[int, ...] | None, level: int
) -> None:
    model = Model(MeanOfThose())
    backwards = {phase: scans[phase] for phase in reversed(given)}
    with open_study(model, backwards, OPTIONS) as study:
        assert study.selection.phases == given
        assert study.selection.missing == tuple(phase for phase in PHASES if phase not in given)
        assert all(phase.label in study.lines[0] for phase in PHASES)  # those used and those missing
        assert (study.volume().data == level).all()
    assert model.network.told == {(len(given), present)}


def test_the_real_network_does_without(scans: dict[Phase, Volume]) -> None:
    """As its own forward pass with `present` does."""
    torch.manual_seed(0)
    model = mpfnl.PFNL3D(features=8, blocks=1).eval()
    for parameter in model.network.parameters():
        nn.init.normal_(parameter, std=0.05)
    enhanced = enhance_study(model, {PV: scans[PV]}, options=EnhanceOptions(Tiling(32, 0), torch.float32))
    unit = ABDOMEN.normalize(torch.full((1, 1, 20, 18, 12), 120.0))
    with torch.no_grad():
        expected = ABDOMEN.denormalize(model.network(unit, present=(2,))[0, 0].clamp(0, 1))
    assert np.abs(enhanced.data - expected.numpy()).max() < 0.51
    assert (enhanced.data != 120).any()


def test_a_needed_phase_that_is_missing_is_named_with_its_option(scans: dict[Phase, Volume]) -> None:
    with pytest.raises(NotFoundError, match=r"portal venous.*--portal-venous"):
        enhance_study(Model(MeanOfThose()), {NC: scans[NC]}, options=OPTIONS)
    stubborn = Model(MeanOfThose(), optional_phases=(NC,))
    with pytest.raises(NotFoundError, match=r"arterial.*--arterial"):
        enhance_study(stubborn, {PV: scans[PV]}, options=OPTIONS)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("trained", [False, True])
def test_a_model_that_never_lacked_a_phase_is_warned_of_once(
    scans: dict[Phase, Volume], caplog: pytest.LogCaptureFixture, trained: bool
) -> None:
    model = Model(MeanOfThose(), trained_without_phases=trained)
    for _ in range(3):
        enhance_study(model, scans, options=OPTIONS)  # nothing is missing
        enhance_study(model, {PV: scans[PV], ART: scans[ART]}, options=OPTIONS)
    said = warnings_of(caplog)
    assert len(said) == (0 if trained else 1)
    assert all(model.name in line and NC.label in line for line in said)


@pytest.mark.parametrize(("patch", "tile", "warned"), [(16, 16, 0), (16, 20, 1), (None, 20, 0)])
def test_other_tiles_than_in_training_are_warned_of_once(
    scans: dict[Phase, Volume], caplog: pytest.LogCaptureFixture, patch: int | None, tile: int, warned: int
) -> None:
    network = mpfnl.RCAN3D(phases=3, channels=8, groups=1, blocks=1).network
    for network_that_looks, lines in ((network, warned), (MeanOfThose(), 0)):
        caplog.clear()
        model = Model(network_that_looks, patch_size=patch)
        for _ in range(2):
            enhance_study(model, scans, options=EnhanceOptions(Tiling(tile, 4)))
        said = warnings_of(caplog)
        assert len(said) == lines
        assert all(f"{tile}" in line and f"--tile {patch}" in line for line in said)


@pytest.mark.parametrize("patch", [16, 24, None])
def test_tiles_are_as_large_as_the_training_patches(scans: dict[Phase, Volume], patch: int | None) -> None:
    with open_study(Model(MeanOfThose(), patch_size=patch), scans) as study:
        assert study.plan.tiling.tile == (patch or 64)


def test_the_command_tells_which_phases_are_used(
    tmp_path: Path, scans: dict[Phase, Volume], capsys: pytest.CaptureFixture[str]
) -> None:
    from mpfnl.cli import main

    weights = mpfnl.PFNL3D(features=8, blocks=1).save_pretrained(tmp_path / "weights")
    write_volume(tmp_path / "pv.nii.gz", scans[PV].data, scans[PV])
    words = ["enhance", "--weights", str(weights), "--portal-venous", str(tmp_path / "pv.nii.gz")]
    assert main([*words, "-o", str(tmp_path / "out.nii.gz")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert re.search(rf"{PV.label}.*{NC.label}.*{ART.label}", printed[0])
    assert "GB" in printed[1]
    assert (tmp_path / "out.nii.gz").exists()
