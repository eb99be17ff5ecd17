"""The calibration's script: the rule, the groups, the verdict."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from degradation_calibration import (
    CHOOSING,
    HELD_OUT,
    Scan,
    Score,
    as_the_paper,
    crop_to_abdomen,
    groups,
    mean_psnr,
    scores,
    solve,
    with_noise,
)

from mpfnl.transforms.degradation import SECOND_ORDER_V1, find_preset
from mpfnl.transforms.degradation.second_order import SecondOrderStage


def trunk() -> Scan:
    hu = np.full((60, 50, 12), -1000, np.float32)
    noise = torch.randn(40, 30, 12, generator=torch.Generator().manual_seed(0)).numpy()
    hu[10:50, 10:40] = 40 + 20 * noise
    hu[2, 2] = 500  # a table
    return Scan("trunk", hu, (2.0, 2.0, 5.0))


def test_the_crop_is_the_trunk_and_its_margin() -> None:
    assert crop_to_abdomen(trunk()).hu.shape == (50, 40, 12)
    assert crop_to_abdomen(trunk(), margin_mm=0.0).hu.min() > -500


def test_the_rule_solves_for_the_noise() -> None:
    assert solve(lambda centre: 100 / centre, 4.0, (15.0, 45.0)) == pytest.approx(25.0, abs=0.1)
    few, much = (mean_psnr(trunk(), range(4), with_noise(SECOND_ORDER_V1, centre)) for centre in (15.0, 45.0))
    assert few > much + 3
    last = with_noise(SECOND_ORDER_V1, 30.0).stages[-1]
    assert isinstance(last, SecondOrderStage)
    assert last.noise_sd_hu == (27.5, 32.5)


def test_the_mean_of_the_scores_is_what_the_rule_sees() -> None:
    each = list(scores(trunk(), CHOOSING, range(3)))
    expected = np.mean([score.psnr_db for score in each])
    assert mean_psnr(trunk(), range(3), SECOND_ORDER_V1) == pytest.approx(expected, abs=1e-6)
    assert len({score.psnr_db for score in each}) == 3


@pytest.mark.parametrize(
    ("psnr", "ssim", "good"),
    [(23.8, 0.46, True), (24.7, 0.515, True), (24.9, 0.46, False), (23.8, 0.39, False)],
)
def test_the_verdict_is_the_papers_scores_within_the_tolerances(psnr: float, ssim: float, good: bool) -> None:
    rows = [Score("a", HELD_OUT, seed, psnr + step, ssim) for seed, step in enumerate((-0.5, 0.5))]
    assert as_the_paper(rows) is good


def test_mild_is_better_and_severe_worse_than_the_papers() -> None:
    mild, paper, severe = (
        mean_psnr(trunk(), range(6), find_preset(name)) for name in ("mild", "paper", "severe")
    )
    assert mild > paper + 2
    assert paper > severe + 2


@pytest.mark.realdata
def test_what_is_held_out_was_not_chosen_on(real_data: Path) -> None:
    found = [(scan.name, group, set(seeds)) for scan, group, seeds in groups(real_data, 4)]
    chosen = [(name, seeds) for name, group, seeds in found if group == CHOOSING]
    assert [name for name, _ in chosen] == ["crlm_pv_1004"]
    held_out = [(name, seeds) for name, group, seeds in found if group == HELD_OUT]
    assert {name for name, _ in held_out} >= {"crlm_pv_1004", "ts_pv_dicom_scrubbed", "phantom 0"}
    assert all(not seeds & chosen[0][1] for _, seeds in held_out)
