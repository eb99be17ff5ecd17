from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from mpfnl.errors import FormatError
from mpfnl.transforms.degradation import (
    SECOND_ORDER_V1,
    Preset,
    Record,
    apply_parameters,
    sample_parameters,
)
from mpfnl.transforms.degradation.resize import Resize
from mpfnl.transforms.degradation.second_order import SecondOrderStage
from mpfnl.window import ABDOMEN

SPACING = (0.8, 0.8, 2.5)


def patch(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 120


def with_stages(**changes: Any) -> Preset:
    return replace(SECOND_ORDER_V1, stages=tuple(replace(s, **changes) for s in SECOND_ORDER_V1.stages))


NEVER = with_stages(blur_probability=0.0, resize_probability=0.0, noise_probability=0.0)
ALWAYS = with_stages(blur_probability=1.0, resize_probability=1.0, noise_probability=1.0)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**63),
    shape=st.tuples(*[st.integers(1, 20)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 8.0)] * 3),
)
def test_replay_from_json_is_identical(
    seed: int, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    hu = patch(*shape)
    before = hu.clone()
    parameters = sample_parameters(ALWAYS, seed)
    degraded = apply_parameters(hu, spacing, parameters)
    replayed = apply_parameters(hu, spacing, json.loads(json.dumps(parameters)))
    assert degraded.shape == hu.shape
    assert torch.isfinite(degraded).all()
    assert torch.equal(degraded, replayed)
    assert torch.equal(hu, before)


def plain(value: object) -> bool:
    if type(value) is dict:
        return all(type(key) is str and plain(item) for key, item in value.items())
    if type(value) is list:
        return all(plain(item) for item in value)
    return type(value) in (str, int, float)


def test_the_record_is_plain_and_stays_in_its_ranges() -> None:
    kinds = set()
    for seed in range(60):
        record = sample_parameters(SECOND_ORDER_V1, seed)
        assert plain(record)
        assert (record["preset"], record["version"]) == ("second-order-v1", 1)
        for operation in record["operations"][1:]:
            stage = SECOND_ORDER_V1.stages[operation["stage"] - 1]
            kinds.add((operation["stage"], operation["kind"]))
            if operation["kind"] == "blur":
                low, high = stage.blur_fwhm_mm
                assert all(low <= width <= high for width in operation["fwhm_mm"])
            if operation["kind"] == "gaussian_noise":
                assert stage.noise_sd_hu[0] <= operation["sd_hu"] <= stage.noise_sd_hu[1]
    names = ("blur", "resize", "gaussian_noise", "poisson_noise")
    assert kinds == {(stage, name) for stage in (1, 2) for name in names}


def test_a_seed_and_a_generator_of_that_seed_draw_the_same() -> None:
    generator = np.random.default_rng(7)
    first, second = sample_parameters(ALWAYS, generator), sample_parameters(ALWAYS, generator)
    assert first == sample_parameters(ALWAYS, 7)
    assert first != second


def test_probability_zero_is_the_identity() -> None:
    hu = torch.linspace(-1024, 3071, 1000).reshape(10, 10, 10)
    result = apply_parameters(hu, SPACING, sample_parameters(NEVER, 3))
    assert torch.equal(result, hu)
    assert result.data_ptr() != hu.data_ptr()


def test_strength_zero_is_the_identity() -> None:
    nothing = replace(
        with_stages(
            blur_probability=1.0,
            blur_fwhm_mm=(0.0, 0.0),
            resize_probability=1.0,
            inplane_voxel_mm=(0.0, 0.0),
            slice_voxel_mm=(0.0, 0.0),
            noise_sd_hu=(0.0, 0.0),
            noise_probability=1.0,
        ),
        clip_to_window=False,
    )
    hu = torch.linspace(-1024, 3071, 1000).reshape(10, 10, 10)
    assert torch.equal(apply_parameters(hu, SPACING, sample_parameters(nothing, 3)), hu)


@pytest.mark.parametrize("tissue_hu", [-100.0, 60.0, 200.0])
def test_the_mean_of_a_uniform_region_stays(tissue_hu: float) -> None:
    hu = torch.full((48, 48, 48), tissue_hu)
    for seed in range(6):
        degraded = apply_parameters(hu, SPACING, sample_parameters(SECOND_ORDER_V1, seed))
        assert degraded.mean().item() == pytest.approx(tissue_hu, abs=1.0)
        assert not torch.equal(degraded, hu)


def test_the_interior_of_a_patch_is_degraded_as_in_the_volume() -> None:
    # Without noise (which starts at the patch's corner) only the border may differ.
    quiet = replace(
        ALWAYS, stages=tuple(replace(s, noise_probability=0.0, resize_probability=0.0) for s in ALWAYS.stages)
    )
    hu = patch(40, 40, 40)
    parameters = sample_parameters(quiet, 5)
    whole = apply_parameters(hu, SPACING, parameters)[8:32, 8:32, 8:32]
    alone = apply_parameters(hu[8:32, 8:32, 8:32], SPACING, parameters)
    torch.testing.assert_close(alone[8:-8, 8:-8, 8:-8], whole[8:-8, 8:-8, 8:-8], rtol=0, atol=0.05)


def test_a_resize_is_given_in_mm_and_limited_by_its_factor() -> None:
    resize = Resize((2.0, 8.0, 3.0), "area", "linear", max_factor=4.0)  # type: ignore[arg-type]
    assert resize.factors((0.8, 0.8, 5.0)) == pytest.approx((2.5, 4.0, 1.0))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "operations"),
        ({"operations": [{"kind": "sharpen"}]}, "sharpen"),
        ({"operations": [{"kind": "blur"}]}, "fwhm_mm"),
        ({"operations": [{"kind": "blur", "fwhm_mm": [1.0, -1.0, 1.0]}]}, "fwhm_mm"),
        ({"operations": [{"kind": "blur", "fwhm_mm": [1.0, 1.0]}]}, "fwhm_mm"),
        (
            {
                "operations": [
                    {"kind": "gaussian_noise", "sd_hu": float("nan"), "correlation_mm": 0, "seed": 1}
                ]
            },
            "sd_hu",
        ),
        (
            {"operations": [{"kind": "resize", "voxel_mm": [1, 1, 1], "down": "area", "up": "spline"}]},
            "spline",
        ),
        ({"operations": ["blur"]}, "operations"),
    ],
)
def test_a_record_that_is_not_one_is_refused_in_one_line(record: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        Record.from_json(record)
    assert "\n" not in str(caught.value)


def test_what_is_not_a_volume_is_refused() -> None:
    parameters = sample_parameters(SECOND_ORDER_V1, 0)
    with pytest.raises(ValueError, match="volume"):
        apply_parameters(torch.zeros(1, 4, 4, 4), SPACING, parameters)
    with pytest.raises(ValueError, match="float"):
        apply_parameters(torch.zeros(4, 4, 4, dtype=torch.int16), SPACING, parameters)
    for spacing in ((1.0, 1.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)):
        with pytest.raises(ValueError, match="spacing"):
            apply_parameters(torch.zeros(4, 4, 4), spacing, parameters)


def test_a_stage_refuses_impossible_ranges() -> None:
    stage: SecondOrderStage = SECOND_ORDER_V1.stages[0]
    with pytest.raises(ValueError, match="probabilities"):
        replace(stage, blur_probability=1.5)
    with pytest.raises(ValueError, match="ranges"):
        replace(stage, noise_sd_hu=(3.0, 1.0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_the_same_volume() -> None:
    hu = patch(48, 40, 33)
    for seed in range(5):
        parameters = sample_parameters(ALWAYS, seed)
        on_gpu = apply_parameters(hu.cuda(), SPACING, parameters)
        assert on_gpu.is_cuda
        torch.testing.assert_close(on_gpu.cpu(), apply_parameters(hu, SPACING, parameters), rtol=0, atol=1e-4)


@pytest.mark.realdata
def test_a_real_scan_scores_what_the_papers_degraded_scans_did(real_data: Path) -> None:
    file = next((real_data / "crlm_pv_1004").glob("*.nii.gz"))
    image = nibabel.Nifti1Image.from_filename(file)
    hu = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32))
    spacing = [float(step) for step in image.header.get_zooms()]
    clean = ABDOMEN.normalize(hu.numpy())
    psnr, ssim = [], []
    for seed in range(5000, 5008):
        degraded = apply_parameters(hu, spacing, sample_parameters(SECOND_ORDER_V1, seed))
        low = ABDOMEN.normalize(degraded.numpy())
        psnr.append(peak_signal_noise_ratio(clean, low, data_range=1.0))
        ssim.append(
            structural_similarity(
                clean, low, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
            )
        )
    assert np.mean(psnr) == pytest.approx(23.8, abs=1.0)
    assert np.mean(ssim) == pytest.approx(0.46, abs=0.06)
    assert np.std(psnr) < 2.5
