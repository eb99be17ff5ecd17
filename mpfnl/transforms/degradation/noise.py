"""Noise in HU. It is drawn on the CPU from a recorded seed, so that all devices agree."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mpfnl.phases import SpatialVolume
from mpfnl.transforms.degradation.filters import convolve_valid, gaussian_kernel


def unit_noise(shape: Sequence[int], spacing: Sequence[float], correlation_mm: float, seed: int) -> Tensor:
    """Stationary normal noise of mean 0 and standard deviation 1, on the CPU.

    White noise is filtered with a Gaussian of standard deviation `correlation_mm` and scaled back
    to standard deviation 1: the autocorrelation at distance d is exp(-d^2 / (4 correlation_mm^2)), a little
    less along an axis whose spacing exceeds 1.5 correlation lengths, where the filter is sampled coarsely.

    Args:
        shape: Size `(x, y, z)` in voxels.
        spacing: Voxel spacing in mm along x, y, z.
        correlation_mm: Correlation length in mm; 0 is white noise.
        seed: Seed of the torch generator, 0 or more.

    Returns:
        A float32 volume of that shape.
    """
    kernels = [gaussian_kernel(correlation_mm / step) for step in spacing]
    # A margin is drawn too, so that the border has the same statistics as the interior.
    drawn = [size + 2 * (len(kernel) - 1) for size, kernel in zip(shape, kernels, strict=True)]
    field = torch.randn(drawn, generator=torch.Generator().manual_seed(seed))
    gain = 1.0
    for axis, kernel in enumerate(kernels):
        if len(kernel) > 1:
            field = convolve_valid(field, axis, kernel)
            gain *= math.sqrt(kernel[0] ** 2 + 2 * sum(weight**2 for weight in kernel[1:]))
    return field if gain == 1.0 else field / gain


def gaussian_noise(
    hu: SpatialVolume, spacing: Sequence[float], sd_hu: float, correlation_mm: float, seed: int
) -> SpatialVolume:
    """Adds normal noise of the same strength everywhere.

    Args:
        hu: Volume `(x, y, z)` in HU.
        spacing: Voxel spacing in mm along x, y, z.
        sd_hu: Standard deviation in HU.
        correlation_mm: Correlation length in mm, see `unit_noise`.
        seed: Seed of the noise.

    Returns:
        The noisy volume; the input itself where `sd_hu` is 0.
    """
    if sd_hu == 0:
        return hu
    return hu + unit_noise(hu.shape, spacing, correlation_mm, seed).mul_(sd_hu).to(hu)


def poisson_noise(
    hu: SpatialVolume, spacing: Sequence[float], sd_water_hu: float, correlation_mm: float, seed: int
) -> SpatialVolume:
    """Adds noise whose variance is proportional to the attenuation, as that of counts is.

    With a = max(0, 1 + HU / 1000), the attenuation relative to water, let a be measured by
    counting K ~ Poisson(a N) events, N at water: a' = K / N has mean a and variance a / N. In HU
    the standard deviation is 1000 sqrt(a / N) = sd_water_hu sqrt(a), so N = (1000 / sd_water_hu)^2.
    K is drawn in the normal limit (N is above 100 for every standard deviation below 100 HU): the
    mean and the variance are those of the counts; unlike counts, it can be given the spatial
    correlation of a reconstruction, is not quantised and never depends on the device.

    Args:
        hu: Volume `(x, y, z)` in HU.
        spacing: Voxel spacing in mm along x, y, z.
        sd_water_hu: Standard deviation in water in HU.
        correlation_mm: Correlation length in mm, see `unit_noise`.
        seed: Seed of the noise.

    Returns:
        The noisy volume, unchanged in vacuum; the input itself where `sd_water_hu` is 0.
    """
    if sd_water_hu == 0:
        return hu
    sd = (hu * 1e-3 + 1.0).clamp_(min=0.0).sqrt_().mul_(sd_water_hu)
    return hu + sd.mul_(unit_noise(hu.shape, spacing, correlation_mm, seed).to(hu))
