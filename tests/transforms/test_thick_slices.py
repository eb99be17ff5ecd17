"""Thick slices against SciPy's filters on refined grids and against integration of the profile by number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mpfnl.transforms.degradation.convolution import FWHM_PER_SIGMA
from mpfnl.transforms.degradation.thick_slices import SliceProfile, thick_slices

shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 23))
numbers = st.floats(0.3, 12.0)
profiles = st.sampled_from(list(SliceProfile))


def noise_volume(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100


def along_z(line: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(line.astype(np.float32)).expand(2, 3, -1)


def width_at_half_maximum(curve: np.ndarray, step: float) -> float:
    above = np.flatnonzero(curve >= curve.max() / 2)
    first, last = above[0], above[-1]
    left = np.interp(curve.max() / 2, curve[first - 1 : first + 1], [first - 1, first])
    right = np.interp(curve.max() / 2, curve[last : last + 2][::-1], [last + 1, last])
    return float(right - left) * step


@pytest.mark.parametrize("count", [3, 5, 7])
def test_a_rectangle_of_whole_slices_is_their_mean(count: int) -> None:
    hu = noise_volume(3, 2, 40)
    thick = thick_slices(hu, (1.0, 1.0, 2.5), 2.5 * count, 2.5, SliceProfile.RECTANGLE)
    mean = ndimage.uniform_filter1d(hu.double().numpy(), count, axis=2)
    inner = slice(count // 2, -(count // 2))
    np.testing.assert_allclose(thick.numpy()[..., inner], mean[..., inner], atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(
    length=st.integers(1, 20), thickness=st.floats(1.0, 9.0), increment=st.floats(1.0, 9.0), profile=profiles
)
def test_slices_are_the_integral_over_the_profile(
    length: int, thickness: float, increment: float, profile: SliceProfile
) -> None:
    """Everything from the text of the docstring, with sums over 400 points a voxel instead of integrals."""
    hu = noise_volume(1, 1, length)
    step = 2.0
    points = (np.arange(length * 400) + 0.5) / 400
    values = np.repeat(hu[0, 0].double().numpy(), 400)
    count = math.ceil(length / increment)
    centres = length / 2 + increment * (np.arange(count) - (count - 1) / 2)
    away = points - centres[:, None]
    sigma = math.sqrt((thickness / FWHM_PER_SIGMA) ** 2 - 1 / 6)
    rectangle = np.clip((thickness / 2 - np.abs(away)) * 400 + 0.5, 0, 1)  # points at the faces count in part
    bell = np.exp(-0.5 * (away / sigma) ** 2)
    weight = rectangle if profile is SliceProfile.RECTANGLE else bell
    slices = (weight * values).sum(1) / weight.sum(1)
    expected = np.interp(np.arange(length) + 0.5, centres, slices)
    result = thick_slices(hu, (1.0, 1.0, step), thickness * step, increment * step, profile)
    np.testing.assert_allclose(result[0, 0].numpy(), expected, atol=0.4)


@pytest.mark.parametrize("thickness", [2.0, 3.0, 5.0, 8.0])
def test_a_bell_shows_the_world_through_a_gaussian_of_its_thickness(thickness: float) -> None:
    """A scan of 1 mm slices of a smooth object, against the object itself seen through the profile."""
    fine = 0.05
    z = (np.arange(80 / fine) + 0.5) * fine
    world = 300 * np.exp(-0.5 * ((z - 33.3) / 2.5) ** 2) + 200 * np.tanh((z - 55) / 2)
    scan = world.reshape(80, -1).mean(1)
    seen = ndimage.gaussian_filter1d(world, thickness / FWHM_PER_SIGMA / fine)
    expected = np.interp(np.arange(80) + 0.5, z, seen)
    result = thick_slices(along_z(scan), (0.7, 0.7, 1.0), thickness, 1.0, SliceProfile.BELL)[0, 0].numpy()
    np.testing.assert_allclose(result[12:-12], expected[12:-12], atol=2.0)


@pytest.mark.parametrize("profile", list(SliceProfile))
@pytest.mark.parametrize("thickness", [3.0, 5.0, 7.5])
def test_an_edge_becomes_as_wide_as_the_profile(thickness: float, profile: SliceProfile) -> None:
    step = 0.1
    edge = np.where(np.arange(300) < 150, -100.0, 100.0)
    blurred = thick_slices(along_z(edge), (1.0, 1.0, step), thickness, step, profile)[1, 2].double().numpy()
    assert width_at_half_maximum(np.diff(blurred), step) == pytest.approx(thickness, abs=1.01 * step)


def test_gaps_between_thin_slices_are_bridged_by_lines() -> None:
    hu = noise_volume(2, 2, 25)
    result = thick_slices(hu, (1.0, 1.0, 1.0), 1.0, 5.0, SliceProfile.RECTANGLE).numpy()
    centres = np.arange(2, 25, 5)
    np.testing.assert_allclose(result[..., centres], hu[..., centres], atol=1e-3)
    np.testing.assert_allclose(np.diff(result, n=2)[..., 2:4], 0, atol=1e-3)


@settings(deadline=None, max_examples=60)
@given(shape=shapes, spacing=st.floats(0.4, 6.0), thickness=numbers, increment=numbers, profile=profiles)
def test_it_keeps_shape_mean_and_mirror_and_is_linear(
    shape: tuple[int, int, int], spacing: float, thickness: float, increment: float, profile: SliceProfile
) -> None:
    def apply(hu: torch.Tensor) -> torch.Tensor:
        return thick_slices(hu, (1.0, 1.0, spacing), thickness, increment, profile)

    hu = noise_volume(*shape)
    result = apply(hu)
    assert result.shape == hu.shape
    torch.testing.assert_close(apply(hu.flip(2)).flip(2), result, rtol=0, atol=2e-2)
    torch.testing.assert_close(apply(3 * hu - 50), 3 * result - 50, rtol=0, atol=1e-3)
    assert hu.min() - 1e-3 <= result.min()
    assert result.max() <= hu.max() + 1e-3
    assert (apply(torch.full(shape, 57.0)) - 57).abs().max() < 1e-3


def test_thin_and_dense_slices_are_the_scan_itself() -> None:
    hu = noise_volume(3, 3, 7)
    for profile in SliceProfile:
        assert thick_slices(hu, (1.0, 1.0, 5.0), 5.0, 2.0, profile) is hu
        assert thick_slices(hu, (1.0, 1.0, 5.0), 5.0001, 5.0, profile) is not hu
        torch.testing.assert_close(
            thick_slices(hu, (1.0, 1.0, 5.0), 5.0001, 5.0, profile), hu, rtol=0, atol=0.1
        )


@pytest.mark.parametrize("profile", list(SliceProfile))
def test_it_is_identical_for_any_number_of_threads(profile: SliceProfile) -> None:
    hu, before = noise_volume(61, 70, 40), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(thick_slices(hu, (0.8, 0.8, 2.0), 7.5, 4.1, profile))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_impossible_numbers_are_refused(value: float) -> None:
    hu = noise_volume(2, 2, 2)
    with pytest.raises(ValueError, match="thickness_mm"):
        thick_slices(hu, (1.0, 1.0, 1.0), value, 5.0, SliceProfile.BELL)
    with pytest.raises(ValueError, match="increment_mm"):
        thick_slices(hu, (1.0, 1.0, 1.0), 5.0, value, SliceProfile.BELL)
    with pytest.raises(ValueError, match="trapezium"):
        thick_slices(hu, (1.0, 1.0, 1.0), 5.0, 5.0, "trapezium")  # type: ignore[arg-type]
