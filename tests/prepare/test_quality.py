"""The quality record: its measures against other people's code, its verdicts on phantoms in place or not.

Nothing is registered here; `tests/benchmarks/test_quality_calibration.py` judges what registered ones score.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import dice as scipy_dice
from skimage.metrics import normalized_mutual_information as skimage_nmi

from mpfnl.data.manifest import Quality
from mpfnl.metrics.overlap import dice
from mpfnl.phantoms import generate_study
from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.study import PhantomStudy
from mpfnl.phases import Phase
from mpfnl.prepare.alignment import (
    BINS,
    SOFT_TISSUE_HU,
    Alignment,
    interior,
    jacobian_determinant,
    mismatch,
    normalized_mutual_information,
)
from mpfnl.prepare.quality import Limits, Thresholds, measure, study_verdict
from mpfnl.prepare.resampling import to_image

IDENTITY = sitk.Transform(3, sitk.sitkIdentity)


def smooth(seed: int, shape: tuple[int, ...] = (20, 18, 16), sigma: float = 1.5) -> np.ndarray:
    """Smooth random HU between about -300 and 400."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma)
    return (50 + 120 * field / field.std()).astype(np.float32)


@cache
def aligned_study(patient: int = 0) -> PhantomStudy:
    return generate_study(41, patient, replace(SMALL, misalignment=0.0))


def portal_venous(study: PhantomStudy) -> sitk.Image:
    return to_image(study.phases[Phase.PORTAL_VENOUS].astype(np.float32), study.affine)


def against(moving: np.ndarray, transform: sitk.Transform = IDENTITY) -> Alignment:
    """A phase on the first phantom's grid against its portal venous phase."""
    study = aligned_study()
    return Alignment.on_grid(
        portal_venous(study), to_image(moving.astype(np.float32), study.affine), transform
    )


@given(seed=st.integers(0, 1000), share=st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_mutual_information_is_scikit_images(seed: int, share: float) -> None:
    first = 3 * smooth(seed)
    second = share * first[::-1] + (1 - share) * 3 * smooth(seed + 1)
    clipped = [np.clip(scan, *SOFT_TISSUE_HU) for scan in (first, second)]
    for scan in clipped:  # scikit-image's bins run from the least value to the largest
        scan.flat[:2] = SOFT_TISSUE_HU
    expected = skimage_nmi(*clipped, bins=BINS)
    assert normalized_mutual_information(*clipped) == pytest.approx(expected, rel=1e-9)


def test_mutual_information_of_one_tissue_is_not_defined() -> None:
    flat = np.full(50, 40.0)
    assert math.isnan(normalized_mutual_information(flat, flat))
    assert math.isnan(normalized_mutual_information(flat[:0], flat[:0]))


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_mismatch_is_the_share_of_low_correlation_coefficients(seed: int) -> None:
    """NumPy's correlation of each voxel's 27, one voxel after the other."""
    first, second = smooth(seed, (9, 8, 7)), smooth(seed, (9, 8, 7)) + 0.8 * smooth(seed + 1, (9, 8, 7))
    where = np.zeros(first.shape, dtype=bool)
    where[1:-1, 1:-1, 1:-1] = True
    a, b = (np.clip(scan, *SOFT_TISSUE_HU).astype(np.float64) for scan in (first, second))
    low = []
    for x, y, z in np.argwhere(where):
        block = (slice(x - 1, x + 2), slice(y - 1, y + 2), slice(z - 1, z + 2))
        spread = a[block].std(), b[block].std()
        if max(spread) >= 20:
            flat = min(spread) < 1e-6
            low.append(flat or np.corrcoef(a[block].ravel(), b[block].ravel())[0, 1] ** 2 < 0.5)
    assert mismatch(first, second, where) == pytest.approx(np.mean(low), abs=0.02)


def test_mismatch_does_not_ask_which_tissue_is_brighter() -> None:
    scan = np.clip(smooth(3), -150, 250)
    everywhere = np.ones(scan.shape, dtype=bool)
    assert mismatch(scan, 80 - 0.7 * scan, everywhere) < 0.01
    assert mismatch(scan, smooth(4), everywhere) > 0.8
    assert math.isnan(mismatch(np.zeros_like(scan), np.zeros_like(scan), everywhere))


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_dice_is_scipys(seed: int) -> None:
    first, second = np.random.default_rng(seed).random((2, 6, 5, 4)) > 0.6
    assert dice(first, second) == pytest.approx(1 - scipy_dice(first.ravel(), second.ravel()))


def test_dice_of_nothing_is_not_defined() -> None:
    assert math.isnan(dice(np.zeros((3, 3, 3), dtype=bool), np.zeros((3, 3, 3), dtype=bool)))


@given(seed=st.integers(0, 1000), scale=st.floats(0.5, 12))
@settings(max_examples=10, deadline=None)
def test_jacobian_is_itks(seed: int, scale: float) -> None:
    spacing = (4.0, 3.5, 5.0)
    field = np.stack([scale * smooth(seed + axis) / 120 for axis in range(3)])
    image = sitk.GetImageFromArray(field.transpose(3, 2, 1, 0).astype(np.float64), isVector=True)
    image.SetSpacing(spacing)
    expected = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(image)).T
    inner = (slice(1, -1),) * 3  # ITK takes the field to be flat beyond its border
    np.testing.assert_allclose(
        jacobian_determinant(field, spacing)[inner], expected[inner], rtol=1e-4, atol=1e-5
    )


def test_jacobian_of_a_fold_is_negative() -> None:
    x = np.arange(10, dtype=np.float32) * 4
    field = np.zeros((3, 10, 9, 8), dtype=np.float32)
    field[0] = (-2 * x)[:, None, None]
    np.testing.assert_allclose(jacobian_determinant(field, (4, 4, 4)), -1)
    np.testing.assert_allclose(jacobian_determinant(field[..., :1], (4, 4, 4)), -1)  # one slice


def test_inside_is_deeper_than_asked_for() -> None:
    mask = np.zeros((30, 30, 12), dtype=bool)
    mask[5:25, 5:25] = True
    deep = interior(mask, 12.0, (4, 4, 4), beyond=True)
    expected = np.zeros_like(mask)
    expected[8:22, 8:22] = True  # 16 mm from the nearest voxel outside; the body goes on above and below
    np.testing.assert_array_equal(deep, expected)
    ended = interior(mask, 12.0, (4, 4, 4), beyond=False)
    np.testing.assert_array_equal(ended[..., 3:9], expected[..., 3:9])
    assert not ended[..., :3].any()
    assert not ended[..., 9:].any()
    assert interior(np.ones((4, 4, 4), dtype=bool), 50.0, (4, 4, 4), beyond=True).all()


def test_observed_displacement_is_ras_and_leads_to_the_phase() -> None:
    study = aligned_study()
    moved = study.affine.copy()
    moved[:3, 3] += (12.0, -8.0, 16.0)  # RAS: to the right, to the back, up
    phase = to_image(study.phases[Phase.PORTAL_VENOUS].astype(np.float32), moved)
    seen = Alignment.on_grid(portal_venous(study), phase, sitk.TranslationTransform(3, (-12.0, 8.0, 16.0)))
    expected = np.broadcast_to(np.array([12.0, -8.0, 16.0])[:, None, None, None], seen.displacement.shape)
    np.testing.assert_allclose(seen.displacement, expected, atol=1e-4)
    np.testing.assert_allclose(seen.after, seen.fixed, atol=0.1)
    assert seen.covered_after.all()
    assert not seen.covered_before[..., :3].any()  # the phase begins 16 mm higher
    assert (seen.before[~seen.covered_before] == -1024).all()
    assert np.abs(seen.before - seen.fixed).mean() > 20
    assert max(abs(step - 4) for step in seen.spacing) < 0.1


@pytest.mark.parametrize("phase", [Phase.ARTERIAL, Phase.NONCONTRAST])
def test_phases_in_place_pass(phase: Phase) -> None:
    quality = measure(against(aligned_study().phases[phase]))
    assert quality.verdict is Quality.PASS
    assert quality.reasons == ()
    assert quality.coverage == 1
    assert quality.folding == quality.displacement_max_mm == 0
    assert quality.similarity_before == quality.similarity_after


def test_flipped_fails() -> None:
    assert measure(against(aligned_study().phases[Phase.ARTERIAL][::-1])).verdict is Quality.FAIL


def test_another_patient_fails() -> None:
    study = aligned_study()
    other = aligned_study(1).phases[Phase.ARTERIAL]
    fitted = np.full(study.labels.shape, -1000, dtype=np.float32)
    x, y, z = (min(sides) for sides in zip(fitted.shape, other.shape, strict=True))
    fitted[:x, :y, :z] = other[:x, :y, :z]
    assert measure(against(fitted)).verdict is Quality.FAIL


@pytest.mark.parametrize("shift", [(60, 0, 0), (0, -60, 0), (0, 0, 60)])
def test_shifted_by_60_mm_fails(shift: tuple[float, float, float]) -> None:
    study = aligned_study()
    affine = study.affine.copy()
    affine[:3, 3] += shift
    arterial = to_image(study.phases[Phase.ARTERIAL].astype(np.float32), affine)
    assert measure(Alignment.on_grid(portal_venous(study), arterial, IDENTITY)).verdict is Quality.FAIL


def test_numbers_follow_from_the_arrays() -> None:
    seen = against(aligned_study().phases[Phase.ARTERIAL])
    half = seen.covered_after.copy()
    half[..., : half.shape[2] // 3] = False
    stretched = np.zeros_like(seen.displacement)
    stretched[2] = 0.1 * seen.spacing[2] * np.arange(half.shape[2], dtype=np.float32)
    quality = measure(replace(seen, covered_after=half, displacement=stretched))
    assert 0.6 < quality.coverage < 0.75
    assert quality.verdict is Quality.WARN
    (reason,) = quality.reasons
    assert "coverage" in reason
    assert "80.0%" in reason
    assert quality.jacobian_p01 == pytest.approx(1.1, abs=1e-4)
    assert quality.jacobian_p99 == pytest.approx(1.1, abs=1e-4)
    assert quality.log_jacobian_sd < 1e-4
    assert quality.displacement_max_mm == pytest.approx(0.1 * seen.spacing[2] * (half.shape[2] - 1), rel=1e-5)


def test_folding_fails() -> None:
    seen = against(aligned_study().phases[Phase.ARTERIAL])
    folded = np.zeros_like(seen.displacement)
    folded[0] = 8 * (np.arange(folded.shape[1]) % 2)[:, None, None]
    folded[0, 40:] = np.arange(folded.shape[1] - 40, dtype=np.float32)[:, None, None] * -8
    quality = measure(replace(seen, displacement=folded))
    assert quality.folding > 0.2
    assert quality.verdict is Quality.FAIL
    assert any("folding" in reason for reason in quality.reasons)


def test_a_phase_that_shows_nothing_fails_with_plain_json() -> None:
    seen = against(aligned_study().phases[Phase.ARTERIAL])
    nothing = np.zeros_like(seen.covered_after)
    air = np.full_like(seen.after, -1024)
    quality = measure(replace(seen, after=air, covered_after=nothing))
    assert quality.verdict is Quality.FAIL
    plain = quality.to_json()
    assert plain["similarity_after"] is None
    assert plain["coverage"] == 0
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_json_has_six_digits() -> None:
    plain = measure(against(aligned_study().phases[Phase.ARTERIAL])).to_json()
    assert plain["verdict"] == "pass"
    numbers = [value for value in plain.values() if isinstance(value, float)]
    assert len(numbers) == 17
    assert all(value == float(f"{value:.6g}") for value in numbers)


def test_the_worst_phase_that_is_used_decides() -> None:
    good = measure(against(aligned_study().phases[Phase.ARTERIAL]))
    phases = {Phase.ARTERIAL: good, Phase.NONCONTRAST: replace(good, verdict=Quality.WARN)}
    assert study_verdict(phases) is Quality.WARN
    phases[Phase.ARTERIAL] = replace(good, verdict=Quality.FAIL)
    assert study_verdict(phases) is Quality.WARN
    assert study_verdict({Phase.ARTERIAL: replace(good, verdict=Quality.FAIL)}) is Quality.WARN
    assert study_verdict({Phase.ARTERIAL: good}, [Phase.NONCONTRAST]) is Quality.WARN
    assert study_verdict({Phase.ARTERIAL: good}) is Quality.PASS
    assert study_verdict({}) is Quality.PASS  # a portal venous scan alone


@given(low=st.floats(0, 1), high=st.floats(0, 1), value=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_limits_judge_both_directions_alike(low: float, high: float, value: float) -> None:
    low, high = sorted((low, high))
    rising, falling = Limits(low, high, above=True), Limits(-low, -high, above=False)
    assert rising.judge(value) is falling.judge(-value)
    assert (rising.judge(value) is Quality.PASS) == (value <= low)
    assert (rising.judge(value) is Quality.FAIL) == (value > high)
    assert Limits(low, None, above=True).judge(value) is not Quality.FAIL
    assert rising.judge(math.nan) is Quality.FAIL


def test_limits_the_wrong_way_round_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.2 .*0\.1"):
        Limits(0.2, 0.1, above=True)
    with pytest.raises(ValueError, match=r"0\.8 .*0\.9"):
        Limits(0.8, 0.9, above=False)


def test_other_thresholds_can_be_given() -> None:
    seen = against(aligned_study().phases[Phase.ARTERIAL])
    strict = replace(Thresholds(), similarity=Limits(1.95, 1.9, above=False))
    assert measure(seen, strict).verdict is Quality.FAIL
