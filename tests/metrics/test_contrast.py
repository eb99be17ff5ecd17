"""Contrast kept, lesions, organ means, the body's error: analytic spheres, and what must hold of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist
from skimage.metrics import mean_squared_error

from mpfnl.metrics.contrast import (
    body_rmse,
    contrast,
    contrast_kept,
    insert_lesion,
    organ_mean_errors,
    shell,
    sphere_fraction,
)

SHAPE, SPACING = (24, 22, 14), (1.0, 1.1, 2.0)
CENTRE = (11.6, 10.4, 6.7)


@pytest.fixture(scope="module")
def lesion() -> np.ndarray:
    return sphere_fraction(SHAPE, SPACING, CENTRE, 10.0) >= 0.5


@pytest.mark.parametrize("diameter", [4.0, 8.0, 12.0])
@pytest.mark.parametrize("hu", [-40.0, 25.0])
def test_a_lesion_holds_the_contrast_times_the_volume_of_its_sphere(diameter: float, hu: float) -> None:
    liver = np.full(SHAPE, 110.0)
    added = insert_lesion(liver, SPACING, CENTRE, diameter, hu) - liver
    assert added.sum() * math.prod(SPACING) == pytest.approx(hu * math.pi / 6 * diameter**3, rel=0.03)
    weight = added / added.sum()
    found = [
        float((weight.sum(axis=axes) * range(side)).sum()) for axes, side in zip(OTHERS, SHAPE, strict=True)
    ]
    assert found == pytest.approx(CENTRE, abs=0.03)
    assert added.min() >= min(0, hu)
    assert added.max() <= max(0, hu)


OTHERS = ((1, 2), (0, 2), (0, 1))


def test_a_lesion_at_the_border_is_cut_and_one_outside_adds_nothing() -> None:
    scan = np.zeros(SHAPE, np.int16)
    cut = insert_lesion(scan, SPACING, (-0.5, 10, 7), 12.0, 1000.0)
    half = cut.sum() * math.prod(SPACING) / 1000
    assert cut.dtype == np.int16
    assert half == pytest.approx(math.pi / 12 * 12**3, rel=0.02)
    assert not insert_lesion(scan, SPACING, (-30, 10, 7), 12.0, 1000.0).any()
    assert not scan.any()


def test_the_shell_lies_between_its_distances(lesion: np.ndarray) -> None:
    around = shell(lesion, SPACING, 2.0, 5.0)
    places = np.indices(SHAPE).reshape(3, -1).T * SPACING
    nearest = cdist(places, places[lesion.ravel()]).min(axis=1).reshape(SHAPE)
    assert np.array_equal(around, (nearest > 2.0) & (nearest <= 5.0))


def test_contrast_kept_is_the_known_fraction(lesion: np.ndarray) -> None:
    around = shell(lesion, SPACING)
    clean = np.where(lesion, 70.0, 110.0)
    assert contrast_kept(np.where(lesion, 100.0, 110.0), clean, lesion, around) == pytest.approx(0.25)
    assert contrast_kept(220 - clean, clean, lesion, around) == pytest.approx(-1.0)
    assert math.isnan(contrast_kept(clean, np.where(lesion, 107.0, 110.0), lesion, around))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3.0), st.floats(-300, 300))
def test_contrast_kept_of_itself_is_one_scales_and_ignores_a_constant(
    lesion: np.ndarray, seed: int, scale: float, shift: float
) -> None:
    clean = np.where(lesion, 70.0, 110.0) + np.random.default_rng(seed).normal(0, 5, SHAPE)
    around = shell(lesion, SPACING)
    assert contrast_kept(clean, clean, lesion, around) == 1.0
    assert contrast_kept(scale * clean + shift, clean, lesion, around) == pytest.approx(scale)
    assert contrast(clean + shift, lesion, around) == pytest.approx(contrast(clean, lesion, around))
    assert body_rmse(clean, clean, lesion) == 0
    assert body_rmse(clean + shift, clean, lesion) == pytest.approx(abs(shift))


def test_blur_keeps_less_of_smaller_lesions() -> None:
    kept = []
    for diameter in (12.0, 8.0, 5.0):
        sphere = sphere_fraction(SHAPE, SPACING, CENTRE, diameter)
        clean, mask = 110 - 40 * sphere, sphere >= 0.5
        blurred = gaussian_filter(clean, [2.5 / step for step in SPACING])
        kept.append(contrast_kept(blurred, clean, mask, shell(mask, SPACING)))
    assert 1 > kept[0] > kept[1] > kept[2] > 0


def test_noise_does_not_bias_the_contrast_that_is_kept(lesion: np.ndarray) -> None:
    rng, around = np.random.default_rng(0), shell(lesion, SPACING)
    clean = np.where(lesion, 70.0, 110.0)
    noisy = (clean + rng.normal(0, 15, SHAPE) for _ in range(200))
    kept = [contrast_kept(0.5 * scan, clean, lesion, around) for scan in noisy]
    assert np.mean(kept) == pytest.approx(0.5, abs=4 * np.std(kept) / math.sqrt(len(kept)))


def test_the_error_in_the_body_is_scikit_images_in_its_voxels(lesion: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    image, clean = rng.integers(-175, 275, (2, *SHAPE)).astype(np.int16)
    expected = math.sqrt(mean_squared_error(image[lesion].astype(float), clean[lesion].astype(float)))
    assert body_rmse(image, clean, lesion) == pytest.approx(expected)


@settings(deadline=None, max_examples=15)
@given(st.floats(-100, 100), st.floats(-100, 100))
def test_a_constant_moves_the_mean_of_its_organ_alone(liver: float, spleen: float) -> None:
    labels = np.zeros((24, 12, 12), np.uint8)
    labels[:12], labels[12:] = 5, 1
    clean = np.random.default_rng(0).normal(100, 10, labels.shape)
    image = clean + np.where(labels == 5, liver, spleen)
    errors = organ_mean_errors(image, clean, labels, (2.0, 2.0, 2.0), {"liver": 5, "spleen": 1, "aorta": 52})
    assert errors == pytest.approx({"liver": liver, "spleen": spleen}, abs=1e-9)


def test_what_cannot_be_measured_is_refused(lesion: np.ndarray) -> None:
    scan, none = np.zeros(SHAPE), np.zeros(SHAPE, bool)
    for call in (
        lambda: contrast(scan, none, lesion),
        lambda: contrast_kept(scan, scan[1:], lesion, ~lesion),
        lambda: shell(none, SPACING),
        lambda: shell(lesion, SPACING, 4.0, 4.0),
        lambda: insert_lesion(scan, SPACING, CENTRE, 0.0, 10.0),
        lambda: body_rmse(scan, scan, none),
        lambda: organ_mean_errors(scan, scan, np.zeros((2, 2, 2)), SPACING, {}),
    ):
        with pytest.raises(ValueError, match=r"empty|one shape|no width|positive|no voxel|no edge|differ"):
            call()
