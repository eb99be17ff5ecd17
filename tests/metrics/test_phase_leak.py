"""The phase-leak check: mixtures of known share, zones against brute force, blur told from leak."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, median_filter
from scipy.spatial import KDTree

from mpfnl.metrics.phase_leak import (
    WARNINGS,
    LeakRule,
    OrganDrift,
    Verdict,
    organ_zones,
)
from mpfnl.metrics.phase_leak import organ_drift as organ_drift_in_a_window
from mpfnl.phases import Phase
from mpfnl.volumes import read_volume
from mpfnl.volumes.masks import read_label_volume
from mpfnl.window import ABDOMEN, Window

NC, ARTERIAL = Phase.NONCONTRAST, Phase.ARTERIAL
organ_drift = partial(organ_drift_in_a_window, window=ABDOMEN)
AORTA = OrganDrift(  # an ordinary aorta: fat and muscle around it
    core_ml=20.0,
    reference_hu=120.0,
    enhanced_hu=120.0,
    degraded_hu=120.0,
    others_hu={NC: 40.0, ARTERIAL: 260.0},
    surroundings_hu=0.0,
    deep_drift_hu=0.0,
)


def test_no_fraction_toward_a_phase_that_the_study_lacks() -> None:
    assert np.isnan(AORTA.fraction(Phase.DELAYED))
    zones = organ_zones(np.ones((20, 20, 20), dtype=bool), (2.0, 2.0, 2.0))
    scan = np.full((20, 20, 20), 100)
    other = scan.copy()
    other[:, :, 10:] = -2048  # covers half of the organ
    drift = organ_drift(scan, scan, {ARTERIAL: other}, zones)
    assert drift is not None
    assert np.isnan(drift.fraction(ARTERIAL))
    assert drift.drift_hu == 0


def drifted(drift: float, deep: float | None = None, **others: float) -> OrganDrift:
    deep = drift if deep is None else deep
    return replace(AORTA, enhanced_hu=AORTA.reference_hu + drift, deep_drift_hu=deep, **others)


def grid_mm(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> np.ndarray:
    axes = [(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def vessel(radius: float, spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> np.ndarray:
    x, y, _ = grid_mm(shape, spacing)
    return np.asarray(np.hypot(x, y) <= radius)


@settings(deadline=None, max_examples=40)
@given(share=st.floats(-0.3, 0.9), seed=st.integers(0, 1000))
def test_the_fraction_of_a_mixture_is_its_share(share: float, seed: int) -> None:
    """Also in an organ of two tissues, where a median would not give it back."""
    rng = np.random.default_rng(seed)
    mask = vessel(9.0, (1.5, 1.5, 2.0), (20, 20, 10))
    tissue = rng.random(mask.shape) < 0.5
    reference = np.where(tissue, 130.0, 60.0) + rng.uniform(-20, 20, mask.shape)
    other = np.where(tissue, 230.0, 65.0) + rng.uniform(-20, 20, mask.shape)
    enhanced = (1 - share) * reference + share * other
    drift = organ_drift(enhanced, reference, {ARTERIAL: other}, organ_zones(mask, (1.5, 1.5, 2.0)))
    assert drift is not None
    assert drift.fraction(ARTERIAL) == pytest.approx(share, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    spacing=st.tuples(st.floats(0.7, 3.0), st.floats(0.7, 3.0), st.floats(0.7, 6.0)),
)
def test_zones_are_those_of_a_search_over_all_voxels(seed: int, spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seed)
    mask = gaussian_filter(rng.random((15, 14, 12)), 2.5) > 0.5
    mask[5:9, 5:9, 5:9] = True
    mask[0, 0, 0] = False
    zones = organ_zones(mask, spacing)
    core, deep, around = (np.zeros(mask.shape, bool) for _ in range(3))
    for whole, part in ((core, zones.core), (deep, zones.deep), (around, zones.around)):
        whole[zones.box] = part
    inside, outside = np.argwhere(mask), np.argwhere(~mask)
    depth, _ = KDTree(outside * spacing).query(inside * spacing)
    steps = np.abs(inside[:, None] - outside[None]).sum(axis=2).min(axis=1)  # over faces of voxels
    away, _ = KDTree(inside * spacing).query(outside * spacing)
    clear = 1e-9  # ties of the two ways to compute a distance
    for zone, mm, voxels in ((core, 3.0, 1), (deep, 6.0, 2)):
        assert zone[tuple(inside[(depth > mm + clear) & (steps > voxels)].T)].all()
        assert not zone[tuple(inside[(depth < mm - clear) | (steps <= voxels)].T)].any()
        assert not zone[~mask].any()
    assert around[tuple(outside[away < 6.0 - clear].T)].all()
    assert not around[tuple(outside[away > 6.0 + clear].T)].any()
    assert not around[mask].any()
    assert zones.core_ml == pytest.approx(core.sum() * math.prod(spacing) / 1000)


def test_a_slice_of_thick_slices_lies_in_no_core() -> None:
    mask = np.zeros((30, 30, 9), bool)
    mask[5:25, 5:25, 3:6] = True  # three slices of 8 mm: the outer two are mixtures
    zones = organ_zones(mask, (1.0, 1.0, 8.0))
    filled = np.zeros(mask.shape, bool)
    filled[zones.box] = zones.core
    assert set(np.argwhere(filled)[:, 2]) == {4}


def test_an_organ_goes_on_beyond_the_grid() -> None:
    mask = vessel(9.0, (1.0, 1.0, 1.0), (30, 30, 12))
    core = organ_zones(mask, (1.0, 1.0, 1.0)).core
    assert core.any(axis=(0, 1)).all()  # first and last slice too
    everything = organ_zones(np.ones((6, 6, 6), bool), (3.0, 3.0, 3.0))
    assert everything.core.all()
    assert not everything.around.any()


@settings(deadline=None, max_examples=30)
@given(shift=st.floats(-120, 80))
def test_outside_of_the_window_nothing_drifts(shift: float) -> None:
    """The enhanced scan keeps 900 HU where the degraded input was cut off at 275, or the other way round."""
    mask = vessel(9.0, (1.5, 1.5, 2.0), (20, 20, 10))
    reference = np.full(mask.shape, 100.0 + shift)
    enhanced = reference.copy()
    reference[:, 10:], enhanced[:, 10:] = 900.0, 275.0
    drift = organ_drift(enhanced, reference, {}, organ_zones(mask, (1.5, 1.5, 2.0)))
    assert drift is not None
    assert drift.drift_hu == pytest.approx(0.0, abs=1e-9)
    assert drift.reference_hu <= ABDOMEN.upper


def test_the_window_decides_what_is_clipped() -> None:
    mask = vessel(9.0, (1.5, 1.5, 2.0), (20, 20, 10))
    zones = organ_zones(mask, (1.5, 1.5, 2.0))
    reference, enhanced = np.full(mask.shape, 120.0), np.full(mask.shape, 200.0)
    liver = organ_drift(enhanced, reference, {}, zones, window=Window(60.0, 150.0))
    assert liver is not None
    assert liver.drift_hu == pytest.approx(135.0 - 120.0)


@pytest.mark.parametrize(
    ("drift", "verdict"),
    [
        (AORTA, Verdict.NONE),
        (drifted(19.9), Verdict.NONE),
        (drifted(20.1), Verdict.LEAK),
        (drifted(-20.1), Verdict.LEAK),  # toward the non-contrast phase, in the deep core too
        (drifted(-25.0, deep=-19.0), Verdict.BLUR),
        (drifted(-25.0, deep=math.nan), Verdict.UNCLEAR),
        (drifted(25.0, deep=math.nan), Verdict.LEAK),  # away from the surroundings: no blur does that
        (drifted(25.0, deep=1.0), Verdict.LEAK),
        (drifted(25.0, degraded_hu=math.nan), Verdict.LEAK),
        (drifted(25.0, degraded_hu=143.0), Verdict.INPUT),
        (drifted(45.0, degraded_hu=143.0), Verdict.LEAK),  # more than the input had, by 20 HU and more
        (drifted(25.0, degraded_hu=95.0), Verdict.LEAK),  # the input went the other way
        (replace(drifted(25.0), others_hu={ARTERIAL: 60.0}), Verdict.SHIFT),
        (replace(drifted(25.0), others_hu={ARTERIAL: 149.0}), Verdict.SHIFT),  # phases 29 HU apart
        (replace(drifted(25.0), others_hu={ARTERIAL: 151.0}), Verdict.LEAK),
        (replace(drifted(25.0), others_hu={ARTERIAL: 371.0}), Verdict.SHIFT),  # under 10 % of the way
        (replace(drifted(25.0), others_hu={}), Verdict.SHIFT),
    ],
)
def test_the_rule_as_it_is_written(drift: OrganDrift, verdict: Verdict) -> None:
    assert drift.verdict() is verdict


LEVEL = st.floats(-175, 275)


@settings(deadline=None, max_examples=200)
@given(levels=st.tuples(LEVEL, LEVEL, LEVEL, LEVEL, LEVEL, LEVEL), deep=st.floats(-80, 80))
def test_dark_and_bright_are_judged_alike(levels: tuple[float, ...], deep: float) -> None:
    """HU turned upside down give the same verdict, phases and fractions."""

    def made(sign: float) -> OrganDrift:
        a, b, c, d, e, f = (sign * round(level) for level in levels)
        return OrganDrift(5.0, a, b, c, {NC: d, ARTERIAL: e}, f, sign * round(deep))

    up, down = made(1.0), made(-1.0)
    assert up.verdict() is down.verdict()
    assert up.toward() == down.toward()
    if up.verdict() in WARNINGS:
        assert abs(up.drift_hu) >= 20.0
        assert (up.verdict() is Verdict.LEAK) == bool(up.toward())


@pytest.mark.parametrize("radius", [5.0, 6.0, 10.0])
@pytest.mark.parametrize("fwhm", [2.0, 4.0, 6.0])
def test_blur_is_no_leak_and_a_leak_under_it_is_found(radius: float, fwhm: float) -> None:
    spacing = (0.8, 0.8, 2.5)
    mask = vessel(radius, spacing, (48, 48, 60))
    scans = {phase: np.where(mask, hu, -100.0) for phase, hu in AORTA.others_hu.items()}
    reference = np.where(mask, 120.0, -100.0)

    def blurred(scan: np.ndarray) -> np.ndarray:
        return gaussian_filter(scan, [fwhm / 2.3548 / step for step in spacing])

    zones = organ_zones(mask, spacing)
    honest = organ_drift(blurred(reference), reference, scans, zones)
    assert honest is not None
    assert honest.verdict() not in WARNINGS
    leaking = organ_drift(
        blurred(0.6 * reference + 0.4 * scans[ARTERIAL]), reference, scans, zones, blurred(reference)
    )
    assert leaking is not None
    if leaking.drift_hu >= 20.0:  # not in a thin vessel under a strong blur
        assert leaking.verdict() is Verdict.LEAK
        assert leaking.toward() == (ARTERIAL,)
    else:
        assert radius < 10.0
        assert fwhm > 3.0


def test_a_core_under_one_millilitre_is_not_measured() -> None:
    mask = vessel(5.0, (1.0, 1.0, 1.0), (20, 20, 60))
    flat = np.full(mask.shape, 100.0)
    full = organ_zones(mask, (1.0, 1.0, 1.0))
    assert full.core_ml < 1.0
    assert organ_drift(flat, flat, {}, full) is None
    assert organ_drift(flat, flat, {}, full, rule=LeakRule(least_ml=0.1)) is not None


def test_what_cannot_be_used_is_refused() -> None:
    mask = vessel(9.0, (1.5, 1.5, 2.0), (20, 20, 10))
    zones = organ_zones(mask, (1.5, 1.5, 2.0))
    with pytest.raises(ValueError, match="different shapes"):
        organ_drift(np.zeros(mask.shape), np.zeros((20, 20, 9)), {}, zones)
    with pytest.raises(TypeError, match="boolean"):
        organ_zones(mask.astype(np.uint8), (1.5, 1.5, 2.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="hold a voxel"):
        organ_zones(np.zeros((4, 4, 4), bool), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="spacing"):
        organ_zones(mask, (1.5, 0.0, 2.0))
    with pytest.raises(ValueError, match="positive"):
        LeakRule(least_drift_hu=0.0)
    with pytest.raises(ValueError, match="deep core"):
        LeakRule(deep_mm=1.0)


@pytest.mark.realdata
def test_a_real_portal_venous_scan(real_data: Path) -> None:
    """Real organs with a model's label map; the arterial phase is made up, as there is no real one."""
    folder = real_data / "ts_pv_dicom_scrubbed"
    scan = read_volume(folder / "dicom")
    stored = read_label_volume(folder / "seg_model.nii.gz")
    labels = stored.data[:, ::-1]  # the same grid, stored with y the other way round
    there = stored.affine @ [0, stored.shape[1] - 1, 0, 1]
    assert scan.affine[:, 3] == pytest.approx(there, abs=1e-3)
    reference = scan.data.astype(np.float32)
    aorta = labels == 52
    arterial = np.where(aorta, reference + 130, reference)
    noisy = reference + np.random.default_rng(0).normal(0, 30, reference.shape).astype(np.float32)
    honest = median_filter(noisy, 3)
    edge = gaussian_filter(aorta.astype(np.float32), [1.5 / step for step in scan.spacing])
    checked = 0
    for number in (1, 2, 3, 5, 52, 63):
        mask = labels == number
        zones = organ_zones(mask, scan.spacing) if mask.any() else None
        clean = zones and organ_drift(honest, reference, {ARTERIAL: arterial}, zones, noisy)
        if zones and clean:
            checked += 1
            assert clean.verdict() is Verdict.NONE
            leaking = organ_drift(honest + 60 * edge, reference, {ARTERIAL: arterial}, zones, noisy)
            assert leaking is not None
            assert (leaking.verdict() is Verdict.LEAK) == (number == 52)
    assert checked >= 4
