from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from mpfnl.transforms.degradation.noise import gaussian_noise, poisson_noise, unit_noise

SHAPE = (48, 40, 36)
SPACING = (0.8, 0.8, 2.0)


@pytest.mark.parametrize("correlation_mm", [0.0, 0.5, 1.5])
def test_noise_has_the_stated_strength_up_to_the_border(correlation_mm: float) -> None:
    noise = unit_noise(SHAPE, SPACING, correlation_mm, seed=3)
    assert noise.shape == SHAPE
    assert noise.std().item() == pytest.approx(1.0, abs=0.03)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.05)
    shell = torch.cat(
        [noise[0].flatten(), noise[-1].flatten(), noise[:, 0].flatten(), noise[:, -1].flatten()]
    )
    assert shell.std().item() == pytest.approx(1.0, abs=0.1)


def test_autocorrelation_follows_the_correlation_length() -> None:
    correlation = 1.2
    noise = unit_noise((96, 96, 24), SPACING, correlation, seed=5).numpy()
    for voxels in (1, 2, 3):
        expected = np.exp(-((voxels * SPACING[0]) ** 2) / (4 * correlation**2))
        measured = np.mean(noise[voxels:] * noise[:-voxels])
        assert measured == pytest.approx(expected, abs=0.04)
    # Across slices the filter is sampled coarsely: SciPy's kernel is the oracle.
    kernel = ndimage.gaussian_filter1d(np.eye(1, 31, 15)[0], correlation / SPACING[2])
    across_slices = np.dot(kernel[1:], kernel[:-1]) / np.dot(kernel, kernel)
    assert np.mean(noise[:, :, 1:] * noise[:, :, :-1]) == pytest.approx(across_slices, abs=0.04)


def test_white_noise_is_white() -> None:
    noise = unit_noise(SHAPE, SPACING, 0.0, seed=6).numpy()
    assert abs(np.mean(noise[1:] * noise[:-1])) < 0.02


@pytest.mark.parametrize("sd_hu", [5.0, 40.0])
def test_gaussian_noise_does_not_depend_on_the_tissue(sd_hu: float) -> None:
    for hu in (-1000.0, 50.0, 900.0):
        noisy = gaussian_noise(torch.full(SHAPE, hu), SPACING, sd_hu, 0.0, seed=1)
        assert noisy.std().item() == pytest.approx(sd_hu, rel=0.02)
        assert noisy.mean().item() == pytest.approx(hu, abs=4 * sd_hu / np.sqrt(noisy.numel()))


def test_poisson_noise_has_the_mean_and_the_variance_of_counts() -> None:
    sd_water = 40.0
    counts_in_water = (1000 / sd_water) ** 2
    rng = np.random.default_rng(0)
    variances = []
    for hu in (-700.0, -100.0, 0.0, 300.0, 1000.0):
        noisy = poisson_noise(torch.full(SHAPE, hu), SPACING, sd_water, 0.0, seed=2)
        counts = rng.poisson((1 + hu / 1000) * counts_in_water, size=200_000)
        oracle = 1000 * (counts / counts_in_water - 1)
        assert noisy.std().item() == pytest.approx(oracle.std(), rel=0.02)
        assert noisy.mean().item() == pytest.approx(oracle.mean(), abs=1.0)
        variances.append(noisy.var().item())
    assert variances == sorted(variances)


def test_poisson_noise_leaves_vacuum_and_what_is_below_it() -> None:
    vacuum = torch.full((8, 8, 8), -1000.0)
    assert torch.equal(poisson_noise(vacuum, SPACING, 50.0, 0.3, seed=2), vacuum)
    assert torch.equal(poisson_noise(vacuum - 24, SPACING, 50.0, 0.3, seed=2), vacuum - 24)


@pytest.mark.parametrize("add", [gaussian_noise, poisson_noise])
def test_strength_zero_is_the_identity_and_the_input_is_never_changed(add: object) -> None:
    assert callable(add)
    hu = torch.linspace(-1000, 1000, 512).reshape(8, 8, 8)
    before = hu.clone()
    assert torch.equal(add(hu, SPACING, 0.0, 0.5, 1), before)
    first, second, other = (
        add(hu, SPACING, 20.0, 0.5, 1),
        add(hu, SPACING, 20.0, 0.5, 1),
        add(hu, SPACING, 20.0, 0.5, 2),
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(hu, before)


def test_noise_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    unit_noise((8, 8, 8), SPACING, 0.5, seed=9)
    assert torch.equal(torch.rand(3), expected)
