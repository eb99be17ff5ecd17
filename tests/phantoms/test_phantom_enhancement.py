"""The drawn HU against the figures that they are drawn from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mpfnl.phantoms.enhancement import (
    ARTERIAL_CHANGE_HU,
    NONCONTRAST_HU,
    PERCENT,
    PORTAL_VENOUS_CHANGE_HU,
    draw_enhancement,
    quantile,
)

VESSELS = ("aorta", "portal_vein_and_splenic_vein")


@pytest.fixture(scope="module")
def draws() -> dict[str, np.ndarray]:
    """Tissue to HU (patient, phase), over many patients."""
    patients = [draw_enhancement(np.random.default_rng(seed)) for seed in range(3000)]
    return {name: np.array([p[name] for p in patients]) for name in patients[0].hu}


@pytest.mark.parametrize("vessel", VESSELS)
def test_draws_match_the_calibration(draws: dict[str, np.ndarray], vessel: str) -> None:
    noncontrast, arterial, venous = draws[vessel].T
    for drawn, table in (
        (noncontrast, NONCONTRAST_HU),
        (arterial - noncontrast, ARTERIAL_CHANGE_HU),
        (venous - noncontrast, PORTAL_VENOUS_CHANGE_HU),
    ):
        expected = np.array(table[vessel])
        tolerance = 0.05 * (expected[-1] - expected[0])
        np.testing.assert_allclose(np.percentile(drawn, PERCENT), expected, atol=tolerance)


def test_quantile_meets_the_percentiles_and_rises() -> None:
    table = ARTERIAL_CHANGE_HU["aorta"]
    np.testing.assert_allclose(quantile(table, np.array(PERCENT) / 100), table)
    assert (np.diff(quantile(table, np.linspace(0, 1, 200))) > 0).all()


@pytest.mark.realdata
@pytest.mark.parametrize("vessel", VESSELS)
def test_the_figures_are_the_files_and_the_margins_agree(
    real_data: Path, draws: dict[str, np.ndarray], vessel: str
) -> None:
    stats = json.loads((real_data / "phase_hu_calibration" / "phase_stats.json").read_text())
    paired, single = stats["paired_same_subject_delta_HU"], stats["per_phase"]
    key = "median_HU_percentiles_5_25_50_75_95"
    assert single[f"Pre_Contrast|{vessel}"][key] == list(NONCONTRAST_HU[vessel])
    changes = {"Arterial": ARTERIAL_CHANGE_HU, "Portal_Venous": PORTAL_VENOUS_CHANGE_HU}
    for column, (phase, table) in enumerate(changes.items(), start=1):
        assert paired[f"{vessel}: {phase} - Pre_Contrast"]["p5_25_50_75_95"] == list(table[vessel])
        # Enhanced HU were never fitted: the sum of the two draws must land on the measured margin.
        margin = np.array(single[f"{phase}|{vessel}"][key])
        measured = np.percentile(draws[vessel][:, column], PERCENT)
        assert abs(measured[2] - margin[2]) < 20
        assert np.abs(measured - margin).max() < 0.25 * (margin[-1] - margin[0])


def test_tissues_enhance_as_on_a_scan(draws: dict[str, np.ndarray]) -> None:
    median = {name: np.median(values, axis=0) for name, values in draws.items()}
    assert median["liver"] == pytest.approx([55, 65, 110], abs=8)
    assert median["pancreas"] == pytest.approx([40, 98, 90], abs=6)
    assert median["spleen"] == pytest.approx([46, 115, 120], abs=8)
    assert median["kidney_cortex"][1] > 2 * median["kidney_medulla"][1]
    assert abs(median["kidney_cortex"][2] - median["kidney_medulla"][2]) < 60
    for still in ("bile", "urine", "fluid", "fat", "cyst"):
        assert np.ptp(median[still]) < 5
    portal = draws["portal_vein_and_splenic_vein"]
    assert (portal[:, 2] - draws["liver"][:, 2] > 0).mean() > 0.8  # vessels show against the liver
