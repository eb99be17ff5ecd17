"""The noise: independent between phases, correlated within a slice, strongest in the middle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mpfnl.phantoms import PhantomConfig, generate_study
from mpfnl.phantoms.acquisition import KERNEL_MM, correlated_noise
from mpfnl.phases import PHASES

CONFIG = PhantomConfig(
    in_plane_mm=(2.0, 2.0),
    slice_mm=(5.0, 5.0),
    coverage_mm=(60.0, 60.0),
    depth_fraction=0.75,
    noise_hu=(12.0, 12.0),
    misalignment=0.0,
)


@pytest.fixture(scope="module")
def noises() -> list[np.ndarray]:
    """The noise alone: the same patient with and without."""
    noisy, clean = (generate_study(6, 1, c) for c in (CONFIG, replace(CONFIG, noise_hu=(0.0, 0.0))))
    body = (clean.phases[PHASES[0]] > -300) & (clean.phases[PHASES[0]] < 1500)
    return [np.where(body, noisy.phases[p].astype(float) - clean.phases[p], np.nan) for p in PHASES]


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    return float(np.corrcoef(a[both], b[both])[0, 1])


def test_level_is_what_was_asked_for(noises: list[np.ndarray]) -> None:
    for noise in noises:
        assert float(np.nanstd(noise)) == pytest.approx(12, rel=0.1)


def test_phases_are_independent(noises: list[np.ndarray]) -> None:
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert abs(correlation(noises[first], noises[second])) < 0.02


def test_noise_is_correlated_in_plane(noises: list[np.ndarray]) -> None:
    for noise in noises:
        for axis in (0, 1):
            near, far = (
                correlation(noise, np.roll(noise, step, axis)) for step in (1, 4)
            )  # wrapped voxels are air
            assert 0.2 < near < 0.6
            assert abs(far) < 0.05
        assert abs(correlation(noise, np.roll(noise, 2, 2))) < 0.1


def test_noise_is_stronger_in_the_middle_of_the_body(noises: list[np.ndarray]) -> None:
    x, y, _ = noises[0].shape
    for noise in noises:
        middle = noise[x // 2 - 12 : x // 2 + 12, y // 2 - 8 : y // 2 + 8]
        front = noise[:, int(y * 0.84) :]
        assert np.nanstd(middle) > 1.15 * np.nanstd(front)


@pytest.mark.parametrize("voxel", [0.8, 1.2])
def test_autocorrelation_is_the_kernels(voxel: float) -> None:
    """White noise under a Gaussian kernel correlates by exp(-d^2 / 4 s^2) at distance d."""
    noise = correlated_noise(np.random.default_rng(0), (160, 160, 12), voxel)
    assert float(noise.std()) == pytest.approx(1, rel=1e-3)
    for step in (1, 2, 3):
        expected = np.exp(-((step * voxel) ** 2) / (4 * KERNEL_MM**2))
        measured = float((noise[step:] * noise[:-step]).mean())
        assert measured == pytest.approx(expected, abs=0.03)
