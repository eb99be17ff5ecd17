"""The ranges that degradations are drawn from, in mm and HU, by name and version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mpfnl.phases import ABDOMEN, Window

Range: TypeAlias = tuple[float, float]
"""Lower and upper bound of a uniform distribution."""


@dataclass(frozen=True)
class Stage:
    """The ranges of one stage: blur, then resizing, then noise, each with its probability.

    Args:
        blur_probability: That the stage blurs.
        anisotropic_probability: That a blur has a width of its own along each axis.
        blur_fwhm_mm: Full width at half maximum of the blur in mm.
        resize_probability: That the stage resizes.
        inplane_voxel_mm: Coarse voxel in mm along x and y.
        slice_voxel_mm: Coarse voxel in mm along z.
        max_factor: Largest factor of resizing.
        noise_probability: That the stage adds noise.
        poisson_probability: That the noise is Poisson, not Gaussian.
        noise_sd_hu: Standard deviation of the noise in HU (for Poisson: in water).
        noise_correlation_mm: Correlation length of the noise in mm.
    """

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
        chances = (
            self.blur_probability,
            self.anisotropic_probability,
            self.resize_probability,
            self.noise_probability,
            self.poisson_probability,
        )
        ranges = (
            self.blur_fwhm_mm,
            self.inplane_voxel_mm,
            self.slice_voxel_mm,
            self.noise_sd_hu,
            self.noise_correlation_mm,
        )
        if not all(0 <= chance <= 1 for chance in chances):
            raise ValueError("a stage's probabilities lie between 0 and 1")
        if not all(0 <= low <= high for low, high in ranges):
            raise ValueError("a stage's ranges are (low, high) with 0 <= low <= high")


@dataclass(frozen=True)
class Preset:
    """A degradation by name: the stages in their order.

    Args:
        name: The name under which it is recorded; a change of any number takes a new one.
        version: The version of the name.
        stages: The stages; two make it second order.
        clip_to: The HU window that the scan is limited to before anything else; None leaves it.
    """

    name: str
    version: int
    stages: tuple[Stage, ...]
    clip_to: Window | None = None


SECOND_ORDER_V1 = Preset(
    name="second-order-v1",
    version=1,
    # The paper windows the scans first and degrades them then (section II.C). It matters: noise added to
    # air at -1000 HU does not show in the window, and at PSNR 23.8 dB the SSIM stays at 0.7 or more.
    clip_to=ABDOMEN,
    stages=(
        # The scanner: focal spot, detector, motion, dose, and voxels coarser than they could be.
        Stage(
            blur_probability=0.8,  # not 1: a sharp but noisy scan exists too
            anisotropic_probability=0.5,  # motion and the slice profile prefer a direction
            blur_fwhm_mm=(1.0, 2.2),  # from a sharp kernel's resolution to slight motion
            resize_probability=0.25,  # so that most scans keep their slices
            inplane_voxel_mm=(1.0, 2.8),  # up to the paper's factor 4 of a 0.7 mm pixel
            slice_voxel_mm=(2.0, 5.0),  # slices as they are archived
            max_factor=4.0,  # the paper's
            noise_probability=0.8,
            poisson_probability=0.5,  # the paper names both kinds alike
            noise_sd_hu=(5.0, 20.0),  # a good scan at 5 mm to routine dose in thinner slices
            noise_correlation_mm=(0.0, 0.5),  # white, to the 0.59 at 0.74 mm measured in low-dose CT
        ),
        # The reconstruction: it smooths the first noise, interpolates, and leaves noise of its own.
        Stage(
            blur_probability=0.5,
            anisotropic_probability=0.5,
            blur_fwhm_mm=(0.6, 1.2),  # from less than a pixel to a smooth body kernel
            resize_probability=0.15,
            inplane_voxel_mm=(1.0, 1.6),  # a large field of view (1 mm pixels) to a 256 matrix
            slice_voxel_mm=(2.0, 3.0),  # the first stage makes the thick ones
            max_factor=4.0,
            noise_probability=1.0,  # the mean SSIM of 0.46 needs noise in every scan
            poisson_probability=0.5,
            noise_sd_hu=(23.0, 28.0),  # narrow, the calibrated range: it sets the mean PSNR and SSIM
            noise_correlation_mm=(0.0, 0.5),
        ),
    ),
)
"""The paper's degradation, calibrated on real portal venous CT.

The paper gives the kinds, two stages, the factor 4 and the outcome (arXiv 2501.14013, section II.C and
Table I: PSNR 23.8 dB, SSIM 0.46), no ranges. These are this project's: each for the reason beside it, and
then adjusted until the mean degraded scan scored what the paper's did on two real portal venous scans;
`benchmarks/degradation_calibration.py` prints that, and draws that were held out. Both scores depend on how
much air the crop holds. HU outside the window are lost, as the clip comes first.
"""
