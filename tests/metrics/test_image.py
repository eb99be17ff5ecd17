"""PSNR and SSIM against scikit-image and MONAI."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel
import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.regression import KernelType, compute_ssim_and_cs
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from mpfnl.metrics.image import psnr, ssim
from mpfnl.window import ABDOMEN

SHAPES = [(24, 17, 11), (11, 40, 19), (33, 12, 26)]


def random_pair(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(shape, generator=generator)
    return (target + 0.2 * torch.randn(shape, generator=generator)).clamp(0, 1), target


def structured_pair(shape: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Flat regions with sharp and smooth borders, most of it bright; blurred and noisy against clean."""
    rng = np.random.default_rng(seed)
    blobs = scipy.ndimage.gaussian_filter(rng.standard_normal(shape), 2.5)
    clean = np.where(blobs > np.quantile(blobs, 0.3), 0.9, 0.2) + 0.05 * (blobs > np.quantile(blobs, 0.8))
    blurred = scipy.ndimage.gaussian_filter(clean, 1.0) + 0.05 * rng.standard_normal(shape)
    return torch.from_numpy(blurred.clip(0, 1)).float(), torch.from_numpy(clean).float()


def oracle_ssim(a: Tensor, b: Tensor, data_range: float = 1.0, sigma: float = 1.5) -> float:
    return float(
        structural_similarity(
            a.double().numpy(),
            b.double().numpy(),
            gaussian_weights=True,
            sigma=sigma,
            use_sample_covariance=False,
            data_range=data_range,
        )
    )


def single(volume: Tensor) -> Tensor:
    return volume[None, None]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [random_pair, structured_pair])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ssim_equals_scikit_image(make, shape, dtype):
    a, b = make(shape, seed=sum(shape))
    found = ssim(single(a).to(dtype), single(b).to(dtype))
    assert found.dtype is dtype
    assert found.item() == pytest.approx(oracle_ssim(a, b), abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_ssim_equals_monai(shape):
    a, b = structured_pair(shape, seed=4)
    with torch.no_grad():
        full, _ = compute_ssim_and_cs(
            single(a), single(b), 3, (11, 11, 11), (1.5, 1.5, 1.5), 1.0, KernelType.GAUSSIAN
        )
    assert ssim(single(a), single(b)).item() == pytest.approx(full.mean().item(), abs=1e-4)


@pytest.mark.parametrize("sigma", [0.8, 1.0, 2.0])
def test_ssim_equals_scikit_image_for_other_windows(sigma):
    a, b = structured_pair((22, 25, 19), seed=1)
    window_size = 2 * int(3.5 * sigma + 0.5) + 1
    found = ssim(single(a), single(b), sigma=sigma, window_size=window_size)
    assert found.item() == pytest.approx(oracle_ssim(a, b, sigma=sigma), abs=1e-5)


def test_ssim_keeps_its_precision_on_hounsfield_units():
    a, b = structured_pair((20, 21, 22), seed=2)
    a, b = 450 * a + 20_000, 450 * b + 20_000
    expected = oracle_ssim(a, b, data_range=450.0)
    assert ssim(single(a), single(b), data_range=450.0).item() == pytest.approx(expected, abs=1e-5)


def test_ssim_does_not_depend_on_the_slabs(monkeypatch):
    a, b = random_pair((40, 13, 12), seed=3)
    whole = ssim(single(a), single(b))
    monkeypatch.setattr("mpfnl.metrics.image._SLAB_VOXELS", 1)
    for planes in (1, 7, 8, 30):
        monkeypatch.setattr("mpfnl.metrics.image._SLAB_PLANES", planes)
        torch.testing.assert_close(ssim(single(a), single(b)), whole)
        torch.testing.assert_close(
            psnr(single(a), single(b)), psnr(single(a).double(), single(b).double()).float()
        )


def test_ssim_with_a_mask_is_the_mean_of_scikit_images_map():
    a, b = structured_pair((23, 21, 19), seed=5)
    mask = torch.rand(23, 21, 19, generator=torch.Generator().manual_seed(0)) > 0.7
    _, similarity = structural_similarity(
        a.double().numpy(),
        b.double().numpy(),
        gaussian_weights=True,
        use_sample_covariance=False,
        data_range=1.0,
        full=True,
    )
    inside = (slice(5, -5),) * 3
    expected = similarity[inside][mask.numpy()[inside]].mean()
    assert ssim(single(a), single(b), mask=single(mask)).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("data_range", [1.0, 450.0])
@pytest.mark.parametrize("shape", [(7, 5, 3), (19, 30, 2)])
def test_psnr_equals_scikit_image(shape, data_range):
    a, b = (data_range * volume for volume in random_pair(shape, seed=6))
    expected = peak_signal_noise_ratio(b.double().numpy(), a.double().numpy(), data_range=data_range)
    assert psnr(single(a), single(b), data_range).item() == pytest.approx(expected, rel=1e-6)


def test_psnr_with_a_mask_equals_scikit_image_on_those_voxels():
    a, b = random_pair((9, 8, 7), seed=7)
    mask = a > 0.4
    expected = peak_signal_noise_ratio(b[mask].double().numpy(), a[mask].double().numpy(), data_range=1.0)
    assert psnr(single(a), single(b), mask=single(mask)).item() == pytest.approx(expected, rel=1e-6)


def test_one_value_a_batch_element_over_its_channels():
    pairs = [[random_pair((12, 13, 14), seed=10 * i + j) for j in range(2)] for i in range(3)]
    a = torch.stack([torch.stack([pair[0] for pair in row]) for row in pairs])
    b = torch.stack([torch.stack([pair[1] for pair in row]) for row in pairs])
    expected = [np.mean([oracle_ssim(*pair) for pair in row]) for row in pairs]
    np.testing.assert_allclose(ssim(a, b).numpy(), expected, atol=1e-5)
    squares = [np.mean([(x - y).square().mean() for x, y in row]) for row in pairs]
    np.testing.assert_allclose(psnr(a, b).numpy(), -10 * np.log10(squares), rtol=1e-5)


def test_a_perfect_prediction():
    _, b = structured_pair((12, 11, 13), seed=0)
    assert psnr(single(b), single(b)).item() == math.inf
    assert ssim(single(b), single(b)).item() == pytest.approx(1.0, abs=1e-6)
    flat = torch.full((1, 1, 11, 11, 11), 0.7)
    assert ssim(flat, flat).item() == pytest.approx(1.0, abs=1e-6)


def test_nan_is_not_hidden():
    a, b = random_pair((12, 12, 12), seed=0)
    a[6, 6, 6] = math.nan
    assert psnr(single(a), single(b)).isnan().all()
    assert ssim(single(a), single(b)).isnan().all()


def test_half_precision_volumes_are_compared_in_single_precision():
    a, b = (volume.bfloat16() for volume in random_pair((12, 12, 12), seed=1))
    assert ssim(single(a), single(b)).item() == pytest.approx(oracle_ssim(a.float(), b.float()), abs=1e-5)
    assert psnr(single(a), single(b)).dtype is torch.float32


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(*[st.integers(11, 16)] * 3),
    seed=st.integers(0, 2**16),
    data_range=st.sampled_from([0.5, 1.0, 450.0]),
)
def test_symmetry_range_and_scale(shape, seed, data_range):
    a, b = (single(volume).double() for volume in random_pair(shape, seed))
    torch.testing.assert_close(psnr(a, b), psnr(b, a))
    torch.testing.assert_close(ssim(a, b), ssim(b, a))
    assert -1 <= ssim(a, b).item() <= 1
    torch.testing.assert_close(ssim(a * data_range, b * data_range, data_range), ssim(a, b))
    torch.testing.assert_close(psnr(a * data_range, b * data_range, data_range), psnr(a, b))
    torch.testing.assert_close(ssim(a.transpose(2, 4), b.transpose(2, 4)), ssim(a, b))
    torch.testing.assert_close(ssim(a.flip(3), b.flip(3)), ssim(a, b))
    assert (psnr(b + 0.5 * (a - b), b) > psnr(a, b)).all()


def test_both_are_differentiable():
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(2, 1, 5, 4, 3, dtype=torch.float64, generator=generator) for _ in range(2))
    a.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ssim(x, b, sigma=0.5, window_size=3), (a,))
    assert torch.autograd.gradcheck(lambda x: psnr(x, b), (a,))


def test_what_cannot_be_compared():
    volume = torch.zeros(1, 1, 12, 12, 10)
    with pytest.raises(ValueError, match=r"\(12, 12, 10\) voxels; SSIM with a window of 11"):
        ssim(volume, volume)
    with pytest.raises(ValueError, match="odd"):
        ssim(volume, volume, window_size=4)
    with pytest.raises((TypeError, ValueError)):
        psnr(volume, volume[..., :-1])
    with pytest.raises((TypeError, ValueError)):
        psnr(volume[0], volume[0])
    with pytest.raises(TypeError):
        psnr(volume.int(), volume.int())
    with pytest.raises(ValueError, match="positive"):
        psnr(volume, volume, data_range=0.0)
    with pytest.raises(ValueError, match="mask is empty"):
        psnr(volume, volume, mask=torch.zeros_like(volume, dtype=torch.bool))
    edge = torch.zeros(1, 1, 12, 12, 12, dtype=torch.bool)
    edge[..., :3] = True
    volume = torch.zeros(1, 1, 12, 12, 12)
    with pytest.raises(ValueError, match="no voxel at which"):
        ssim(volume, volume, mask=edge)
    with pytest.raises(TypeError, match="boolean"):
        ssim(volume, volume, mask=edge.float())


@pytest.mark.realdata
@pytest.mark.parametrize(
    "crop",
    [
        (slice(100, 164), slice(80, 144), slice(4, 34)),
        (slice(150, 190), slice(100, 200), slice(10, 24)),
        (slice(60, 171), slice(130, 160), slice(0, 38)),
    ],
)
def test_real_ct_against_its_degraded_self(real_data: Path, crop):
    image = nibabel.load(real_data / "crlm_pv_1004" / "CRLM-CT-1004_pv_bodycrop.nii.gz")
    target = ABDOMEN.normalize(np.asarray(image.dataobj[crop], dtype=np.float64))
    rng = np.random.default_rng(0)
    degraded = scipy.ndimage.gaussian_filter(target, 1.2) + 0.05 * rng.standard_normal(target.shape)
    a = torch.from_numpy(degraded.clip(0, 1)).float()
    b = torch.from_numpy(target).float()
    expected = oracle_ssim(a, b)
    assert 0.05 < expected < 0.95
    assert ssim(single(a), single(b)).item() == pytest.approx(expected, abs=1e-5)
    ratio = peak_signal_noise_ratio(b.double().numpy(), a.double().numpy(), data_range=1.0)
    assert psnr(single(a), single(b)).item() == pytest.approx(ratio, rel=1e-5)
