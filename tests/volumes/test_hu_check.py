"""Is it CT in HU? One check, of files, streams and volumes in memory alike.

What others read without a word: HU + 1024 without its intercept (JoHof/lungmask issue 108,
wasserth/TotalSegmentator issue 130), scans scaled to [0, 1] or to their standard deviation (MIC-DKFZ/nnUNet
forwards such input), NaN outside of the field of view after a resampling (TorchIO, SciPy).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.errors import IntensityError
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, open_scan, read_volume
from mpfnl.volumes.hu_check import HuSample, hu_fault
from mpfnl.volumes.scan import open_random_access

AFFINE = np.diag([0.8, 0.8, 2.5, 1.0])
Change = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def abdomen(shape: tuple[int, int, int] = (60, 48, 20), seed: int = 0, noise: float = 12) -> np.ndarray:
    """HU of a slab of abdomen: air around, fat, muscle, liver, aorta, gas and a vertebra, with noise."""
    rng = np.random.default_rng(seed)
    x, y = (np.linspace(-1, 1, size)[:, None] if axis == 0 else np.linspace(-1, 1, size)[None]
            for axis, size in enumerate(shape[:2]))  # fmt: skip
    slice_ = np.full(shape[:2], -1000.0)
    for value, at, size in (
        (-105, (0, 0), (0.85, 0.7)),
        (55, (0, 0), (0.75, 0.6)),
        (110, (-0.35, 0), (0.35, 0.4)),
        (-800, (0.3, 0.25), (0.1, 0.1)),
        (350, (0.05, -0.2), (0.06, 0.06)),
        (350, (0, -0.42), (0.16, 0.12)),
        (900, (0, -0.42), (0.05, 0.04)),
    ):
        slice_[((x - at[0]) / size[0]) ** 2 + ((y - at[1]) / size[1]) ** 2 <= 1] = value
    hu = np.repeat(ndimage.gaussian_filter(slice_, 0.6)[..., None], shape[2], axis=2)
    return np.rint(hu + rng.normal(0, noise, shape))


def outside(hu: np.ndarray, value: float) -> np.ndarray:
    """The scan with a padding outside of a round field of view."""
    x, y = (np.linspace(-1, 1, size) for size in hu.shape[:2])
    return np.where((x[:, None] ** 2 + y[None] ** 2 > 1)[..., None], value, hu)


def scaled(hu: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((hu - low) / (high - low), 0, 1)


def middle(hu: np.ndarray, share: float) -> np.ndarray:
    sides = [(round(size * (1 - share) / 2), round(size * (1 + share) / 2)) for size in hu.shape[:2]]
    return hu[slice(*sides[0]), slice(*sides[1])]


def with_metal(hu: np.ndarray) -> np.ndarray:
    metal = hu.copy()
    metal[20:24, 20:24] = 30000
    return metal


CT: dict[str, Change] = {
    "as it is": lambda hu: hu,
    "clipped to twelve bits": lambda hu: np.clip(hu, -1024, 3071),
    "padding -1024": lambda hu: outside(hu, -1024),
    "padding -2000": lambda hu: outside(hu, -2000),
    "padding -2048": lambda hu: outside(hu, -2048),
    "padding -3024": lambda hu: outside(hu, -3024),
    "metal": with_metal,
    "a soft tissue window": lambda hu: np.clip(hu, -175, 275),
    "a narrow window": lambda hu: np.clip(hu, -100, 240),
    "fractions": lambda hu: hu * 0.999 + 0.25,
    "an image without air": lambda hu: middle(hu, 0.5),
    "inside an organ": lambda hu: hu[18:24, 18:28],
    "around the spine": lambda hu: hu[22:38, 8:20],
}

NOT_CT: dict[str, Change] = {
    "+1024": lambda hu: hu + 1024,
    "+1024, not below 0": lambda hu: np.maximum(hu + 1024, 0),
    "+1000": lambda hu: hu + 1000,
    "+1024, padded with -2000 before": lambda hu: outside(hu, -2000) + 1024,
    "+1024, padded with -1024 after": lambda hu: outside(hu + 1024, -1024),
    "+1024, an organ": lambda hu: hu[18:24, 18:28] + 1024,
    "-1024": lambda hu: hu - 1024,
    "[0, 1]": lambda hu: scaled(hu, -1024, 3071),
    "[0, 1], windowed": lambda hu: scaled(hu, -175, 275),
    "[-1, 1]": lambda hu: 2 * scaled(hu, -175, 275) - 1,
    "divided by 255": lambda hu: hu / 255,
    "divided by 1000": lambda hu: hu / 1000,
    "standardized": lambda hu: (hu - hu.mean()) / hu.std(),
    "standardized as nnU-Net does": lambda hu: (np.clip(hu, -100, 300) - 80) / 140,
    "[0, 255]": lambda hu: np.rint(255 * scaled(hu, -160, 240)),
    "[0, 255], a wide window": lambda hu: 255 * scaled(with_metal(hu), -1000, 1000),
    "[0, 255], a lung window": lambda hu: np.rint(255 * scaled(hu, -1350, 150)),
    "[0, 255], another lung window": lambda hu: 255 * scaled(hu, -1200, 300),
    "12 bits": lambda hu: np.rint(4095 * scaled(hu, -1024, 3071)),
    "16 bits": lambda hu: np.rint(65535 * scaled(hu, -1000, 1000)),
    "MR": lambda hu: np.abs(900 * scaled(-0.4 * hu, -450, 450) * (hu > -300) + 5 * np.sin(hu)),
}


def magnitude(hu: np.ndarray, tissue: float, noise: float) -> np.ndarray:
    """MR: tissue of low range, and Rayleigh noise around it (10.1002/mrm.1910340618)."""
    parts = np.random.default_rng(0).normal(0, noise, (2, *hu.shape))
    parts[0] += tissue * (1 + np.clip(hu, -150, 200) / 400) * (hu > -500)
    return np.hypot(*parts)


@pytest.mark.parametrize("change", CT.values(), ids=CT)
def test_ct_in_hu_is_accepted(change: Change) -> None:
    assert hu_fault(change(abdomen())) == ""


@pytest.mark.parametrize("change", NOT_CT.values(), ids=NOT_CT)
def test_what_is_no_hu_is_refused(change: Change) -> None:
    assert hu_fault(change(abdomen()))


@pytest.mark.parametrize("tissue", [60, 100, 150, 1500])
@pytest.mark.parametrize("noise", [0.003, 0.01, 0.03])
def test_mr_of_any_range_is_refused(tissue: float, noise: float) -> None:
    image = magnitude(abdomen(), tissue, tissue * noise)
    assert hu_fault(image)
    assert hu_fault(np.rint(image).astype(np.int16))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(mean=st.floats(0, 250), noise=st.floats(10, 60), size=st.integers(7, 14), seed=st.integers(0, 99))
def test_the_inside_of_an_organ_is_ct(mean: float, noise: float, size: int, seed: int) -> None:
    """The examples are fixed: from about 54 HU of noise on, a bright crop may span more than `WIDE_HU`."""
    hu = np.random.default_rng(seed).normal(mean, noise, 3 * [size])
    assert hu_fault(hu) == ""
    assert hu_fault(np.rint(hu).astype(np.int16)) == ""


@settings(max_examples=25, deadline=None)
@given(
    noise=st.floats(3, 80),
    padding=st.sampled_from([None, -1024, -1500, -2000, -2048, -3024]),
    offset=st.sampled_from([0, 1000, 1024]),
    seed=st.integers(0, 99),
)
def test_noise_and_padding_do_not_hide_an_offset(
    noise: float, padding: float | None, offset: float, seed: int
) -> None:
    hu = abdomen(seed=seed, noise=noise)
    stored = (hu if padding is None else outside(hu, padding)) + offset
    assert bool(hu_fault(stored)) == bool(offset)


def test_the_message_tells_what_was_found(tmp_path: Path) -> None:
    stored = np.maximum(abdomen() + 1024, 0).astype(np.uint16)
    nib.save(nib.Nifti1Image(stored, AFFINE), tmp_path / "arterial.nii.gz")
    with pytest.raises(IntensityError) as caught:
        read_volume(tmp_path / "arterial.nii.gz", Phase.ARTERIAL)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'arterial.nii.gz'} (arterial phase): ")
    assert f" {stored.min()}," in message
    assert f" {np.median(stored):g}," in message
    assert "intercept" in message
    assert "\n" not in message


def test_a_constant_is_no_reason_to_refuse() -> None:
    for value in (-100, 2, 40, 300):
        assert hu_fault(np.full((4, 4, 3), value, np.int16)) == ""
    hu = 60 + 70 * np.random.default_rng(0).standard_normal((30, 26, 20))
    hu[:5], hu[20:24] = -1000, 900  # a made-up scan with an insert
    assert hu_fault(hu) == ""
    hu[:10], hu[10:20], hu[20:] = 50, 250, 850  # made-up tissues
    assert hu_fault(hu) == ""


def painted(parts: list[tuple[float, tuple[float, float], tuple[float, float]]], noise: float) -> np.ndarray:
    """HU of ellipses (value, centre, half axes) in air, each over the ones before, with noise."""
    grid = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 80), np.linspace(-1, 1, 8), indexing="ij")
    hu = np.full(grid[0].shape, -1000.0)
    for value, at, size in parts:
        hu[((grid[0] - at[0]) / size[0]) ** 2 + ((grid[1] - at[1]) / size[1]) ** 2 <= 1] = value
    hu = ndimage.gaussian_filter(hu, 0.7) + np.random.default_rng(0).normal(0, noise, hu.shape)
    return np.rint(hu).clip(-1024, 3071)


FAT_AND_MUSCLE = [(-105, (0, 0), (0.9, 0.75)), (55, (0, 0), (0.8, 0.65)), (350, (0, -0.42), (0.18, 0.13))]
SCANS: dict[str, list[Any]] = {
    "angiography": [
        *FAT_AND_MUSCLE,
        (450, (0.05, -0.15), (0.12, 0.1)),
        (400, (-0.3, 0), (0.25, 0.25)),
        (420, (0.4, -0.1), (0.2, 0.2)),
    ],
    "heart": [(-100, (0, 0), (0.9, 0.75)), (-850, (0, 0.1), (0.8, 0.6)), (600, (0, 0), (0.35, 0.35))],
    "urography": [
        *FAT_AND_MUSCLE,
        (1200, (0.4, -0.2), (0.12, 0.12)),
        (1200, (-0.4, -0.2), (0.12, 0.12)),
        (1300, (0, 0.1), (0.3, 0.25)),
    ],
    "hip prostheses": [
        *FAT_AND_MUSCLE,
        (1100, (0.5, -0.05), (0.17, 0.17)),
        (1100, (-0.5, -0.05), (0.17, 0.17)),
        (3071, (0.5, -0.05), (0.13, 0.13)),
        (3071, (-0.5, -0.05), (0.13, 0.13)),
    ],
    "chest": [(-100, (0, 0), (1.4, 1.4)), (-860, (0, 0), (1.15, 1.1)), (45, (0, -0.1), (0.25, 0.4))],
    "head": [(40, (0, 0), (0.8, 0.75)), (1100, (0, 0), (0.75, 0.7)), (35, (0, 0), (0.69, 0.64))],
    "child without fat": [
        (50, (0, 0), (0.6, 0.5)),
        (90, (-0.2, 0), (0.25, 0.25)),
        (250, (0, -0.3), (0.1, 0.1)),
    ],
    "extremity": [(-100, (0, 0), (0.22, 0.2)), (50, (0, 0), (0.19, 0.17)), (1400, (0, 0), (0.07, 0.07))],
    "water": [(0, (0, 0), (0.8, 0.8))],
}


@pytest.mark.parametrize("noise", [5, 20, 80])
@pytest.mark.parametrize("kind", list(SCANS))
def test_unusual_ct_is_accepted(kind: str, noise: float) -> None:
    """Much contrast, metal, lung, bone or air: unusual shares are no other unit."""
    hu = painted(SCANS[kind], noise)
    assert hu_fault(hu) == ""
    for low, high in ((-175, 275), (-15, 135), (-1000, 400), (-450, 1050)):
        assert hu_fault(np.clip(hu, low, high)) == "", (low, high)


@pytest.mark.parametrize("kind", list(SCANS))
@pytest.mark.parametrize(("low", "high"), [(-15, 135), (0, 100), (0, 600)])
def test_clipped_to_a_window_and_degraded(kind: str, low: float, high: float) -> None:
    """What an evaluation writes with a preset that clips: windowed first, then blurred, then noisy."""
    clean = ndimage.gaussian_filter(np.clip(painted(SCANS[kind], 12), low, high), 0.7)
    for noise in (4, 40):
        hu = np.rint(clean + np.random.default_rng(1).normal(0, noise, clean.shape))
        assert hu_fault(hu) == "", noise
    if low == 0 and kind != "water":  # without noise nothing tells it from grey values
        assert hu_fault(np.rint(clean))


def test_a_file_that_states_hu_may_hold_one_value() -> None:
    """A DICOM series of water, whose header gives slope and intercept; a few voxels show nothing else."""
    for shape, values in (((9, 7, 6), (0, 1)), ((40, 40, 30), (0,)), ((40, 40, 30), (1,))):
        hu = np.resize(np.array(values, np.int16), shape)
        stated, unknown = HuSample(shape, stated=True), HuSample(shape)
        stated.add(0, hu)
        unknown.add(0, hu)
        assert stated.fault == ""
        assert unknown.fault
    mask = HuSample((40, 40, 30), stated=True)
    mask.add(0, np.resize(np.array([0, 1], np.int16), (40, 40, 30)))
    assert mask.fault


def test_slabs_are_checked_as_the_whole() -> None:
    hu = abdomen((180, 160, 24))  # more voxels than are looked at
    for values in (hu, hu + 1024):
        whole, parts = HuSample(hu.shape), HuSample(hu.shape)
        whole.add(0, values)
        for start in range(0, hu.shape[2], 5):
            parts.add(start, values[:, :, start : start + 5])
        assert parts.fault == whole.fault


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_way_to_open_a_scan_checks_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pv{suffix}"
    stored = (abdomen() + 1024).astype(np.int16)
    nib.save(nib.Nifti1Image(stored, AFFINE), path)
    memory = Volume.from_array(stored, AFFINE, path)
    ways = [
        lambda: read_volume(path, Phase.PORTAL_VENOUS),
        lambda: open_scan(path, Phase.PORTAL_VENOUS),
        lambda: open_scan(memory, Phase.PORTAL_VENOUS),
    ]
    if suffix == ".nii":
        ways.append(lambda: open_random_access(path, Phase.PORTAL_VENOUS))
    for way in ways:
        with pytest.raises(IntensityError, match=r"pv\.nii.* \(portal venous phase\): .*intercept"):
            way()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_volume_in_memory_with_nan_is_named(bad: float) -> None:
    hu = abdomen().astype(np.float32)
    hu[0] = bad
    volume = Volume.from_array(hu, AFFINE, "arterial.nii.gz", Phase.ARTERIAL)
    with pytest.raises(IntensityError, match=r"arterial\.nii\.gz \(arterial phase\): 960 voxels"):
        open_scan(volume)


def test_a_volume_of_eight_bits_is_no_scan() -> None:
    with pytest.raises(IntensityError, match="8 bits"):
        open_scan(Volume.from_array(np.zeros((4, 4, 4), np.uint8), AFFINE))


@pytest.mark.realdata
def test_real_scans_and_what_is_made_of_them(real_data: Path) -> None:
    scans = sorted(path for path in (real_data / "hcc_multiphase" / "half").rglob("*.nii.gz"))[::3]
    scans += [real_data / "crlm_pv_1004" / "dicom_sub", real_data / "ts_noncontrast" / "example_ct_sm.nii.gz"]
    for path in scans:
        hu = read_volume(path).data.astype(np.float32)
        for name, change in CT.items():
            if name in ("inside an organ", "around the spine"):  # places in the made-up abdomen
                continue
            assert hu_fault(change(hu)) == "", (path, name)
        for name, change in NOT_CT.items():
            if "organ" not in name:
                assert hu_fault(change(hu)), (path, name)


@pytest.mark.realdata
def test_real_low_dose_scans_with_an_offset_of_1000(real_data: Path) -> None:
    """The low-contrast phantom of FDA's LCD data, stored as HU + 1000, with noise of up to 60 HU."""
    with np.load(real_data / "lcd_ct" / "lcd_ct_small.npz") as content:
        for stored in (content[name] for name in content if content[name].ndim == 3):
            assert hu_fault(stored)
            assert hu_fault(stored.astype(np.int16) - 1000) == ""
