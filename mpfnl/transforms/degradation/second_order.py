"""One stage of the second-order model: blur, resizing and noise by chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpfnl.transforms.degradation.base import Degradation, Triple
from mpfnl.transforms.degradation.blur import Blur
from mpfnl.transforms.degradation.noise import GaussianNoise, PoissonNoise
from mpfnl.transforms.degradation.resampling import Resampling
from mpfnl.transforms.degradation.resize import Resize
from mpfnl.transforms.degradation.stage import (
    HALF_A_VOXEL,
    Range,
    Stage,
    chance,
    check_probabilities,
    check_ranges,
    uniform,
)
from mpfnl.transforms.seeds import Draws, noise_seed

_DOWN = tuple(Resampling)
_UP = (Resampling.LINEAR, Resampling.CUBIC)


@dataclass(frozen=True)
class SecondOrderStage(Stage):
    """Blur, then resizing, then noise, each with its probability (after Wang et al., Real-ESRGAN, 2021).

    Args:
        blur_probability: Probability of a blur.
        anisotropic_probability: Probability that a blur has a width of its own along each axis.
        blur_fwhm_mm: Full width at half maximum of the blur in mm.
        resize_probability: Probability of resizing.
        inplane_voxel_mm: Coarse voxel in mm along x and y.
        slice_voxel_mm: Coarse voxel in mm along z.
        max_factor: Largest factor of resizing.
        noise_probability: Probability of noise.
        poisson_probability: Probability that the noise is Poisson, not Gaussian.
        noise_sd_hu: Standard deviation of the noise in HU (for Poisson: in water).
        noise_correlation_mm: Correlation length of the noise in mm.
    """

    degradations = (Blur, Resize, GaussianNoise, PoissonNoise)
    blur_probability: float
    anisotropic_probability: float
    blur_fwhm_mm: Range
    resize_probability: float
    inplane_voxel_mm: Range
    slice_voxel_mm: Range
    max_factor: float
    noise_probability: float
    poisson_probability: float
    noise_sd_hu: Range
    noise_correlation_mm: Range

    def __post_init__(self) -> None:
        check_probabilities(
            self.blur_probability,
            self.anisotropic_probability,
            self.resize_probability,
            self.noise_probability,
            self.poisson_probability,
        )
        check_ranges(
            self.blur_fwhm_mm,
            self.inplane_voxel_mm,
            self.slice_voxel_mm,
            self.noise_sd_hu,
            self.noise_correlation_mm,
        )

    def sample(self, draws: Draws) -> list[Degradation]:
        """Draws blur, resizing and noise."""
        drawn: list[Degradation] = []
        if chance(self.blur_probability, draws.protocol):
            drawn.append(self._blur(draws.protocol))
        if chance(self.resize_probability, draws.protocol):
            drawn.append(self._resize(draws))
        if chance(self.noise_probability, draws.protocol):
            drawn.append(self._noise(draws))
        return drawn

    def _blur(self, rng: np.random.Generator) -> Blur:
        if chance(self.anisotropic_probability, rng):
            x, y, z = (uniform(self.blur_fwhm_mm, rng) for _ in range(3))
            return Blur((x, y, z))
        width = uniform(self.blur_fwhm_mm, rng)
        return Blur((width, width, width))

    def _resize(self, draws: Draws) -> Resize:
        rng = draws.protocol
        inplane = uniform(self.inplane_voxel_mm, rng)
        voxel: Triple = (inplane, inplane, uniform(self.slice_voxel_mm, rng))
        down, up = _DOWN[rng.integers(len(_DOWN))], _UP[rng.integers(len(_UP))]
        x, y, z = (uniform(HALF_A_VOXEL, draws.own) for _ in range(3))
        return Resize(voxel, down, up, self.max_factor, (x, y, z))

    def _noise(self, draws: Draws) -> GaussianNoise | PoissonNoise:
        kind = PoissonNoise if chance(self.poisson_probability, draws.protocol) else GaussianNoise
        sd = uniform(self.noise_sd_hu, draws.protocol)
        correlation = uniform(self.noise_correlation_mm, draws.protocol)
        return kind(sd, correlation, noise_seed(draws))
