"""The misalignment of the phases against the measured table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mpfnl.phantoms.habitus import Habitus
from mpfnl.phantoms.motion import MEASURED_MM, Motion, draw_motion
from mpfnl.phases import Phase

MOVING = (Phase.NONCONTRAST, Phase.ARTERIAL)
PLACES = {
    "pancreas": [(30, 30, -15), (0, 45, 3), (-40, 38, 14), (-75, 10, 25)],
    "liver": [(60, 30, 40), (85, 0, 50), (40, 40, 60), (75, 30, 10), (0, 60, 60)],
    "spleen": [(-95, -20, 50), (-95, -35, 60), (-100, -5, 35)],
    "kidney_left": [(-62, -12, -4), (-62, -12, 25), (-62, -12, -35)],
    "aorta": [(-9, 8, 65), (-6, 11, 20), (-6, 11, -30), (-6, 11, -80)],
    "vertebrae_L1": [(0, -16, 0), (10, -16, 5), (-10, -16, -5)],
}  # points of the atlas inside each organ
DRAWS = 300


def draw(seed: int, phase: Phase, scale: float = 1.0) -> Motion:
    rng = np.random.default_rng(seed)
    return draw_motion(rng, Habitus.draw(rng, 190, 150), phase, scale)


@pytest.fixture(scope="module", params=MOVING)
def distances(request: pytest.FixtureRequest) -> tuple[Phase, dict[str, np.ndarray]]:
    """How far each organ's middle moves, over many patients."""
    phase: Phase = request.param
    motions = [draw(seed, phase) for seed in range(DRAWS)]
    return phase, {
        name: np.array(
            [np.linalg.norm(np.mean([m.at(p) for p in m.habitus.place(points)], axis=0)) for m in motions]
        )
        for name, points in PLACES.items()
    }


def test_organs_move_as_far_as_measured(distances: tuple[Phase, dict[str, np.ndarray]]) -> None:
    phase, moved = distances
    for name, (mean, sd) in MEASURED_MM[phase].items():
        error = moved[name].std() / np.sqrt(DRAWS)
        assert abs(moved[name].mean() - mean) < 1.0 + 2 * error, name
        if name != "vertebrae_L1":  # its spread in the table comes from a few failed scans; ours are capped
            assert 0.6 * sd < moved[name].std() < 1.25 * sd, name


def test_the_spine_stays_and_the_organs_follow_the_breath(
    distances: tuple[Phase, dict[str, np.ndarray]],
) -> None:
    phase, moved = distances
    assert np.median(moved["vertebrae_L1"]) < 0.5 * np.median(moved["liver"])
    lengthwise = []
    for seed in range(60):
        motion = draw(seed, phase)
        shift = motion.at(motion.habitus.place(PLACES["liver"])[0]) - motion.shift
        lengthwise.append(abs(shift[2]) > np.hypot(shift[0], shift[1]))
    assert np.mean(lengthwise) > 0.85


@pytest.mark.realdata
def test_the_table_is_the_files(real_data: Path) -> None:
    stats = json.loads((real_data / "phase_hu_calibration" / "phase_stats.json").read_text())
    columns = {Phase.ARTERIAL: "Arterial", Phase.NONCONTRAST: "Venous"}
    for phase, table in MEASURED_MM.items():
        for name, mean_sd in table.items():
            assert stats["interphase_misalignment_mm"][name][columns[phase]] == list(mean_sd)


@pytest.mark.parametrize("phase", MOVING)
def test_scale_zero_is_exactly_no_motion_and_half_is_half(phase: Phase) -> None:
    axes = tuple(np.linspace(-120, 120, 9).astype(np.float32) for _ in range(3))
    still, half, full = (draw(3, phase, s).displacement(axes) for s in (0.0, 0.5, 1.0))
    assert not still.any()
    assert full.any()
    np.testing.assert_allclose(2 * half, full, atol=1e-4)


def test_the_reference_never_moves() -> None:
    with pytest.raises(ValueError, match="reference"):
        draw(0, Phase.PORTAL_VENOUS)


def test_the_deformation_does_not_fold() -> None:
    step = 5.0
    axes = tuple(np.arange(-n, n + 1, step).astype(np.float32) for n in (140, 90, 100))
    for seed in range(25):
        field = draw(seed, Phase.ARTERIAL).displacement(axes)
        gradient = np.stack([np.stack(np.gradient(u, step), axis=-1) for u in field], axis=-2)
        assert np.linalg.det(gradient + np.eye(3)).min() > 0, seed


def test_displacement_is_smooth() -> None:
    axes = tuple(np.arange(-100, 101, 2.0).astype(np.float32) for _ in range(3))
    field = draw(1, Phase.ARTERIAL).displacement(axes)
    largest = float(np.abs(field).max())
    for axis in (1, 2, 3):
        assert np.abs(np.diff(field, axis=axis)).max() < 0.25 * largest + 0.2
