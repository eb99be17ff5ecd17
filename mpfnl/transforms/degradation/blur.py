"""Blur: a Gaussian point spread function, in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from torch import Tensor

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.base import MOST_MM, Degradation, Triple, by, triple
from mpfnl.transforms.degradation.convolution import (
    FWHM_PER_SIGMA,
    Kernel,
    convolve_separable,
    gaussian_kernel,
)


@dataclass(frozen=True)
class Blur(Degradation):
    """A Gaussian point spread function aligned to the axes.

    Args:
        fwhm_mm: Full width at half maximum in mm along x, y, z.
    """

    kind = "blur"
    margin = 4
    fwhm_mm: Triple

    def __post_init__(self) -> None:
        object.__setattr__(self, "fwhm_mm", triple("a blur's fwhm_mm", self.fwhm_mm, 0, MOST_MM))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Blurs; see `gaussian_blur`."""
        return gaussian_blur(hu, spacing, self.fwhm_mm)

    @classmethod
    def apply_each(cls, degradations: Sequence[Self], hu: Tensor, spacings: Sequence[Triple]) -> Tensor:
        """Blurs all volumes at once."""
        return gaussian_blurs(hu, spacings, [each.fwhm_mm for each in degradations])

    def describe(self) -> str:
        """For example "blur 1.4 mm"."""
        widths = self.fwhm_mm
        return f"blur {by(widths[:1] if len(set(widths)) == 1 else widths)} mm"


def gaussian_blur(hu: SpatialVolume, spacing: Sequence[float], fwhm_mm: Sequence[float]) -> SpatialVolume:
    """Blurs with a Gaussian aligned to the axes; beyond the border the nearest voxel continues.

    Args:
        hu: Volume `(x, y, z)`.
        spacing: Voxel spacing in mm along x, y, z.
        fwhm_mm: Full width at half maximum in mm along x, y, z; 0 leaves that axis as it is. Below a voxel it
            is the width of a Gaussian of the same variance.

    Returns:
        The blurred volume, on the same grid.
    """
    return gaussian_blurs(hu[None], [spacing], [fwhm_mm])[0]


def gaussian_blurs(
    hu: Tensor, spacings: Sequence[Sequence[float]], fwhms_mm: Sequence[Sequence[float]]
) -> Tensor:
    """Blurs each volume of a batch with its own Gaussian; see `gaussian_blur`.

    Args:
        hu: Volumes `(batch, x, y, z)`.
        spacings: Voxel spacing of each volume in mm.
        fwhms_mm: Full widths at half maximum of each volume's Gaussian in mm along x, y, z.
    """
    kernels = [
        [blur_kernel(fwhm[axis] / FWHM_PER_SIGMA / spacing[axis]) for axis in range(3)]
        for fwhm, spacing in zip(fwhms_mm, spacings, strict=True)
    ]
    return convolve_separable(hu, kernels)


@lru_cache(maxsize=256)
def blur_kernel(sigma: float) -> Kernel:
    """The right half of a normalised kernel with the variance of a Gaussian, however narrow.

    A Gaussian narrower than a voxel keeps next to no variance when it is sampled; here a wider one is
    sampled, so that its samples have the variance asked for. From one voxel on it is the sampled Gaussian.

    Args:
        sigma: Standard deviation in voxels, 0 or more.

    Returns:
        The weights at offsets 0, 1, ..., r; `(1.0,)` for sigma 0.
    """
    if sigma == 0 or sigma >= 1:
        return gaussian_kernel(sigma)
    low, high = 0.125, 1.125  # the narrowest of radius 1, whose variance is about 1e-14, and more than enough
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _variance(gaussian_kernel(middle)) < sigma**2 else (low, middle)
    return gaussian_kernel(high)


def _variance(kernel: Kernel) -> float:
    return 2 * sum(weight * offset**2 for offset, weight in enumerate(kernel))
