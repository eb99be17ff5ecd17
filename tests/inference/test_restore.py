"""HU outside the window are kept, noise is not, and slabs leave no trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from mpfnl.inference import hounsfield
from mpfnl.inference.hounsfield import noise_sd, restore_hu
from mpfnl.volumes import read_volume
from mpfnl.window import ABDOMEN

AIR, FAT, SOFT, BONE, AORTA = -1000.0, -100.0, 40.0, 600.0, 320.0
SHAPE = (72, 64, 24)


def anatomy() -> np.ndarray:
    """A crude body in HU: air, fat, soft tissue, a spine, gas, and a bright aorta."""
    x, y, _ = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE), indexing="ij")
    hu = np.where(np.hypot(x, y) < 0.95, FAT, AIR)
    hu[np.hypot(x, y) < 0.8] = SOFT
    hu[np.hypot(x, y - 0.45) < 0.22] = BONE
    hu[np.hypot(x, y) < 0.15] = AORTA
    hu[np.hypot(x - 0.4, y + 0.3) < 0.2] = AIR
    return hu


def noisy(sd: float, correlation: tuple[float, float, float], seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(SHAPE)
    if any(correlation):
        noise = ndimage.gaussian_filter(noise, correlation)
    scan = ndimage.gaussian_filter(anatomy(), 0.6) + noise / noise.std() * sd
    return np.rint(scan).astype(np.int16)


def perfect() -> np.ndarray:
    return ABDOMEN.normalize(anatomy()).astype(np.float32)


def truly_outside(scan: np.ndarray) -> np.ndarray:
    """Where the acceptance rule demands the input: SciPy's own mean over 3 voxels beyond the band."""
    mean = ndimage.uniform_filter(scan.astype(np.float64), 3, mode="nearest")
    return (mean < ABDOMEN.lower - 50) | (mean > ABDOMEN.upper + 50)


def deep(label: float, depth: int = 2) -> np.ndarray:
    return ndimage.binary_erosion(anatomy() == label, np.ones((3, 3, 3)), depth, border_value=1)


NOISES = pytest.mark.parametrize(
    ("sd", "correlation"),
    [(sd, c) for sd in (30.0, 50.0, 80.0) for c in ((0, 0, 0), (0.75, 0.75, 0), (0.75, 0.75, 0.75))],
)


@NOISES
def test_noise_throws_no_soft_tissue_out(sd: float, correlation: tuple[float, float, float]) -> None:
    scan = noisy(sd, correlation)
    output = restore_hu(scan, perfect(), ABDOMEN)
    outside = (output < ABDOMEN.lower) | (output > ABDOMEN.upper)
    assert not outside[deep(SOFT)].any()
    alone = outside & (ndimage.convolve(outside.astype(int), np.ones((3, 3, 3), int), mode="constant") == 1)
    assert not (alone & (anatomy() == SOFT)).any()
    if sd <= 50:  # at 80 HU the mean over 27 voxels of fat itself leaves the band
        assert not outside[deep(FAT)].any()


@NOISES
def test_outside_is_the_input_bit_by_bit(sd: float, correlation: tuple[float, float, float]) -> None:
    scan = noisy(sd, correlation)
    output = restore_hu(scan, perfect(), ABDOMEN)
    kept = truly_outside(scan)
    assert np.array_equal(output[kept], scan[kept])
    for label in (BONE, AIR):
        assert kept[deep(label)].all()


def test_the_phantom_has_something_to_throw_out() -> None:
    scan = noisy(80.0, (0, 0, 0))
    assert ((scan < ABDOMEN.lower) | (scan > ABDOMEN.upper))[deep(SOFT)].sum() > 20


def test_a_bright_vessel_is_not_speckled() -> None:
    rng = np.random.default_rng(0)
    for hu in (300.0, 325.0, 350.0):
        scan = np.rint(hu + 30 * rng.standard_normal((24, 24, 24)))
        output = restore_hu(scan, np.ones(scan.shape, np.float32), ABDOMEN)
        assert output.std() < 1.1 * scan.std()


@pytest.mark.parametrize("hu", [600, -700])
def test_a_thin_sheet_stays_and_a_lone_voxel_goes(hu: int) -> None:
    scan = np.full((20, 20, 20), 40, np.int16)
    scan[5] = hu  # one voxel thick, as cortical bone on a coarse grid
    scan[14, 10, 10] = hu
    output = restore_hu(scan, np.full(scan.shape, 0.5, np.float32), ABDOMEN)
    assert (output[5] == hu).all()
    assert output[14, 10, 10] == 50


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_type_rounding_and_clipping(dtype: type) -> None:
    scan = np.full((5, 5, 5), 40, dtype)
    unit = np.linspace(-0.5, 1.5, 125, dtype=np.float32).reshape(5, 5, 5)
    output = restore_hu(scan, unit, ABDOMEN)
    assert output.dtype == dtype
    expected = np.clip(unit, 0, 1) * 450 - 175
    np.testing.assert_allclose(output, expected, atol=0.5 if np.issubdtype(dtype, np.integer) else 1e-3)


@pytest.mark.parametrize("slices", [1, 3, 10])
def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch, slices: int) -> None:
    scan = noisy(50.0, (0.75, 0.75, 0.75)) + np.random.default_rng(1).random(SHAPE)
    for voxels in (scan, scan.astype(np.float32), scan.astype(np.int16)):
        whole = restore_hu(voxels, perfect(), ABDOMEN)
        with monkeypatch.context() as patch:
            patch.setattr(hounsfield, "SLAB_VOXELS", slices * SHAPE[0] * SHAPE[1])
            assert np.array_equal(restore_hu(voxels, perfect(), ABDOMEN), whole)


@pytest.mark.parametrize("sd", [10.0, 60.0])
def test_noise_is_measured(sd: float) -> None:
    scan = 40 + sd * np.random.default_rng(0).standard_normal((40, 40, 40))
    assert noise_sd(scan, ABDOMEN) == pytest.approx(sd, rel=0.05)
    assert noise_sd(np.full((4, 4, 4), -1000), ABDOMEN) == 0


def test_refuses_what_a_programmer_got_wrong() -> None:
    scan = np.full((4, 4, 4), 40, np.int16)
    with pytest.raises(ValueError, match=r"\(4, 4, 5\)"):
        restore_hu(scan, np.zeros((4, 4, 5), np.float32), ABDOMEN)
    with pytest.raises(ValueError, match="NaN"):
        restore_hu(scan, np.full((4, 4, 4), np.nan, np.float32), ABDOMEN)


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name", ["crlm_pv_1004/CRLM-CT-1004_pv_bodycrop.nii.gz", "ts_noncontrast/example_ct.nii.gz"]
)
def test_real_scan(real_data: Path, name: str) -> None:
    scan = read_volume(real_data / name).data
    output = restore_hu(scan, ABDOMEN.normalize(scan.astype(np.float32)), ABDOMEN)
    kept = truly_outside(scan)
    assert np.array_equal(output[kept], scan[kept])
    inside = (scan >= ABDOMEN.lower) & (scan <= ABDOMEN.upper)
    assert np.array_equal(output[inside], scan[inside])  # a network that changes nothing changes nothing
    bone = scan > 600
    assert (scan - output)[bone].mean() < noise_sd(
        scan, ABDOMEN
    )  # bone at the window's edge is not thinned out
