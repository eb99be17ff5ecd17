"""The torchmetrics classes: batches and processes change nothing, exclusions are counted."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

import mpfnl.metrics as public
from mpfnl.metrics.aggregation import (
    DiceCoefficient,
    NormalizedSurfaceDistance,
    PeakSignalNoiseRatio3D,
    StructuralSimilarity3D,
)
from mpfnl.metrics.image import psnr, ssim
from mpfnl.metrics.overlap import dice
from mpfnl.metrics.surface import normalized_surface_distance

IMAGE_METRICS = [(PeakSignalNoiseRatio3D, psnr), (StructuralSimilarity3D, ssim)]
BATCHES = [slice(0, 2), slice(2, 3), slice(3, 7)]


@pytest.fixture
def volumes() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(7, 1, 12, 11, 13, generator=generator)
    noise = torch.randn(target.shape, generator=generator)
    return target + torch.linspace(0.05, 0.4, 7)[:, None, None, None, None] * noise, target


@pytest.fixture
def masks() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    prediction = torch.rand(7, 6, 5, 4, generator=generator) < 0.4
    reference = torch.rand(7, 6, 5, 4, generator=generator) < 0.4
    prediction[2], reference[2] = False, False
    prediction[5] = False
    return prediction, reference


def merged(one: Metric, other: Metric, update: Callable[[Metric, slice], None]) -> Metric:
    """Two processes with half of the volumes each, then one state."""
    update(one, slice(0, 3))
    update(other, slice(3, 7))
    one.merge_state(other)
    return one


@pytest.mark.parametrize(("metric_class", "function"), IMAGE_METRICS)
def test_the_mean_over_volumes_whatever_the_batches(metric_class, function, volumes):
    expected = function(*volumes).mean().item()
    metric = metric_class()
    for batch in BATCHES:
        metric.update(volumes[0][batch], volumes[1][batch])
    assert metric.compute().item() == pytest.approx(expected, rel=1e-6)
    joined = merged(
        metric_class(), metric_class(), lambda m, part: m.update(volumes[0][part], volumes[1][part])
    )
    assert joined.compute().item() == pytest.approx(expected, rel=1e-6)
    metric.reset()
    metric.update(volumes[0][:1], volumes[1][:1])
    assert metric.compute().item() == pytest.approx(function(*volumes)[0].item(), rel=1e-6)


def test_options_reach_the_functions(volumes):
    a, b = (450 * volume for volume in volumes)
    quality = PeakSignalNoiseRatio3D(data_range=450.0)
    assert quality(a, b).item() == pytest.approx(psnr(a, b, 450.0).mean().item(), rel=1e-6)
    similarity = StructuralSimilarity3D(data_range=450.0, sigma=1.0, window_size=9)
    assert similarity(a, b).item() == pytest.approx(ssim(a, b, 450.0, 1.0, 9).mean().item(), rel=1e-6)


def test_perfect_volumes_are_counted_and_not_averaged(volumes):
    prediction, target = volumes[0].clone(), volumes[1]
    prediction[4] = target[4]
    metric = PeakSignalNoiseRatio3D()
    metric.update(prediction, target)
    others = torch.arange(7) != 4
    assert metric.compute().item() == pytest.approx(psnr(*volumes)[others].mean().item(), rel=1e-6)
    assert metric.excluded.item() == 1
    metric.reset()
    metric.update(target, target)
    assert metric.compute().item() == math.inf


def test_nan_is_not_excluded(volumes):
    prediction = volumes[0].clone()
    prediction[1, 0, 6, 6, 6] = math.nan
    for metric in (PeakSignalNoiseRatio3D(), StructuralSimilarity3D()):
        metric.update(prediction, volumes[1])
        assert metric.compute().isnan()


def test_no_gradients_are_kept(volumes):
    prediction = volumes[0].clone().requires_grad_()
    metric = StructuralSimilarity3D()
    metric.update(prediction, volumes[1])
    assert not metric.compute().requires_grad


def test_dice_over_the_defined_volumes(masks):
    values = [dice(a, b) for a, b in zip(*masks, strict=True)]
    metric = DiceCoefficient()
    for batch in BATCHES:
        metric.update(masks[0][batch], masks[1][batch])
    joined = merged(
        DiceCoefficient(), DiceCoefficient(), lambda m, part: m.update(masks[0][part], masks[1][part])
    )
    assert values[5] == 0
    for found in (metric.compute(), joined.compute()):
        assert found["dice"].item() == pytest.approx(np.nanmean(values))
        assert found["dice_undefined"].item() == 1


def test_nsd_over_the_defined_volumes(masks):
    spacing = [(0.8, 0.8, 0.5 + i) for i in range(7)]
    values = [
        normalized_surface_distance(a, b, step, 1.0) for a, b, step in zip(*masks, spacing, strict=True)
    ]
    metric = NormalizedSurfaceDistance(tolerance=1.0)
    for batch in BATCHES:
        metric.update(masks[0][batch], masks[1][batch], spacing[batch])
    joined = merged(
        NormalizedSurfaceDistance(1.0),
        NormalizedSurfaceDistance(1.0),
        lambda m, part: m.update(list(masks[0][part]), list(masks[1][part]), spacing[part]),
    )
    for found in (metric.compute(), joined.compute()):
        assert found["nsd"].item() == pytest.approx(np.nanmean(values))
        assert found["nsd_undefined"].item() == 1


def test_they_work_in_a_collection(masks):
    collection = MetricCollection([DiceCoefficient()], prefix="test/")
    collection.update(*masks)
    assert set(collection.compute()) == {"test/dice", "test/dice_undefined"}


def test_every_public_name_loads():
    for name in public.__all__:
        assert callable(getattr(public, name))
    assert set(public.__all__) <= set(dir(public))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = public.nothing


def test_the_pure_functions_need_torch_alone():
    """With SciPy, torchmetrics and MONAI out of reach, the image functions still load and work."""
    program = (
        "import sys\n"
        "import mpfnl.metrics\n"
        "assert 'torchmetrics' not in sys.modules\n"
        "for name in ('scipy', 'torchmetrics', 'monai', 'jaxtyping'): sys.modules[name] = None\n"
        "import torch\n"
        "from mpfnl.metrics import psnr, ssim\n"
        "volume = torch.ones(1, 1, 11, 11, 11)\n"
        "assert ssim(volume, volume) > 0.99 and psnr(volume, 0 * volume) == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
