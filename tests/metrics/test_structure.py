"""Edges, noise, vessels and blobs: Gaussian edges of known slope, known noise, spheres that are counted."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.special import erf
from skimage.measure import label, regionprops

from mpfnl.metrics.contrast import sphere_fraction
from mpfnl.metrics.sharpness import (
    EDGE_SMOOTHING_MM,
    edge_gradient_ratio,
    flat_tissue,
    noise_ratio,
    noise_sd,
)
from mpfnl.metrics.structure import OrganStructure, blob_rate

SPACING = (0.8, 1.0, 2.0)


def edge(sigma_mm: float, shape: tuple[int, int, int] = (41, 12, 8)) -> np.ndarray:
    """An edge of 150 HU across x, blurred by a Gaussian; its middle lies on a voxel."""
    distance = (np.arange(shape[0]) - shape[0] // 2) * SPACING[0]
    return np.broadcast_to(75 * erf(distance / (math.sqrt(2) * sigma_mm))[:, None, None], shape) + 20


@pytest.mark.parametrize(("clean", "image"), [(1.5, 1.5), (1.5, 3.0), (2.0, 2.5), (3.0, 1.5)])
def test_the_ratio_of_two_gaussian_edges_is_that_of_their_slopes(clean: float, image: float) -> None:
    everywhere = np.ones((41, 12, 8), dtype=bool)
    found = edge_gradient_ratio(edge(image), edge(clean), SPACING, everywhere, share=1 / 41)

    def slope(sigma: float) -> float:  # of the central difference, after the filter of both
        return float(erf(SPACING[0] / (math.sqrt(2) * math.hypot(sigma, EDGE_SMOOTHING_MM))))

    assert found == pytest.approx(slope(image) / slope(clean), rel=0.02)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.floats(0.2, 2.0), st.floats(-200, 200))
def test_edges_and_noise_of_itself_are_one_scale_and_ignore_a_constant(
    seed: int, scale: float, shift: float
) -> None:
    clean = edge(1.5) + np.random.default_rng(seed).normal(0, 8, (41, 12, 8))
    everywhere = np.ones(clean.shape, dtype=bool)
    for measure in (
        lambda image: edge_gradient_ratio(image, clean, SPACING, everywhere),
        lambda image: noise_ratio(image, clean, SPACING, everywhere),
    ):
        assert measure(clean) == pytest.approx(1.0, abs=1e-5)
        assert measure(scale * clean + shift) == pytest.approx(scale, rel=1e-3)
        assert measure(gaussian_filter(clean, 1.5)) < 0.9


def test_noise_is_the_standard_deviation_whatever_lies_below_it() -> None:
    noise = np.random.default_rng(0).normal(0, 12, (60, 60, 6))
    slope = np.linspace(0, 60, 60)[:, None, None] * np.ones(noise.shape)
    everywhere = np.ones(noise.shape, dtype=bool)
    # White noise loses the weight of the middle voxel and its own part of the mean: sqrt(1 - 2 w + sum w^2)
    impulse = np.zeros((31, 31))
    impulse[15, 15] = 1
    kernel = impulse - gaussian_filter(impulse, [2.0 / 0.8, 2.0], truncate=3.0)
    expected = 12 * math.sqrt((kernel**2).sum())
    for image in (noise, noise + slope + 100):
        assert noise_sd(image, (0.8, 1.0, 5.0), everywhere) == pytest.approx(expected, rel=0.03)


def test_flat_tissue_avoids_edges_air_and_the_outside() -> None:
    scan = np.full((40, 30, 12), 60.0)
    scan[:15] = -1000.0
    scan[25:27] = 110.0
    body = np.ones(scan.shape, dtype=bool)
    body[:, :6] = False
    flat = flat_tissue(scan, (1.0, 1.0, 1.0), body)
    assert flat[32:38, 10:20, 5].all()
    assert not flat[:17].any()
    assert not flat[24].any()
    assert not flat[:, :6].any()


def liver_with(seed: int, spheres: int) -> tuple[np.ndarray, np.ndarray]:
    """Homogeneous liver, and the same with bright and dark spheres of 6 to 9 mm far from each other."""
    rng, added = np.random.default_rng(seed), np.zeros((60, 60, 30))
    places = [(x, y, z) for x in (10, 30, 50) for y in (10, 30, 50) for z in (10, 30, 50)]
    for number in rng.permutation(len(places))[:spheres]:
        centre = np.array(places[number]) / (1.0, 1.0, 2.0) + rng.uniform(-1, 1, 3)
        added += rng.choice([-30, 30]) * sphere_fraction(added.shape, (1, 1, 2), centre, rng.uniform(6, 9))
    return np.full(added.shape, 110.0), 110 + added


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1), st.integers(0, 12), st.floats(-40, 40))
def test_every_sphere_is_a_blob_and_a_shift_is_none(seed: int, spheres: int, shift: float) -> None:
    clean, image = liver_with(seed, spheres)
    everywhere = np.ones(clean.shape, dtype=bool)
    rate = blob_rate(image + shift, clean, (1.0, 1.0, 2.0), everywhere)
    assert rate == pytest.approx(100 * spheres / (clean.size * 2 / 1000))


def test_blobs_of_noise_are_those_that_scikit_image_counts() -> None:
    spacing, everywhere = (1.0, 1.2, 2.0), np.ones((50, 40, 30), dtype=bool)
    noise = gaussian_filter(np.random.default_rng(3).normal(0, 150, everywhere.shape), 1.5).astype(np.float32)
    smooth = gaussian_filter(
        noise - np.median(noise), [1.5 / step for step in spacing], mode="nearest", truncate=3
    )
    parts = [
        part.num_pixels * math.prod(spacing)
        for sign in (1, -1)
        for part in regionprops(label(sign * smooth >= 10.0, connectivity=1))
    ]
    expected = sum(volume >= math.pi / 6 * 4.0**3 for volume in parts)
    found = blob_rate(noise, np.zeros_like(noise), spacing, everywhere)
    assert 0 < expected < len(parts)
    assert found * everywhere.sum() * math.prod(spacing) / 1e5 == pytest.approx(expected)


def test_the_vessels_of_an_organ_are_found_and_left_out_of_its_homogeneous_tissue() -> None:
    rng = np.random.default_rng(0)
    liver = 110 + gaussian_filter(rng.normal(0, 12, (40, 40, 30)), 0.5)
    organ = np.zeros(liver.shape, dtype=bool)
    organ[3:-3, 3:-3] = True
    vessel = np.hypot(*np.indices((40, 40)) - 14.0) <= 3
    liver[vessel] += 60
    liver[25:33, 25:33, 10:18] -= 50  # a dark lesion
    found = OrganStructure.find(liver, (1.0, 1.0, 1.0), organ)
    middle = found.bright[:, :, 15]
    assert (middle & vessel).sum() > 0.6 * vessel.sum()
    assert not found.bright[25:33, 25:33].any()
    assert not found.homogeneous[vessel].any()
    assert not found.homogeneous[27:31, 27:31, 12:16].any()
    assert found.homogeneous.sum() > 0.3 * organ.sum()
    assert not found.homogeneous[:6].any()


def test_what_cannot_be_measured_is_refused() -> None:
    scan, none = np.zeros((6, 6, 6)), np.zeros((6, 6, 6), dtype=bool)
    for call in (
        lambda: edge_gradient_ratio(scan, scan, SPACING, none),
        lambda: edge_gradient_ratio(scan, scan, SPACING, ~none),  # no edge
        lambda: edge_gradient_ratio(scan, scan[1:], SPACING, ~none),
        lambda: noise_sd(scan, SPACING, none),
        lambda: blob_rate(scan, scan, SPACING, none),
    ):
        with pytest.raises(ValueError, match=r"empty|one shape|no width|positive|no voxel|no edge|differ"):
            call()
    assert math.isnan(noise_ratio(scan, scan, SPACING, ~none))
