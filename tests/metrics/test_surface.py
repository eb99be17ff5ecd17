"""The normalized surface distance against MONAI's sub-voxel surface Dice, and where it is known."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.surface_dice import compute_surface_dice
from monai.metrics.utils import get_code_to_measure_table

from mpfnl.metrics.surface import CORNERS, surface_areas
from mpfnl.metrics.surface import normalized_surface_distance as nsd

SPACINGS = [(1.0, 1.0, 1.0), (0.8, 0.8, 5.0), (0.69, 0.71, 1.25), (3.0, 1.5, 0.5)]


def blob(rng: np.random.Generator, shape: tuple[int, ...], smooth: float = 1.5) -> np.ndarray:
    field = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), smooth)
    return field > np.quantile(field, rng.uniform(0.5, 0.9))


def blobs(seed: int, shape: tuple[int, ...] = (14, 17, 12)) -> tuple[np.ndarray, np.ndarray]:
    """Two masks of which the second is the first moved and altered."""
    rng = np.random.default_rng(seed)
    first = blob(rng, shape)
    return first, np.roll(first, rng.integers(-2, 3, 3), axis=(0, 1, 2)) ^ (
        blob(rng, shape) & blob(rng, shape)
    )


def oracle(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> float:
    tensors = [torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (a, b)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's own call of an argument it deprecated
        found = compute_surface_dice(
            *tensors, [tolerance], include_background=True, spacing=list(spacing), use_subvoxels=True
        )
    return found.item()


@pytest.mark.parametrize("spacing", SPACINGS)
def test_the_areas_equal_the_published_table(spacing):
    published, kernel = get_code_to_measure_table(list(spacing))
    bits = kernel[0, 0].flatten().tolist()
    mine = surface_areas(spacing)
    for code in range(256):
        theirs = sum(bits[k] for k in range(8) if code >> k & 1)
        assert mine[code] == pytest.approx(published[theirs].item(), rel=1e-5)


def test_corners_are_numbered_as_the_areas_expect():
    slab = sum(1 << k for k, (_, _, z) in enumerate(CORNERS) if z == 0)
    assert surface_areas((2.0, 3.0, 7.0))[slab] == pytest.approx(6.0)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_equals_monai(seed, spacing):
    a, b = blobs(seed)
    for tolerance in (0.0, 0.5, 1.0, 2.0, 3.3):
        assert nsd(a, b, spacing, tolerance) == pytest.approx(oracle(a, b, spacing, tolerance), abs=1e-5)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_equals_monai_where_distances_equal_the_tolerance(spacing):
    a = np.zeros((15, 15, 15), dtype=bool)
    a[4:9, 4:9, 4:9] = True
    for axis, step in enumerate(spacing):
        b = np.roll(a, 2, axis=axis)
        for tolerance in (step, 2 * step, 1.9 * step):
            assert nsd(a, b, spacing, tolerance) == pytest.approx(oracle(a, b, spacing, tolerance), abs=1e-5)


def test_equals_monai_on_white_noise_and_at_the_border():
    rng = np.random.default_rng(0)
    a, b = rng.random((9, 8, 7)) < 0.4, rng.random((9, 8, 7)) < 0.6
    for tolerance in (0.0, 0.9, 1.3):
        found, expected = nsd(a, b, (0.9, 1.3, 2.0), tolerance), oracle(a, b, (0.9, 1.3, 2.0), tolerance)
        assert found == pytest.approx(expected, abs=1e-5)


def ball(radius: float, spacing: tuple[float, ...], shape: tuple[int, ...]) -> np.ndarray:
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    return x**2 + y**2 + z**2 <= radius**2


def test_concentric_balls_agree_only_from_their_distance_on():
    spacing, shape = (0.8, 0.8, 1.0), (54, 54, 44)
    small, large = ball(14.0, spacing, shape), ball(18.0, spacing, shape)
    assert nsd(small, large, spacing, 2.5) == 0.0
    assert nsd(small, large, spacing, 5.5) == 1.0


def test_a_shifted_box_agrees_where_its_sides_overlap():
    """A box of n^3 voxels moved along x: at tolerance 0 the sides agree where both have them.

    Marching cubes bevels the box's edges and cuts its corners at half a voxel. Along x it has n - 1
    rings of side elements, a rim at either end and two caps.
    """
    n, shift = 12, 3
    a = np.zeros((n + shift, n, n), dtype=bool)
    b = a.copy()
    a[:n], b[shift:] = True, True
    bevel, corner = math.sqrt(0.5), math.sqrt(3) / 8
    ring = 4 * (n - 1) + 4 * bevel
    rim = 4 * (n - 1) * bevel + 4 * corner
    whole = (n - 1) * ring + 2 * rim + 2 * (n - 1) ** 2
    assert nsd(a, b, (1.0, 1.0, 1.0), 0.0) == pytest.approx(((n - shift) * ring + rim) / whole)
    assert nsd(a, b, (1.0, 1.0, 1.0), float(shift)) == 1.0


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    tolerance=st.floats(0, 4),
    scale=st.floats(0.1, 10),
    pads=st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 3),
)
def test_properties(seed, tolerance, scale, pads):
    spacing = (0.7, 1.1, 2.5)
    a, b = blobs(seed, (9, 10, 7))
    value = nsd(a, b, spacing, tolerance)
    assert 0 <= value <= 1
    assert value == pytest.approx(nsd(b, a, spacing, tolerance))
    assert value == pytest.approx(nsd(np.pad(a, pads), np.pad(b, pads), spacing, tolerance))
    assert value == pytest.approx(nsd(torch.from_numpy(a), torch.from_numpy(b), spacing, tolerance))
    assert value <= nsd(a, b, spacing, tolerance + 0.5) + 1e-12
    assert nsd(a, a, spacing, 0.0) == 1.0
    larger = tuple(scale * step for step in spacing)
    assert value == pytest.approx(nsd(a, b, larger, scale * tolerance))
    turned = nsd(a.transpose(2, 0, 1), b.transpose(2, 0, 1), (2.5, 0.7, 1.1), tolerance)
    assert value == pytest.approx(turned)
    assert value == pytest.approx(nsd(a[::-1], b[::-1], spacing, tolerance))


def test_empty_masks_follow_the_written_rule():
    empty, full = np.zeros((4, 3, 3), dtype=bool), np.ones((4, 3, 3), dtype=bool)
    assert math.isnan(nsd(empty, empty, (1.0, 1.0, 1.0), 1.0))
    assert nsd(empty, full, (1.0, 1.0, 1.0), 1.0) == 0.0
    assert nsd(full, empty, (1.0, 1.0, 1.0), 1.0) == 0.0


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)])
def test_unusable_spacing(spacing):
    mask = np.ones((3, 3, 3), dtype=bool)
    with pytest.raises(ValueError, match="three positive numbers"):
        nsd(mask, mask, spacing, 1.0)


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_unusable_tolerance(tolerance):
    mask = np.ones((3, 3, 3), dtype=bool)
    with pytest.raises(ValueError, match="finite and not negative"):
        nsd(mask, mask, (1.0, 1.0, 1.0), tolerance)


@pytest.mark.realdata
def test_equals_monai_on_real_organs(real_data: Path):
    image = nibabel.load(real_data / "ts_noncontrast" / "example_seg_fast_force_split.nii.gz")
    labels, spacing = np.asarray(image.dataobj), tuple(float(s) for s in image.header.get_zooms())
    names = [label for label in (1, 2, 3, 5, 7) if np.count_nonzero(labels == label) > 50]
    assert names
    for label in names:
        organ = labels == label
        moved = np.roll(scipy.ndimage.binary_opening(organ), 1, axis=0)
        for tolerance in (1.0, 3.0):
            expected = oracle(organ, moved, spacing, tolerance)
            assert nsd(organ, moved, spacing, tolerance) == pytest.approx(expected, abs=1e-5)
