from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from mpfnl.transforms.degradation.blur import gaussian_blur
from mpfnl.transforms.degradation.convolution import FWHM_PER_SIGMA
from mpfnl.transforms.degradation.resampling import Resampling
from mpfnl.transforms.degradation.resize import resample_and_return

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.9, 2.5), (0.8, 0.8, 5.0)]
WAYS = [(down, up) for down in Resampling for up in (Resampling.LINEAR, Resampling.CUBIC)]


def noise_volume(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("sigma", [(1.0, 1.0, 1.0), (1.1, 2.5, 4.0), (0.0, 1.7, 0.0), (6.0, 6.0, 12.0)])
def test_blur_equals_scipy(spacing: tuple[float, ...], sigma: tuple[float, ...]) -> None:
    volume = noise_volume(17, 9, 12)
    fwhm = [voxels * FWHM_PER_SIGMA * step for voxels, step in zip(sigma, spacing, strict=True)]
    expected = ndimage.gaussian_filter(volume.double().numpy(), sigma, mode="nearest", truncate=4.0)
    np.testing.assert_allclose(gaussian_blur(volume, spacing, fwhm), expected, rtol=1e-3, atol=1e-3)


@given(fwhm=st.floats(0.05, 12.0), step=st.floats(0.5, 5.0))
def test_a_blur_has_the_variance_of_its_gaussian_also_below_a_voxel(fwhm: float, step: float) -> None:
    line = torch.zeros(201, 1, 1)
    line[100] = 1.0
    blurred = gaussian_blur(line, (step, 1.0, 1.0), (fwhm, 0.0, 0.0)).double().numpy().ravel()
    assert blurred.sum() == pytest.approx(1.0, abs=1e-5)
    assert (blurred >= 0).all()
    variance = (blurred * (np.arange(-100, 101) * step) ** 2).sum()
    # A kernel that ends after four standard deviations lacks 1 part in 900.
    assert variance == pytest.approx((fwhm / FWHM_PER_SIGMA) ** 2, rel=3e-3, abs=1e-6)


def test_blurred_point_has_the_stated_width_on_an_anisotropic_grid() -> None:
    spacing, fwhm = (0.25, 0.4, 0.5), (3.0, 4.0, 6.0)
    volume = torch.zeros(61, 61, 61)
    volume[30, 30, 30] = 1.0
    blurred = gaussian_blur(volume, spacing, fwhm).numpy()
    profiles = (blurred[:, 30, 30], blurred[30, :, 30], blurred[30, 30, :])
    for profile, step, width in zip(profiles, spacing, fwhm, strict=True):
        distance = np.arange(31) * step
        falling = profile[30:] / profile[30]
        half_width = np.interp(-0.5, -falling, distance)
        assert 2 * half_width == pytest.approx(width, rel=0.02)


def test_blur_is_identical_for_any_number_of_threads() -> None:
    volume = noise_volume(70, 61, 50)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            blurred = gaussian_blur(volume, (0.8, 0.8, 2.0), (2.0, 3.0, 4.0))
            results.append(resample_and_return(blurred, (2.5, 2.5, 1.7), *WAYS[0]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_zero_width_and_factor_one_return_the_very_values() -> None:
    volume = noise_volume(8, 8, 8)
    assert torch.equal(gaussian_blur(volume, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), volume)
    assert torch.equal(resample_and_return(volume, (1.0, 1.0, 0.5), *WAYS[0]), volume)


@pytest.mark.parametrize(("down", "up"), WAYS)
@pytest.mark.parametrize("length", [31, 40, 48])
@pytest.mark.parametrize("factor", [1.3, 2.0, 2.5, 4.0])
def test_resizing_keeps_the_grid_where_a_ramp_runs(
    down: Resampling, up: Resampling, length: int, factor: float
) -> None:
    ramp = torch.linspace(-100, 200, length)[:, None, None].expand(length, 6, 5)
    result = resample_and_return(ramp, (factor, 1.0, 1.0), down, up)
    error = (result - ramp)[10:-10].double() * (length - 1) / 300  # in voxels
    assert result.shape == ramp.shape
    if down is Resampling.AREA and factor % 1:
        # Partly covered voxels count at their centres: off by at most 1 / (8 factor), on average by nothing.
        assert error.abs().max() < 1.001 * (5 / 4 if up is Resampling.CUBIC else 1) / (8 * factor)
        assert abs(error.mean()) < 0.01
    else:
        assert error.abs().max() < 1e-3


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 13)] * 3),
    factors=st.tuples(*[st.floats(1.0, 4.0)] * 3),
    way=st.sampled_from(WAYS),
)
def test_resizing_commutes_with_mirroring_and_keeps_constants(
    shape: tuple[int, int, int],
    factors: tuple[float, float, float],
    way: tuple[Resampling, Resampling],
) -> None:
    volume = noise_volume(*shape)
    there = resample_and_return(volume, factors, *way)
    mirrored = resample_and_return(volume.flip(0, 1, 2), factors, *way).flip(0, 1, 2)
    assert there.shape == volume.shape
    torch.testing.assert_close(there, mirrored, rtol=0, atol=1e-3)
    constant = torch.full(shape, 57.0)
    torch.testing.assert_close(resample_and_return(constant, factors, *way), constant, rtol=0, atol=1e-3)


@pytest.mark.parametrize("factor", [2, 4])
def test_area_then_linear_equals_torch_where_the_size_is_divisible(factor: int) -> None:
    volume = noise_volume(16, 24, 8)
    coarse = torch.nn.functional.avg_pool3d(volume[None, None].double(), factor)
    expected = torch.nn.functional.interpolate(
        coarse, scale_factor=float(factor), mode="trilinear", align_corners=False
    )[0, 0]
    result = resample_and_return(volume, (factor,) * 3, Resampling.AREA, Resampling.LINEAR)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("factor", [1.5, 2.0, 3.0])
def test_cubic_reproduces_a_parabola(factor: float) -> None:
    # Keys' kernel with a = -1/2 is exact for polynomials up to the second degree.
    x = torch.linspace(-10, 10, 60)
    parabola = (x**2 - 3 * x)[:, None, None].expand(60, 2, 2)
    result = resample_and_return(parabola, (factor, 1.0, 1.0), Resampling.CUBIC, Resampling.CUBIC)
    torch.testing.assert_close(result[15:-15], parabola[15:-15], rtol=0, atol=1e-3)


def test_the_way_back_is_not_area() -> None:
    with pytest.raises(ValueError, match="linear or cubic"):
        resample_and_return(noise_volume(4, 4, 4), (2.0, 2.0, 2.0), Resampling.AREA, Resampling.AREA)
