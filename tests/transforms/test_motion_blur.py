"""Motion against the mean of many volumes shifted by SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mpfnl.transforms.degradation.motion import motion_blur, motion_shifts

SPACING = (0.8, 1.0, 2.5)
AMPLITUDES = [(5.0, 0.0, 0.0), (0.0, 4.0, 0.0), (0.0, 0.0, 10.0), (1.6, -2.0, 0.0), (3.1, -1.7, 12.0)]

ways = st.tuples(*[st.sampled_from([0.0, 1.0, 2.0]) | st.floats(-6, 6)] * 3)
shares = st.floats(0, 1)


def noise_volume(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100


def shifted(hu: torch.Tensor, by_mm: np.ndarray) -> np.ndarray:
    by = by_mm / np.array(SPACING)
    return ndimage.shift(hu.double().numpy(), by, order=1, mode="nearest")


@pytest.mark.parametrize("amplitude", AMPLITUDES)
def test_uniform_dwell_is_the_mean_over_many_positions(amplitude: tuple[float, float, float]) -> None:
    hu = noise_volume(13, 11, 9)
    places = (np.arange(1500) + 0.5) / 1500 - 0.5
    expected = np.mean([shifted(hu, place * np.array(amplitude)) for place in places], axis=0)
    np.testing.assert_allclose(motion_blur(hu, SPACING, amplitude, 0.0), expected, atol=2e-3)


@pytest.mark.parametrize("amplitude", AMPLITUDES)
def test_full_double_exposure_is_the_mean_of_both_ends(amplitude: tuple[float, float, float]) -> None:
    hu = noise_volume(13, 11, 9)
    half = np.array(amplitude) / 2
    expected = (shifted(hu, half) + shifted(hu, -half)) / 2
    np.testing.assert_allclose(motion_blur(hu, SPACING, amplitude, 1.0), expected, atol=1e-3)


@settings(deadline=None, max_examples=60)
@given(shape=st.tuples(*[st.integers(1, 12)] * 3), way=ways, share=shares)
def test_it_keeps_shape_mean_and_mirror_and_is_linear(
    shape: tuple[int, int, int], way: tuple[float, float, float], share: float
) -> None:
    def apply(hu: torch.Tensor, way: tuple[float, ...] = way) -> torch.Tensor:
        return motion_blur(hu, SPACING, way, share)

    hu = noise_volume(*shape)
    before, result = hu.clone(), apply(hu)
    assert result.shape == hu.shape
    assert torch.equal(hu, before)
    torch.testing.assert_close(apply(hu.flip(0, 1, 2)).flip(0, 1, 2), result, rtol=0, atol=1e-3)
    torch.testing.assert_close(apply(hu, tuple(-part for part in way)), result, rtol=0, atol=1e-3)
    torch.testing.assert_close(apply(hu.flip(2), (*way[:2], -way[2])).flip(2), result, rtol=0, atol=1e-3)
    torch.testing.assert_close(apply(3 * hu - 50), 3 * result - 50, rtol=0, atol=2e-3)
    assert (apply(torch.full(shape, 57.0)) - 57).abs().max() < 1e-3
    ends = motion_blur(hu, SPACING, way, 1.0)
    mixed = (1 - share) * motion_blur(hu, SPACING, way, 0.0) + share * ends
    torch.testing.assert_close(result, mixed, rtol=0, atol=1e-3)


@settings(deadline=None, max_examples=60)
@given(way=ways, share=shares)
def test_the_positions_have_the_mean_and_the_spread_of_the_line(
    way: tuple[float, float, float], share: float
) -> None:
    shifts = motion_shifts(np.array(way), share, (100, 100, 100))
    weights = np.array([shifts[0].weight, *(2 * shift.weight for shift in shifts[1:])])
    assert shifts[0].offset == (0, 0, 0)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 0
    offsets = np.array([shift.offset for shift in shifts])
    covariance = (weights[:, None, None] * offsets[:, :, None] * offsets[:, None, :]).sum(0)
    line = np.outer(way, way) * ((1 - share) / 12 + share / 4)
    # Resampling adds spread along each axis, none between axes, and takes none away.
    across = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(covariance[across], line[across], atol=1e-6)
    assert (np.diag(covariance - line) > -1e-6).all()
    assert (np.diag(covariance - line) < 0.25 + 1e-6).all()


def test_a_point_becomes_a_line_and_then_two_points() -> None:
    point = torch.zeros(1, 1, 41)
    point[0, 0, 20] = 1.0
    line = motion_blur(point, (1.0, 1.0, 1.0), (0.0, 0.0, 10.0), 0.0)[0, 0]
    assert line[16:25].numpy() == pytest.approx(np.full(9, 0.1), abs=1e-6)
    assert line[:15].abs().max() == 0
    twice = motion_blur(point, (1.0, 1.0, 1.0), (0.0, 0.0, 10.0), 1.0)[0, 0]
    assert torch.nonzero(twice).flatten().tolist() == [15, 25]


def test_no_motion_is_the_scan_itself() -> None:
    hu = noise_volume(5, 4, 3)
    assert motion_blur(hu, SPACING, (0.0, 0.0, 0.0), 0.7) is hu


def test_it_is_identical_for_any_number_of_threads() -> None:
    hu, before = noise_volume(61, 70, 45), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(motion_blur(hu, SPACING, (2.0, -3.0, 8.0), 0.3))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("way", [(101.0, 0.0, 0.0), (0.0, math.nan, 0.0), (0.0, 0.0, -math.inf), (1.0, 2.0)])
def test_impossible_ways_are_refused(way: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="amplitude_mm"):
        motion_blur(noise_volume(2, 2, 2), SPACING, way, 0.0)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_impossible_shares_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="double_exposure"):
        motion_blur(noise_volume(2, 2, 2), SPACING, (1.0, 0.0, 0.0), share)
