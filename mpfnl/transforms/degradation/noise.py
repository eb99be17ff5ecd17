"""Gaussian and Poisson-like noise in HU, from a recorded seed; the same on all devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.base import (
    MOST_HU,
    MOST_MM,
    Degradation,
    Triple,
    check,
    checked_seed,
)
from mpfnl.transforms.degradation.convolution import (
    Border,
    Kernel,
    convolve_separable,
    empty,
    gaussian_kernel,
)
from mpfnl.transforms.degradation.random_field import normal_fields


@dataclass(frozen=True)
class GaussianNoise(Degradation):
    """Normal noise, equally strong everywhere.

    Args:
        sd_hu: Standard deviation in HU.
        correlation_mm: Correlation length in mm; 0 is white noise.
        seed: Seed of the noise.
    """

    kind = "gaussian_noise"
    sd_hu: float
    correlation_mm: float
    seed: int

    def __post_init__(self) -> None:
        check("a noise's sd_hu", self.sd_hu, 0, MOST_HU)
        check("a noise's correlation_mm", self.correlation_mm, 0, MOST_MM)
        object.__setattr__(self, "seed", checked_seed(self.seed))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Adds the noise; see `gaussian_noise`."""
        return gaussian_noise(hu, spacing, self.sd_hu, self.correlation_mm, self.seed)

    @classmethod
    def apply_each(cls, degradations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Adds the noise of all volumes at once."""
        return _noises(degradations, [each.sd_hu for each in degradations], hu, spacings).add_(hu)

    def describe(self) -> str:
        """For example "noise 25 HU"."""
        return f"noise {self.sd_hu:.3g} HU"


@dataclass(frozen=True)
class PoissonNoise(Degradation):
    """Noise with a variance proportional to the attenuation.

    Args:
        sd_water_hu: Standard deviation in water in HU.
        correlation_mm: Correlation length in mm; 0 is white noise.
        seed: Seed of the noise.
    """

    kind = "poisson_noise"
    sd_water_hu: float
    correlation_mm: float
    seed: int

    def __post_init__(self) -> None:
        check("a noise's sd_water_hu", self.sd_water_hu, 0, MOST_HU)
        check("a noise's correlation_mm", self.correlation_mm, 0, MOST_MM)
        object.__setattr__(self, "seed", checked_seed(self.seed))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Adds the noise; see `poisson_noise`."""
        return poisson_noise(hu, spacing, self.sd_water_hu, self.correlation_mm, self.seed)

    @classmethod
    def apply_each(cls, degradations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Adds the noise of all volumes at once."""
        noises = _noises(degradations, [each.sd_water_hu for each in degradations], hu, spacings)
        return noises.mul_(counting_sd(hu)).add_(hu)

    def describe(self) -> str:
        """For example "Poisson noise 25 HU"."""
        return f"Poisson noise {self.sd_water_hu:.3g} HU"


def unit_noise(
    shape: Sequence[int],
    spacing: Sequence[float],
    correlation_mm: float,
    seed: int,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Stationary normal noise of mean 0 and standard deviation 1.

    White noise is filtered with a Gaussian of standard deviation `correlation_mm` and scaled back
    to standard deviation 1: the autocorrelation at distance d is exp(-d^2 / (4 correlation_mm^2)), a little
    less along an axis whose spacing exceeds 1.5 correlation lengths, where the filter is sampled coarsely.
    To the filter, opposite borders of the volume are neighbours, so the noise at the border is like that
    inside.

    Args:
        shape: Size `(x, y, z)` in voxels.
        spacing: Voxel spacing in mm along x, y, z.
        correlation_mm: Correlation length in mm; 0 is white noise.
        seed: Seed of the noise; see `normal_field`.
        device: Device of the result.

    Returns:
        A float32 volume of that shape.
    """
    return unit_noises(shape, [spacing], [correlation_mm], [seed], device)[0]


def unit_noises(
    shape: Sequence[int],
    spacings: Sequence[Sequence[float]],
    correlations_mm: Sequence[float],
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
) -> Tensor:
    """Noise for each volume of a batch, `(batch, x, y, z)`; see `unit_noise`."""
    fields = normal_fields(shape, seeds, device)
    kernels = [
        [
            _unit_energy(gaussian_kernel(correlation / step), size)
            for step, size in zip(spacing, shape, strict=True)
        ]
        for correlation, spacing in zip(correlations_mm, spacings, strict=True)
    ]
    return convolve_separable(fields, kernels, Border.WRAP, out=fields)


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
    return unit_noise(hu.shape, spacing, correlation_mm, seed, hu.device).mul_(sd_hu).add_(hu)


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
    noise = unit_noise(hu.shape, spacing, correlation_mm, seed, hu.device).mul_(sd_water_hu)
    return noise.mul_(counting_sd(hu)).add_(hu)


def counting_sd(hu: Tensor) -> Tensor:
    """The standard deviation of counting noise relative to that in water: sqrt(max(0, 1 + HU / 1000))."""
    return torch.mul(hu, 1e-3, out=empty(hu.shape, hu.device)).add_(1.0).clamp_(min=0.0).sqrt_()


def _unit_energy(kernel: Kernel, length: int) -> Kernel:
    """The kernel scaled so that it leaves the variance of white noise, on a circle of `length` voxels."""
    if len(kernel) == 1:
        return (1.0,)
    folded = [0.0] * length
    for offset in range(1 - len(kernel), len(kernel)):
        folded[offset % length] += kernel[abs(offset)]
    gain = math.sqrt(sum(weight**2 for weight in folded))
    return tuple(weight / gain for weight in kernel)


def _noises(
    degradations: Sequence[GaussianNoise] | Sequence[PoissonNoise],
    sds: Sequence[float],
    hu: Tensor,
    spacings: Sequence[Triple],
) -> Tensor:
    """Noise for each volume of a batch, with its standard deviation in HU."""
    noises = unit_noises(
        hu.shape[1:],
        spacings,
        [each.correlation_mm for each in degradations],
        [each.seed for each in degradations],
        hu.device,
    )
    return noises.mul_(torch.tensor(sds, dtype=hu.dtype).to(hu.device)[:, None, None, None])
