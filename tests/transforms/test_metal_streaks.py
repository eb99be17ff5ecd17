"""Metal: rays and reconstruction against scikit-image, the streaks against physics."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import iradon, radon

from mpfnl.transforms.degradation.metal import IMPLANT_HU, Implant, metal_streaks
from mpfnl.transforms.degradation.parallel_beam import Ellipse, ParallelBeam
from mpfnl.window import BODY_HU

SPACING = (1.0, 1.0, 2.5)
SCREWS = (Implant((0.35, 0.5, 0.5), (3.0, 3.0), 20.0), Implant((0.65, 0.5, 0.5), (3.0, 3.0), 20.0))


def pixels(size: int, step: float = 1.0) -> np.ndarray:
    return (np.arange(size) - (size - 1) / 2) * step


def oval(x: int = 120, y: int = 96, z: int = 12, tissue_hu: float = 50.0) -> torch.Tensor:
    """A body of one tissue in air."""
    inside = (pixels(x)[:, None] / (0.46 * x)) ** 2 + (pixels(y) / (0.46 * y)) ** 2 < 1
    hu = torch.where(torch.from_numpy(inside), tissue_hu, -1000.0)
    return hu[:, :, None].repeat(1, 1, z)


def to_rows(image: np.ndarray) -> np.ndarray:
    """From `(x, y)` to scikit-image's rows, which run against y, and columns."""
    return image.T[::-1]


def streaks_of(hu: torch.Tensor, *numbers: float, implants: tuple[Implant, ...] = SCREWS) -> torch.Tensor:
    """What is added, and NaN where metal covers it: what stays when there are next to no streaks."""
    seed = int(numbers[2]) if len(numbers) > 2 else 0
    result = metal_streaks(hu, SPACING, implants, *numbers[:2], seed)
    bare = metal_streaks(hu, SPACING, implants, 1e-9, 0.0)
    metal = (bare - hu).abs() > 1
    assert metal.any()
    return (result - hu).masked_fill(metal, math.nan)


@pytest.mark.parametrize(
    "ellipse",
    [
        Ellipse((0.0, 0.0), (20.0, 12.0)),
        Ellipse((14.5, -9.0), (6.0, 22.0)),
        Ellipse((-25.0, 20.0), (9.0, 9.0)),
    ],
)
def test_chords_are_the_radon_transform_of_the_ellipse(ellipse: Ellipse) -> None:
    beam = ParallelBeam(angles=12, reach_mm=60.0, pixel_mm=1.0)
    fine = (np.arange(121 * 5) - (121 * 5 - 1) / 2) / 5
    inside = ((fine[:, None] - ellipse.centre[0]) / ellipse.radius[0]) ** 2 + (
        (fine - ellipse.centre[1]) / ellipse.radius[1]
    ) ** 2 < 1
    image = inside.reshape(121, 5, 121, 5).mean((1, 3))
    expected = radon(to_rows(image), np.degrees(beam.directions), circle=True).T
    bins = (np.arange(beam.bins) - (beam.bins - 1) / 2) * beam.pitch
    found = np.array([np.interp(pixels(121), bins, row) for row in beam.chords(ellipse)])
    assert np.abs(found - expected).mean() < 0.005 * expected.max()
    assert np.abs(found - expected).max() < 0.12 * expected.max()  # at the edge, where pixels are coarse
    assert beam.chords(ellipse).sum(1) * beam.pitch == pytest.approx(math.pi * math.prod(ellipse.radius))


def test_reconstruction_equals_scikit_image() -> None:
    """Off-centre Gaussian blobs, of which the projections are Gaussians."""
    beam, size = ParallelBeam(angles=180, reach_mm=70.0, pixel_mm=1.0), 97
    blobs = [(10.0, -5.0, 4.0, 1.0), (-20.0, 12.0, 6.0, -0.5), (0.0, 25.0, 3.0, 2.0)]

    def sinogram(t: np.ndarray) -> np.ndarray:
        total = np.zeros((beam.angles, len(t)))
        for x, y, sigma, height in blobs:
            seen = x * np.cos(beam.directions) + y * np.sin(beam.directions)
            total += (
                height * sigma * math.sqrt(2 * math.pi) * np.exp(-(((t - seen[:, None]) / sigma) ** 2) / 2)
            )
        return total

    bins = (np.arange(beam.bins) - (beam.bins - 1) / 2) * beam.pitch
    found = beam.reconstruct(sinogram(bins)[None], pixels(size), pixels(size))[0]
    theirs = iradon(sinogram(pixels(size)).T, np.degrees(beam.directions), filter_name="hann", circle=True)
    circle = np.hypot(pixels(size)[:, None], pixels(size)) < 46
    # Their linear interpolation between bins costs the sharpest blob 1.5 % of its height, which is 2.
    np.testing.assert_allclose(found[circle], theirs[::-1].T[circle], atol=0.04)
    for x, y, sigma, height in blobs:
        near = np.hypot(pixels(size)[:, None] - x, pixels(size) - y) < sigma
        truth = height * np.exp(
            -((pixels(size)[:, None] - x) ** 2 + (pixels(size) - y) ** 2) / (2 * sigma**2)
        )
        np.testing.assert_allclose(found[near], truth[near], atol=0.12 * abs(height))


def test_an_ellipse_comes_back_from_its_chords() -> None:
    beam = ParallelBeam(angles=200, reach_mm=70.0, pixel_mm=1.0)
    image = beam.reconstruct(beam.chords(Ellipse((2.0, -3.0), (41.0, 33.0)))[None], pixels(97), pixels(97))[0]
    away = np.hypot((pixels(97)[:, None] - 2) / 41, (pixels(97) + 3) / 33)
    np.testing.assert_allclose(image[away < 0.9], 1, atol=0.01)
    np.testing.assert_allclose(image[away > 1.1], 0, atol=0.01)


def test_a_band_between_two_screws_is_dark_and_its_sides_are_bright() -> None:
    streaks = streaks_of(oval(), 40.0, 0.0)[:, :, 5].numpy()
    middle = 48
    between = streaks[52:68, middle - 1 : middle + 1]
    beside = np.stack([streaks[52:68, middle - 7 : middle - 4], streaks[52:68, middle + 4 : middle + 7]])
    assert between.max() < -40
    assert np.nanmean(beside) > 20
    away = streaks[52:68, 10:25]
    assert np.abs(away).max() < 0.2 * abs(between.mean())


def test_one_implant_is_dark_along_the_longest_way_through_the_body() -> None:
    for body, swapped in ((oval(120, 80), False), (oval(80, 120), True)):
        one = (Implant((0.5, 0.5, 0.5), (3.0, 3.0), 20.0),)
        streaks = streaks_of(body, 40.0, 0.0, implants=one)[:, :, 5].numpy()
        streaks = streaks.T if swapped else streaks
        assert streaks[68:74, 39:41].max() < -10
        assert streaks[59:61, 48:54].min() > 10


def test_streaks_leave_alone_what_metal_covers() -> None:
    body = oval()
    small = (Implant((0.4, 0.4, 0.5), (1.0, 1.0), 6.0), Implant((0.6, 0.5, 0.5), (1.0, 1.5), 20.0))
    bare = metal_streaks(body, SPACING, small, 1e-9, 0.0)
    covered = (bare - body).abs() > 1
    torch.testing.assert_close(metal_streaks(body, SPACING, small, 80.0)[covered], bare[covered])
    assert bare[covered].min() > 50


def test_streaks_run_along_the_rays_through_the_metal() -> None:
    x, y = pixels(120), pixels(96)
    one = Implant((0.5, 0.5, 0.5), (2.0, 2.0), 20.0)
    streaks = streaks_of(oval(), 40.0, 1.0, 3, implants=(one,))[:, :, 5].numpy()
    angles, radii = np.linspace(0, 2 * math.pi, 400, endpoint=False), np.arange(12, 40, 2.0)
    at = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)])[:, None]
    polar = ndimage.map_coordinates(np.nan_to_num(streaks), [at[0] - x[0], at[1] - y[0]], order=1)
    along = np.corrcoef(polar[5], polar[6])[0, 1]
    across = np.corrcoef(polar[5], np.roll(polar[5], 20))[0, 1]
    assert along > 0.8
    assert abs(across) < 0.4


def test_a_round_implant_in_a_round_body_has_no_streaks_of_hardening() -> None:
    """By symmetry its error is the projection of a disc: nothing lies outside of it."""
    body = oval(101, 101)
    one = (Implant((0.5, 0.5, 0.5), (4.0, 4.0), 20.0),)
    streaks = streaks_of(body, 40.0, 0.0, implants=one)
    assert torch.nan_to_num(streaks).square().mean().sqrt() < 8
    long = (Implant((0.5, 0.5, 0.5), (2.0, 8.0), 20.0),)
    assert torch.nan_to_num(streaks_of(body, 40.0, 0.0, implants=long))[body > 0].square().mean().sqrt() > 20


@pytest.mark.parametrize("starvation", [0.0, 0.5, 1.0])
def test_the_strength_is_the_root_mean_square_near_the_implants(starvation: float) -> None:
    """In a body of which all is near; the mean is 0 in every slice, and noise differs."""
    body = oval()
    streaks = streaks_of(body, 30.0, starvation)
    inside = (body > BODY_HU) & ~streaks.isnan()
    touched = [z for z in range(12) if inside[:, :, z].any() and torch.nan_to_num(streaks[:, :, z]).any()]
    assert touched == list(range(2, 10))
    values = torch.cat([streaks[:, :, z][inside[:, :, z]] for z in touched])
    assert values.square().mean().sqrt() == pytest.approx(30.0, rel=0.02)
    for z in touched:
        assert abs(streaks[:, :, z][inside[:, :, z]].double().mean()) < 0.3
    differ = not torch.equal(streaks[:, :, 4].nan_to_num(), streaks[:, :, 5].nan_to_num())
    assert differ == (starvation > 0)


def test_streaks_grow_in_proportion_and_follow_the_body_only_through_its_outline() -> None:
    body = oval()
    weak, strong = (torch.nan_to_num(streaks_of(body, size, 0.3, 5)) for size in (10.0, 25.0))
    torch.testing.assert_close(strong, 2.5 * weak, rtol=0, atol=2e-2)
    textured = body + 20 * torch.sin(torch.arange(12.0))
    other = torch.nan_to_num(streaks_of(textured, 10.0, 0.3, 5))
    torch.testing.assert_close(other, weak, rtol=0, atol=2e-2)


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1)])
def test_a_mirrored_scene_has_mirrored_streaks(axes: tuple[int, ...]) -> None:
    implants = (Implant((0.3, 0.6, 0.45), (3.0, 2.0), 11.0), Implant((0.6, 0.35, 0.7), (2.0, 5.0), 7.0))
    mirrored = tuple(
        Implant(
            tuple(1 - at if axis in axes else at for axis, at in enumerate(each.position)),
            each.radius_mm,
            each.length_mm,
        )
        for each in implants
    )
    body = oval()
    one = metal_streaks(body, SPACING, implants, 40.0, 0.0)
    two = metal_streaks(body.flip(axes), SPACING, mirrored, 40.0, 0.0).flip(axes)
    assert (one - two).abs().mean() < 0.05
    assert (one - two).abs().quantile(0.999) < 3


def test_metal_is_as_bright_as_the_scale_and_as_large_as_the_implant() -> None:
    body = oval()
    rod = Implant((0.5, 0.5, 0.5), (8.0, 12.0), 10.0)
    result = metal_streaks(body, SPACING, (rod,), 30.0, 0.4)
    x, y = pixels(120)[:, None] / 8, pixels(96) / 12
    core, away = np.hypot(x, y) < 0.95, np.hypot(x, y) > 1.35
    filled = result[:, :, 4:8].numpy()
    assert (filled[core] == IMPLANT_HU).all()
    assert filled[away].max() < 1000
    assert torch.equal(result[:, :, [0, 1, 2, 3, 8, 9, 10, 11]], body[:, :, [0, 1, 2, 3, 8, 9, 10, 11]])
    assert result.max() == IMPLANT_HU


def test_an_implant_fades_out_over_the_slice_in_which_it_ends() -> None:
    body = oval()
    rods = [Implant(each.position, each.radius_mm, 12.5) for each in SCREWS]  # 2 halves and 4 whole slices
    streaks = metal_streaks(body, SPACING, rods, 40.0, 0.0) - body
    assert not streaks[:, :, 2].any()
    half, whole = streaks[52:68, 47:49, 3], streaks[52:68, 47:49, 4]
    torch.testing.assert_close(half, whole / 2, rtol=0.02, atol=0.5)


def test_implants_that_share_some_slices_harden_each_other_only_there() -> None:
    body = oval(z=20)
    low = Implant((0.35, 0.5, 0.3), (3.0, 3.0), 25.0)
    high = Implant((0.65, 0.5, 0.7), (3.0, 3.0), 35.0)
    streaks = metal_streaks(body, SPACING, (low, high), 40.0, 0.0) - body
    between = streaks[58:62, 47:49].mean((0, 1))
    shared = [7, 8, 9, 10]
    alone = [2, 3, 4, 5, 13, 15, 17, 19]
    assert between[[8, 9]].max() < 3 * between[alone].min()
    assert between[shared].max() < 0


def test_a_long_implant_has_streaks_on_both_sides_of_a_short_one() -> None:
    short = Implant((0.65, 0.5, 0.5), (3.0, 3.0), 10.0)
    streaks = metal_streaks(oval(), SPACING, (Implant((0.35, 0.5, 0.5), (3.0, 3.0), 30.0), short), 40.0, 0.0)
    change = (streaks - oval()).abs().amax((0, 1))
    assert change.min() > 100
    assert change[0] == pytest.approx(float(change[11]), rel=0.01)


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*[st.integers(1, 16)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 3.0)] * 3),
    places=st.lists(st.tuples(*[st.floats(0, 1)] * 3), min_size=1, max_size=3),
    size=st.floats(0.1, 12.0),
    starvation=st.sampled_from([0.0, 0.4, 1.0]),
    tissue_hu=st.sampled_from([-1000.0, 40.0]),
)
def test_any_size_stays_finite_and_a_uniform_region_keeps_its_mean(
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    places: list[tuple[float, float, float]],
    size: float,
    starvation: float,
    tissue_hu: float,
) -> None:
    body = torch.full(shape, tissue_hu)
    implants = [Implant(place, (size, size / 2), 3 * size) for place in places]
    result = metal_streaks(body, spacing, implants, 30.0, starvation, 7)
    assert result.shape == body.shape
    assert torch.isfinite(result).all()
    assert (body == tissue_hu).all()
    metal = (metal_streaks(body, spacing, implants, 1e-9, 0.0) - body).abs() > 1e-3
    if not metal.all():
        assert abs(result[~metal].double().mean() - tissue_hu) < 1


def test_one_bright_voxel_in_the_air_does_not_move_the_implants() -> None:
    body = oval(96, 96)
    stray = body.clone()
    stray[0, 0, 0] = 500.0
    difference = metal_streaks(body, SPACING, SCREWS, 30.0) - metal_streaks(stray, SPACING, SCREWS, 30.0)
    difference[0, 0, 0] = 0
    assert difference.abs().max() < 0.1


def test_nothing_to_do_is_the_scan_itself() -> None:
    body = oval(20, 20, 4)
    assert metal_streaks(body, SPACING, SCREWS, 0.0) is body
    assert metal_streaks(body, SPACING, (), 30.0) is body


def test_it_is_identical_for_any_number_of_threads_and_for_one_seed() -> None:
    body, before = oval(), torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(metal_streaks(body, SPACING, SCREWS, 30.0, 0.4, 11))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    assert not torch.equal(results[0], metal_streaks(body, SPACING, SCREWS, 30.0, 0.4, 12))
    assert metal_streaks(body.double(), SPACING, SCREWS, 30.0).dtype == torch.float64


@pytest.mark.parametrize(
    ("position", "radius", "length", "message"),
    [
        ((0.5, 1.1, 0.5), (1.0, 1.0), 5.0, "position"),
        ((0.5, math.nan, 0.5), (1.0, 1.0), 5.0, "position"),
        ((0.5, 0.5), (1.0, 1.0), 5.0, "position"),
        ((0.5, 0.5, 0.5), (0.0, 1.0), 5.0, "radius_mm"),
        ((0.5, 0.5, 0.5), (1.0, math.inf), 5.0, "radius_mm"),
        ((0.5, 0.5, 0.5), (1.0, 1.0), -5.0, "length_mm"),
    ],
)
def test_impossible_implants_are_refused(position: tuple, radius: tuple, length: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Implant(position, radius, length)


def test_impossible_strengths_are_refused() -> None:
    body = oval(8, 8, 2)
    for streak_hu in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="streak_hu"):
            metal_streaks(body, SPACING, SCREWS, streak_hu)
    for starvation in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="starvation"):
            metal_streaks(body, SPACING, SCREWS, 10.0, starvation)


@pytest.mark.realdata
def test_streaks_of_the_stated_strength_on_a_real_scan(real_data: Path) -> None:
    image = nib.load(real_data / "crlm_pv_1004" / "CRLM-CT-1004_pv_bodycrop.nii.gz")
    hu = torch.from_numpy(np.asarray(image.dataobj[:, :, 15:21], dtype=np.float32))
    spacing = tuple(map(float, image.header.get_zooms()))
    screws = (Implant((0.42, 0.68, 0.5), (2.5, 2.5), 60.0), Implant((0.58, 0.68, 0.5), (2.5, 2.5), 60.0))
    change = metal_streaks(hu, spacing, screws, 40.0) - hu
    metal = (metal_streaks(hu, spacing, screws, 1e-9, 0.0) - hu).abs() > 1e-3
    labels, count = ndimage.label(metal[:, :, 2].numpy())
    assert count == 2
    near = np.zeros(labels.shape, bool)
    for place in ndimage.center_of_mass(labels > 0, labels, [1, 2]):
        x, y = (
            (np.arange(size) - at) * step
            for size, at, step in zip(labels.shape, place, spacing, strict=False)
        )
        near |= np.hypot(x[:, None], y) < 100
    measured = torch.from_numpy(near)[:, :, None] & ~metal & (hu > BODY_HU)
    assert change[measured].square().mean().sqrt() == pytest.approx(40.0, rel=0.02)
    for z in range(6):
        assert abs(change[:, :, z][~metal[:, :, z] & (hu[:, :, z] > BODY_HU)].double().mean()) < 0.5
