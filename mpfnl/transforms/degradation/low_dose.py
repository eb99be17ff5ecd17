"""Low dose: the quantum noise of fewer photons, as it appears after reconstruction.

The model has the first two moments of Poisson counts in the projections:

- Strength. A ray that counts N photons measures its line integral p with variance 1 / N. At the fraction d
  of the dose that is 1 / d times as much, so what a full-dose scan lacks is 1 / d - 1 times its own variance.
- Place. N is proportional to exp(-p). Filtered back projection is linear and its filter narrow: the variance
  in a voxel is proportional to the mean over all angles of exp(p) along the ray through that voxel.
- Direction. By the central slice theorem, noise that varies along x comes from the projections whose detector
  lies along x, that is from rays along y. Where rays along x lose most photons, there are streaks along x.
- Spectrum. NPS(f) ~ (1 - m + 4 pi^2 c^2 m f^2) exp(-4 pi^2 c^2 f^2): a ramp's f^2 and a floor, smoothed by a
  Gaussian kernel. Its transform, the autocorrelation, is R(r) = exp(-u) (1 - m u) with u = r^2 / (4 c^2).

c and m come from the measured autocorrelation of quarter dose minus full dose, 0.59, 0.09 and 0 at 1, 2 and
3 pixels of 0.74 mm: the first two are solved for, the third comes out as -0.016. (Without a floor, m = 1, the
first two cannot both be met. A second solution has a spectrum that is negative at high frequency.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.base import MOST_HU, Degradation, check, checked_seed
from mpfnl.transforms.degradation.convolution import Kernel, convolve
from mpfnl.transforms.degradation.low_dose_map import noise_maps
from mpfnl.transforms.degradation.random_field import normal_field
from mpfnl.transforms.degradation.stage import (
    Range,
    Stage,
    chance,
    check_probabilities,
    check_ranges,
    uniform,
)
from mpfnl.transforms.seeds import Draws, noise_seed

FULL_DOSE_SD_HU = 66 / math.sqrt(3)
"""Noise of the full dose in HU. Measured: quarter dose minus full dose has 66 HU, sqrt(4 - 1) times that."""

MEAN_SHIFT_HU = -0.9
"""Measured: the mean of quarter dose minus full dose, in HU."""

CORRELATION_MM = 0.6180
"""c, the standard deviation of the smoothing kernel in mm: R(0.74 mm) = 0.59 and R(1.48 mm) = 0.09."""

RAMP_SHARE = 0.4340
"""m, the share of the variance whose spectrum has the ramp's f^2; solved for together with c."""

LEAST_DOSE = 0.001

_QUARTER = 0.25
_LOST_ENERGY = 1e-3  # of a kernel that ends; the autocorrelation is then right within 0.005
_CIRCLE = 4096  # samples of the circle on which a kernel is made, far more than the kernel has


def noise_autocorrelation(distance_mm: float) -> float:
    """The autocorrelation R of the noise within a slice, the same in all directions.

    Args:
        distance_mm: The distance, 0 or more.
    """
    u = (distance_mm / (2 * CORRELATION_MM)) ** 2
    return math.exp(-u) * (1 - RAMP_SHARE * u)


def mean_shift_hu(dose_fraction: float) -> float:
    """Shift of the mean at a lower dose, in HU.

    A smooth function of noisy counts has a bias in proportion to their variance (delta method), hence to
    1 / d - 1. Below quarter dose, where nothing was measured, the shift is constant.

    Args:
        dose_fraction: d, above 0, at most 1.
    """
    return MEAN_SHIFT_HU * min(1.0, (1 / dose_fraction - 1) / (1 / _QUARTER - 1))


def add_low_dose_noise(
    hu: SpatialVolume,
    spacing: Sequence[float],
    dose_fraction: float,
    full_dose_sd_hu: float = FULL_DOSE_SD_HU,
    seed: int = 0,
) -> SpatialVolume:
    """Adds the noise that turns a scan into one of a fraction of its dose.

    The noise of neighbouring slices is independent: each slice comes from detector data of its own. Its RMS
    over the body is the same in every slice, as with tube current modulation along z.
    The result is not clipped.

    Args:
        hu: Volume `(x, y, z)` in HU, slices across z.
        spacing: Voxel spacing in mm along x, y, z.
        dose_fraction: Simulated dose as a fraction of the scan's own, above 0, at most 1.
        full_dose_sd_hu: Standard deviation in HU of the given scan's quantum noise in the body. The
            added noise has sqrt(1 / dose_fraction - 1) times that.
        seed: Seed of the noise, see `normal_field`.

    Returns:
        The noisy volume; the input itself at `dose_fraction` 1.

    Raises:
        ValueError: A number is out of its range.
    """
    if not 0 < dose_fraction <= 1:
        raise ValueError(f"a dose fraction lies above 0 and is at most 1, got {dose_fraction}")
    if not 0 <= full_dose_sd_hu < math.inf:
        raise ValueError(f"the standard deviation of a noise is 0 HU or more, got {full_dose_sd_hu}")
    if dose_fraction == 1:
        return hu
    noise = reconstruction_noise(hu, spacing, seed)
    noise.mul_(full_dose_sd_hu * math.sqrt(1 / dose_fraction - 1)).add_(mean_shift_hu(dose_fraction))
    return hu + noise.to(hu.dtype)


def reconstruction_noise(hu: SpatialVolume, spacing: Sequence[float], seed: int) -> Tensor:
    """Noise with the model's place, direction and spectrum, of mean 0 and RMS 1 over the body in each slice.

    Args:
        hu: Volume `(x, y, z)` in HU, slices across z.
        spacing: Voxel spacing in mm along x, y, z.
        seed: Seed of the noise, see `normal_field`.

    Returns:
        A float32 volume of the same shape, on the same device.
    """
    maps = noise_maps(hu, spacing)
    smooth_x, smooth_y = (_kernel(step, ramp=False) for step in spacing[:2])
    ramp_x, ramp_y = (_kernel(step, ramp=True) for step in spacing[:2])
    # f^2 = fx^2 + fy^2: the ramp's share is two fields, each a product of kernels along x and y.
    parts = (
        (maps.every, 1 - RAMP_SHARE, smooth_x, smooth_y),
        (maps.along_x, RAMP_SHARE / 2, ramp_x, smooth_y),
        (maps.along_y, RAMP_SHARE / 2, smooth_x, ramp_y),
    )
    seeds = np.random.SeedSequence(seed).generate_state(len(parts), np.uint64) >> np.uint64(1)
    total = torch.zeros(hu.shape, dtype=torch.float32, device=hu.device)
    for (sd, share, kernel_x, kernel_y), part_seed in zip(parts, seeds, strict=True):
        field = _filtered_noise(hu.shape, kernel_x, kernel_y, int(part_seed), hu.device)
        total += sd.mul_(math.sqrt(share)).mul_(field)
    return total


def _filtered_noise(
    shape: Sequence[int], kernel_x: Kernel, kernel_y: Kernel, seed: int, device: torch.device
) -> Tensor:
    """White noise after two filters, drawn with a margin, so that the border is like the inside."""
    margin_x, margin_y = len(kernel_x) - 1, len(kernel_y) - 1
    drawn = (shape[0] + 2 * margin_x, shape[1] + 2 * margin_y, shape[2])
    field = convolve(normal_field(drawn, seed, device)[None], 0, [kernel_x])
    field = field.narrow(1, margin_x, shape[0])
    return convolve(field, 1, [kernel_y])[0].narrow(1, margin_y, shape[1])


@lru_cache(maxsize=64)
def _kernel(spacing_mm: float, ramp: bool) -> Kernel:
    """A kernel that gives white noise a spectrum of the model along one axis, and leaves its variance.

    The autocorrelation along the axis is exp(-v), with the ramp exp(-v) (1 - 2 v), v = x^2 / (4 c^2). Taken
    at the voxels, its transform is the spectrum as sampling folds it; the root of that is the kernel's
    transform. So voxels correlate as they should at every spacing, and at coarse ones the noise is white.
    """
    index = np.arange(_CIRCLE)
    v = (np.minimum(index, _CIRCLE - index) * spacing_mm / (2 * CORRELATION_MM)) ** 2
    autocorrelation = np.exp(-v) * (1 - 2 * v if ramp else 1)
    spectrum = np.fft.fft(autocorrelation).real.clip(0)
    half = np.fft.ifft(np.sqrt(spectrum)).real[: _CIRCLE // 2]
    energy = half[0] ** 2 + 2 * np.concatenate([[0.0], np.cumsum(half[1:] ** 2)])
    radius = int(np.argmax(energy >= (1 - _LOST_ENERGY) * energy[-1]))
    return tuple((half[: radius + 1] / math.sqrt(energy[radius])).tolist())


@dataclass(frozen=True)
class LowDose(Degradation):
    """The noise that a lower dose would have added, as it arises in the projections.

    Args:
        dose_fraction: Simulated dose as a fraction of the scan's own, 0.001 to 1; 1 adds nothing.
        seed: Seed of the noise.
        full_dose_sd_hu: Standard deviation in HU of the scan's own noise in the body. At a quarter of the
            dose the default adds the measured 66 HU.
    """

    kind = "low_dose"
    whole_slices = True
    dose_fraction: float
    seed: int
    full_dose_sd_hu: float = FULL_DOSE_SD_HU

    def __post_init__(self) -> None:
        check("a low dose's dose_fraction", self.dose_fraction, LEAST_DOSE, 1)
        check("a low dose's full_dose_sd_hu", self.full_dose_sd_hu, 0, MOST_HU)
        object.__setattr__(self, "seed", checked_seed(self.seed))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Adds the noise; see `add_low_dose_noise`."""
        return add_low_dose_noise(hu, spacing, self.dose_fraction, self.full_dose_sd_hu, self.seed)

    def describe(self) -> str:
        """For example "25 % of the dose"."""
        return f"{100 * self.dose_fraction:.3g} % of the dose"


@dataclass(frozen=True)
class LowDoseStage(Stage):
    """Noise of a lower dose.

    Args:
        dose_fraction: Range of the simulated dose as a fraction of the scan's own.
        full_dose_sd_hu: Standard deviation in HU of the scan's own noise in the body.
        probability: Probability of the stage.
    """

    degradations = (LowDose,)
    dose_fraction: Range
    full_dose_sd_hu: float = FULL_DOSE_SD_HU
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_probabilities(self.probability)
        check_ranges(self.dose_fraction)

    def sample(self, draws: Draws) -> list[Degradation]:
        """Draws the dose."""
        if not chance(self.probability, draws.protocol):
            return []
        dose = uniform(self.dose_fraction, draws.protocol)
        return [LowDose(dose, noise_seed(draws), self.full_dose_sd_hu)]
