"""What afflicts scans of patients: few photons, thick slices, motion, metal (arXiv 2501.14013, section I)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mpfnl.transforms.degradation.low_dose import FULL_DOSE_SD_HU, add_low_dose_noise
from mpfnl.transforms.degradation.metal import Implant, metal_streaks
from mpfnl.transforms.degradation.motion import motion_blur
from mpfnl.transforms.degradation.operations import (
    MOST_HU,
    MOST_MM,
    Recorded,
    Triple,
    check,
    checked_seed,
    require,
    triple,
)
from mpfnl.transforms.degradation.thick_slices import SliceProfile, thick_slices

LEAST_DOSE = 0.001
LEAST_MM = 0.01
MOST_IMPLANT_MM = 2000.0


@dataclass(frozen=True)
class LowDose(Recorded):
    """The noise that a lower dose would have added, as it arises in the projections.

    Args:
        dose_fraction: Of the dose that the scan was made with, from 0.001 to 1; 1 adds nothing.
        seed: Of the noise.
        full_dose_sd_hu: Standard deviation in the body, in HU, of the noise of the scan as it is. At a
            quarter of the dose the default adds the measured 66 HU.
    """

    kind: ClassVar[str] = "low_dose"
    whole_slices: ClassVar[bool] = True
    axial: ClassVar[bool] = True
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


@dataclass(frozen=True)
class ThickSlices(Recorded):
    """Thick slices along z, seen through a slice sensitivity profile and brought back to the grid.

    Args:
        thickness_mm: Full width at half maximum of the profile in mm.
        increment_mm: Distance between slices in mm; below the thickness they overlap.
        profile: Its shape.
        grid_shift: Of the slices from the middle of the volume (or patch), in increments, from -1/2 to 1/2.
    """

    kind: ClassVar[str] = "thick_slices"
    axial: ClassVar[bool] = True
    thickness_mm: float
    increment_mm: float
    profile: SliceProfile = SliceProfile.RECTANGLE
    grid_shift: float = 0.0

    def __post_init__(self) -> None:
        check("a thick slice's thickness_mm", self.thickness_mm, LEAST_MM, MOST_MM)
        check("a thick slice's increment_mm", self.increment_mm, LEAST_MM, MOST_MM)
        check("a thick slice's grid_shift", self.grid_shift, -0.5, 0.5)
        object.__setattr__(self, "profile", SliceProfile(self.profile))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Makes the slices thick; see `thick_slices`."""
        return thick_slices(hu, spacing, self.thickness_mm, self.increment_mm, self.profile, self.grid_shift)


@dataclass(frozen=True)
class MotionBlur(Recorded):
    """Motion of the patient during the acquisition.

    Args:
        amplitude_mm: The whole path in mm along x, y, z.
        double_exposure: Share of the time at the two ends of the path: 0 blurs, 1 doubles the contours.
    """

    kind: ClassVar[str] = "motion_blur"
    amplitude_mm: Triple
    double_exposure: float = 0.0

    def __post_init__(self) -> None:
        check("a motion's double_exposure", self.double_exposure, 0, 1)
        path = triple("a motion's amplitude_mm", self.amplitude_mm, -MOST_MM, MOST_MM)
        object.__setattr__(self, "amplitude_mm", path)

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Averages along the path; see `motion_blur`."""
        return motion_blur(hu, spacing, self.amplitude_mm, self.double_exposure)


@dataclass(frozen=True)
class MetalStreaks(Recorded):
    """Implants of metal, and the streaks that they cast across their slices.

    Args:
        implants: Where the metal is.
        streak_hu: Strength of the streaks near the implants in HU; 0 leaves the scan as it is.
        seed: Of the noise of the rays that few photons come through.
        starvation: Share of that noise in the streaks; the rest is beam hardening.
    """

    kind: ClassVar[str] = "metal_streaks"
    whole_slices: ClassVar[bool] = True
    axial: ClassVar[bool] = True
    implants: tuple[Implant, ...]
    streak_hu: float
    seed: int
    starvation: float = 0.4

    def __post_init__(self) -> None:
        check("the metal's streak_hu", self.streak_hu, 0, MOST_HU)
        check("the metal's starvation", self.starvation, 0, 1)
        object.__setattr__(self, "seed", checked_seed(self.seed))
        require(isinstance(self.implants, (list, tuple)), "the metal's implants must be a list")
        object.__setattr__(self, "implants", tuple(_implant(each) for each in self.implants))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Draws the implants and their streaks; see `metal_streaks`."""
        return metal_streaks(hu, spacing, self.implants, self.streak_hu, self.starvation, self.seed)


def _implant(given: object) -> Implant:
    """An implant, or one as JSON has it, its numbers checked."""
    implant = Implant(**given) if isinstance(given, Mapping) else given
    if not isinstance(implant, Implant):
        raise ValueError("the metal's implants must have a position, a radius_mm and a length_mm each")
    for radius in implant.radius_mm:
        check("an implant's radius_mm", radius, LEAST_MM, MOST_MM)
    check("an implant's length_mm", implant.length_mm, LEAST_MM, MOST_IMPLANT_MM)
    return implant
