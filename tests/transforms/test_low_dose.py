"""Low dose against a measured scan and against Poisson counts reconstructed by scikit-image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import iradon, radon

from mpfnl.transforms.degradation.low_dose import (
    FULL_DOSE_SD_HU,
    add_low_dose_noise,
    mean_shift_hu,
    noise_autocorrelation,
    reconstruction_noise,
)
from mpfnl.transforms.degradation.low_dose_map import MU_WATER_PER_MM, noise_maps, relative_noise

# Quarter dose minus full dose, as measured on a real scan with pixels of 0.74 mm (not by us).
MEASURED_MEAN, MEASURED_SD = -0.9, 66.0
MEASURED_AUTOCORRELATION = {0.74: 0.59, 1.48: 0.09, 2.22: 0.0}
AIR, WATER = -1000.0, 0.0


def ellipse(pixels: int, spacing: float, half_axes_mm: tuple[float, float]) -> np.ndarray:
    """The inside of an ellipse in the middle of a square slice."""
    along = (np.arange(pixels) - (pixels - 1) / 2) * spacing
    return np.add.outer((along / half_axes_mm[0]) ** 2, (along / half_axes_mm[1]) ** 2) < 1


def phantom(inside: np.ndarray, slices: int) -> torch.Tensor:
    hu = torch.from_numpy(np.where(inside, WATER, AIR).astype(np.float32))
    return hu[..., None].expand(-1, -1, slices).contiguous()


def autocorrelation(noise: np.ndarray, inside: np.ndarray, axis: int, lags: int) -> np.ndarray:
    """At 0 ... lags voxels along an axis, over the pairs that lie inside.

    The local variance hardly changes over a few voxels, so it cancels: no map of it is needed.
    """
    noise, inside = np.moveaxis(noise, axis, 0), np.moveaxis(inside, axis, 0)
    products = []
    for lag in range(lags + 1):
        both = inside[lag:] & inside[: len(inside) - lag]
        products.append(np.mean((noise[lag:] * noise[: len(noise) - lag])[both], dtype=np.float64))
    return np.array(products) / products[0]


def at_distance(sampled: np.ndarray, spacing: float, distance: float) -> float:
    """Band-limited (sinc) interpolation of an autocorrelation that is known at whole voxels."""
    both_sides = np.concatenate([sampled[:0:-1], sampled])
    offsets = np.arange(-len(sampled) + 1, len(sampled))
    return float(np.sum(both_sides * np.sinc(distance / spacing - offsets)))


@dataclass
class RealNoise:
    spacing: tuple[float, ...]
    inside: np.ndarray
    depth_mm: np.ndarray
    noise: list[np.ndarray]


@pytest.fixture(scope="module")
def real_noise(real_data: Path) -> RealNoise:
    """Quarter dose minus full dose of a real scan, from three seeds; the body without 8 mm at its border."""
    image = nib.load(real_data / "crlm_pv_1004" / "CRLM-CT-1004_pv_bodycrop.nii.gz")
    hu = image.get_fdata(dtype=np.float32)
    spacing = tuple(float(step) for step in image.header.get_zooms())
    regions = [ndimage.label(ndimage.binary_opening(piece > -300, iterations=3))[0] for piece in hu.T]
    largest = [region == np.bincount(region.flat)[1:].argmax() + 1 for region in regions]
    depth = [ndimage.distance_transform_edt(ndimage.binary_fill_holes(each), spacing[:2]) for each in largest]
    volume = torch.from_numpy(hu)
    noise = [add_low_dose_noise(volume, spacing, 0.25, seed=seed).sub_(volume).numpy() for seed in range(3)]
    depth_mm = np.stack(depth).T
    return RealNoise(spacing, (depth_mm > 8) & (hu > -300), depth_mm, noise)


@pytest.mark.realdata
def test_quarter_dose_has_the_measured_mean_and_strength(real_noise: RealNoise) -> None:
    values = np.stack([noise[real_noise.inside] for noise in real_noise.noise]).astype(np.float64)
    assert values.mean() == pytest.approx(MEASURED_MEAN, rel=0.15)
    assert values.std() == pytest.approx(MEASURED_SD, rel=0.15)


@pytest.mark.realdata
def test_quarter_dose_has_the_measured_autocorrelation(real_noise: RealNoise) -> None:
    noise = real_noise.noise[0]
    for distance, measured in MEASURED_AUTOCORRELATION.items():
        found = [
            at_distance(
                autocorrelation(noise, real_noise.inside, axis, 12), real_noise.spacing[axis], distance
            )
            for axis in (0, 1)
        ]
        assert np.mean(found) == pytest.approx(measured, rel=0.15, abs=0.0 if measured else 0.03)
        if measured > 0.5:  # streaks along the patient's width: their noise changes fastest along y
            assert found[0] > found[1] + 0.02
    assert abs(autocorrelation(noise, real_noise.inside, 2, 1)[1]) < 0.01


@pytest.mark.realdata
def test_the_centre_of_the_patient_is_noisier_than_the_edge(real_noise: RealNoise) -> None:
    depth = real_noise.depth_mm
    centre = (depth > 0.8 * depth.max((0, 1))) & real_noise.inside
    edge = (depth < 25) & real_noise.inside
    squares = np.mean([noise.astype(np.float64) ** 2 for noise in real_noise.noise], axis=0)
    per_slice = [
        squares[..., z][centre[..., z]].mean() / squares[..., z][edge[..., z]].mean()
        for z in range(squares.shape[2])
    ]
    assert min(per_slice) > 1.2**2


PIXELS, PIXEL_MM, HALF_AXES_MM = 128, 3.2, (175.0, 110.0)


@pytest.fixture(scope="module")
def counted() -> np.ndarray:
    """Noise of Poisson counts behind an ellipse of water, reconstructed by scikit-image: `(repeat, x, y)`."""
    water = np.where(ellipse(PIXELS, PIXEL_MM, HALF_AXES_MM), MU_WATER_PER_MM, 0.0)
    angles = np.arange(0, 180, 1.5)
    integrals = radon(water * PIXEL_MM, angles, circle=False)
    rng, photons, repeats = np.random.default_rng(0), 2e5, 40
    noise = []
    for _ in range(repeats):
        counts = rng.poisson(photons * np.exp(-integrals)).clip(1)
        noise.append(iradon(-np.log(counts / photons), angles, PIXELS, filter_name="ramp", circle=False))
    return (np.array(noise) - np.mean(noise, 0)) * np.sqrt(repeats / (repeats - 1))


def test_the_noise_lies_where_poisson_counts_put_it(counted: np.ndarray) -> None:
    inside = ellipse(PIXELS, PIXEL_MM, HALF_AXES_MM)
    ours = relative_noise(phantom(inside, 1), (PIXEL_MM, PIXEL_MM, 1.0))[..., 0].numpy()
    oracle = np.sqrt(ndimage.gaussian_filter((counted**2).mean(0), 2))
    oracle /= np.sqrt((oracle[inside] ** 2).mean())
    within = ellipse(PIXELS, PIXEL_MM, (HALF_AXES_MM[0] - 20, HALF_AXES_MM[1] - 20))
    assert np.corrcoef(ours[within], oracle[within])[0, 1] > 0.95
    assert np.sqrt(np.mean((ours / oracle - 1)[within] ** 2)) < 0.06
    spots = {
        "centre": ellipse(PIXELS, PIXEL_MM, (20, 20)),
        "long end": np.roll(ellipse(PIXELS, PIXEL_MM, (15, 25)), round(145 / PIXEL_MM), 0),
        "short end": np.roll(ellipse(PIXELS, PIXEL_MM, (25, 15)), round(80 / PIXEL_MM), 1),
    }
    for spot in spots.values():
        assert ours[spot].mean() == pytest.approx(oracle[spot].mean(), rel=0.1)
    assert ours[spots["centre"]].mean() > 1.2 * ours[spots["long end"]].mean()
    assert ours[spots["long end"]].mean() > 1.2 * ours[spots["short end"]].mean()


def steepness(noise: np.ndarray) -> float:
    """Mean square of the differences along y over those along x, `(repeat, x, y)`."""
    return float(np.mean(np.diff(noise, axis=2) ** 2) / np.mean(np.diff(noise, axis=1) ** 2))


def test_the_noise_is_streaky_along_the_long_axis_as_that_of_poisson_counts(counted: np.ndarray) -> None:
    middle = slice(PIXELS // 2 - 12, PIXELS // 2 + 12)
    oracle = steepness(counted[:, middle, middle])
    spacing, pixels = 0.8, 480
    wide = phantom(ellipse(pixels, spacing, HALF_AXES_MM), 8)
    for hu, along in ((wide, (0, 1)), (wide.transpose(0, 1).contiguous(), (1, 0))):
        noise = reconstruction_noise(hu, (spacing, spacing, 1.0), seed=1)[200:280, 200:280].numpy()
        ours = steepness(noise.transpose(2, *along))
        assert 1.2 < ours < oracle  # the model's low-pass floor has no direction
    round_body = phantom(ellipse(pixels, spacing, (110.0, 110.0)), 8)
    noise = reconstruction_noise(round_body, (spacing, spacing, 1.0), seed=1)[200:280, 200:280].numpy()
    assert steepness(noise.transpose(2, 0, 1)) == pytest.approx(1.0, abs=0.05)


def test_the_map_of_a_disc_is_the_mean_over_its_chords() -> None:
    radius, spacing, pixels = 150.0, 1.5, 240
    inside = ellipse(pixels, spacing, (radius, radius))
    ours = relative_noise(phantom(inside, 1), (spacing, spacing, 1.0))[..., 0].numpy()
    along = np.abs(np.arange(pixels) - (pixels - 1) / 2) * spacing
    distance = np.hypot(*np.meshgrid(along, along))
    offsets = distance[..., None] * np.sin(np.linspace(0, np.pi, 180, endpoint=False))
    chords = 2 * np.sqrt((radius**2 - offsets**2).clip(0))
    variance = np.exp(MU_WATER_PER_MM * chords).mean(-1)
    expected = np.sqrt(variance / variance[inside].mean())
    within = distance < radius - 10
    np.testing.assert_allclose(ours[within], expected[within], rtol=0.04)


@pytest.mark.parametrize("distance", MEASURED_AUTOCORRELATION)
def test_the_closed_form_meets_the_measured_autocorrelation(distance: float) -> None:
    measured = MEASURED_AUTOCORRELATION[distance]
    assert noise_autocorrelation(distance) == pytest.approx(measured, abs=0.001 if measured else 0.03)


@settings(deadline=None, max_examples=12)
@given(x_mm=st.floats(0.4, 4.0), y_mm=st.floats(0.4, 4.0), seed=st.integers(0, 2**63 - 1))
def test_without_a_body_the_noise_has_the_closed_form_at_every_spacing(
    x_mm: float, y_mm: float, seed: int
) -> None:
    air = torch.full((100, 110, 12), AIR)
    noise = reconstruction_noise(air, (x_mm, y_mm, 3.0), seed).double().numpy()
    noise /= noise.std()
    for i, j, k in ((1, 0, 0), (2, 0, 0), (0, 1, 0), (0, 2, 0), (1, 1, 0), (3, 2, 0), (0, 0, 1)):
        found = np.mean(noise[i:, j:, k:] * noise[: 100 - i, : 110 - j, : 12 - k])
        # The integral of R^2 is 1.6 mm^2: at 0.4 mm 13,000 values are independent, and 0.045 is 5 errors.
        expected = 0.0 if k else noise_autocorrelation(np.hypot(i * x_mm, j * y_mm))
        assert found == pytest.approx(expected, abs=0.045)


def test_the_border_is_as_noisy_as_the_interior() -> None:
    noise = reconstruction_noise(torch.full((64, 60, 60), AIR), (0.8, 0.8, 2.0), seed=4)
    for face in (noise[0], noise[-1], noise[:, 0], noise[:, -1], noise[..., 0]):
        assert face.std().item() == pytest.approx(1.0, abs=0.06)
    assert abs(torch.mean(noise[0] * noise[-1]).item()) < 0.08
    assert abs(torch.mean(noise[:, 0] * noise[:, -1]).item()) < 0.08


volumes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6))
spacings = st.tuples(st.floats(0.2, 20.0), st.floats(0.2, 20.0), st.floats(0.2, 20.0))
doses = st.floats(0.01, 0.99)


def random_tissue(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Anything from vacuum to metal, in coarse patches."""
    return torch.from_numpy(np.random.default_rng(seed).choice([-3024.0, AIR, 40.0, 3071.0], shape)).float()


@settings(deadline=None, max_examples=40)
@given(shape=volumes, spacing=spacings, dose=doses, seed=st.integers(0, 2**63 - 1))
def test_any_volume_gets_finite_noise_that_replays(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], dose: float, seed: int
) -> None:
    hu = random_tissue(shape, seed)
    before, threads = hu.clone(), torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            results.append(add_low_dose_noise(hu, spacing, dose, seed=seed))
    finally:
        torch.set_num_threads(threads)
    assert results[0].shape == shape
    assert results[0].dtype == torch.float32
    assert results[0].isfinite().all()
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], add_low_dose_noise(hu, spacing, dose, seed=(seed + 1) % 2**63))
    assert torch.equal(hu, before)


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 2.5), (0.33, 1.9, 5.0)])
def test_many_threads_give_the_same_large_volume(spacing: tuple[float, float, float]) -> None:
    hu = phantom(ellipse(160, 1.0, (70.0, 50.0)), 24)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(add_low_dose_noise(hu, spacing, 0.25, seed=5))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_full_dose_is_the_identity() -> None:
    hu = random_tissue((9, 8, 3), 0)
    assert add_low_dose_noise(hu, (0.8, 0.8, 2.0), 1.0, seed=3) is hu


@pytest.mark.parametrize("dose", [0.0, -0.25, 1.5, float("nan")])
def test_impossible_doses_are_refused(dose: float) -> None:
    with pytest.raises(ValueError, match="dose fraction"):
        add_low_dose_noise(torch.zeros(4, 4, 4), (1.0, 1.0, 1.0), dose)


@pytest.mark.parametrize("sd", [-1.0, float("inf"), float("nan")])
def test_impossible_strengths_are_refused(sd: float) -> None:
    with pytest.raises(ValueError, match="standard deviation"):
        add_low_dose_noise(torch.zeros(4, 4, 4), (1.0, 1.0, 1.0), 0.5, sd)


@settings(deadline=None, max_examples=20)
@given(dose=st.floats(0.02, 0.95), full_sd=st.floats(1.0, 60.0))
def test_the_strength_follows_from_the_counts(dose: float, full_sd: float) -> None:
    hu = phantom(ellipse(40, 4.0, (70.0, 50.0)), 2)
    spacing = (4.0, 4.0, 3.0)
    unit = reconstruction_noise(hu, spacing, seed=2)
    added = add_low_dose_noise(hu, spacing, dose, full_sd, seed=2) - hu
    expected = unit * full_sd * np.sqrt(1 / dose - 1) + mean_shift_hu(dose)
    torch.testing.assert_close(added, expected, rtol=1e-5, atol=2e-3)


@settings(deadline=None, max_examples=50)
@given(dose=st.floats(1e-6, 1.0))
def test_the_mean_shifts_with_the_variance_and_by_less_than_1_hu(dose: float) -> None:
    shift = mean_shift_hu(dose)
    assert -1.0 < shift <= 0.0
    if dose >= 0.25:
        assert shift == pytest.approx(MEASURED_MEAN * (1 / dose - 1) / 3)
    else:
        assert shift == MEASURED_MEAN


@pytest.mark.parametrize("tissue", [AIR, -100.0, 60.0, 1000.0])
def test_a_uniform_region_keeps_its_mean(tissue: float) -> None:
    # The standard error of the mean over a slice of 150 mm is sqrt(NPS(0)) / 150 mm, NPS(0) = 2.7 mm^2 sd^2.
    spacing, slices = (1.0, 1.0, 3.0), 24
    changed = add_low_dose_noise(torch.full((150, 150, slices), tissue), spacing, 0.25, seed=6)
    standard_error = np.sqrt(2.7) * MEASURED_SD / 150 / np.sqrt(slices)
    mean = changed.double().mean().item() - tissue
    assert mean == pytest.approx(MEASURED_MEAN, abs=4 * standard_error)
    assert changed.std().item() == pytest.approx(MEASURED_SD, rel=0.03)


def test_a_slab_gets_the_strength_that_the_volume_gives_it() -> None:
    rng = np.random.default_rng(1)
    hu = torch.full((90, 70, 12), AIR)
    for z in range(12):
        hu[10 : 60 + 2 * z, 15:50, z] = 40.0
        hu[30:40, 25 : 30 + z, z] = float(rng.uniform(-900, 1500))
    spacing = (3.0, 4.0, 5.0)
    whole, slab = noise_maps(hu, spacing), noise_maps(hu[..., 4:9], spacing)
    torch.testing.assert_close(slab.every, whole.every[..., 4:9], rtol=1e-6, atol=0)
    torch.testing.assert_close(slab.along_x, whole.along_x[..., 4:9], rtol=1e-6, atol=0)
    torch.testing.assert_close(relative_noise(hu[..., 4:9], spacing), slab.every, rtol=0, atol=0)
    body = hu > -300
    for z in range(12):
        assert whole.every[..., z][body[..., z]].square().mean().item() == pytest.approx(1.0, abs=0.05)
    assert whole.every.std() > 0.1


@settings(deadline=None, max_examples=25)
@given(shape=volumes, spacing=spacings, seed=st.integers(0, 1000))
def test_the_two_directions_share_the_variance(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], seed: int
) -> None:
    # Without interpolation between coarse pixels, which is linear in the standard deviations, exactly.
    pixel = max(6.0, spacing[0], spacing[1])
    maps = noise_maps(random_tissue(shape, seed), (pixel, pixel, spacing[2]))
    total = maps.along_x.double() ** 2 + maps.along_y.double() ** 2
    torch.testing.assert_close(total, 2 * maps.every.double() ** 2, rtol=1e-5, atol=1e-9)
    assert (maps.every > 0).all()


@pytest.mark.parametrize("hu_value", [60.0, 3071.0])
def test_a_volume_without_any_air_has_its_own_strength(hu_value: float) -> None:
    every = relative_noise(torch.full((120, 100, 2), hu_value), (4.0, 4.0, 4.0))
    assert every.isfinite().all()
    assert every.square().mean().item() == pytest.approx(1.0, abs=0.05)  # exact at the coarse pixels
    assert every[60, 50, 0] > every[2, 2, 0]


def test_the_default_is_the_measured_scan() -> None:
    assert pytest.approx(MEASURED_SD**2) == 3 * FULL_DOSE_SD_HU**2
