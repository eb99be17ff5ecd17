"""What afflicts scans of patients: few photons, thick slices, motion, metal (arXiv 2501.14013, section I)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from mpfnl.transforms.degradation.low_dose import FULL_DOSE_SD_HU, add_low_dose_noise
from mpfnl.transforms.degradation.metal import Implant, metal_streaks
from mpfnl.transforms.degradation.motion import motion_blur
from mpfnl.transforms.degradation.operations import Recorded, Triple, require, require_seed, triple
from mpfnl.transforms.degradation.thick_slices import SliceProfile, thick_slices


@dataclass(frozen=True)
class LowDose(Recorded):
    """The noise that a lower dose would have added, as it arises in the projections.

    Args:
        dose_fraction: Of the dose that the scan was made with, in (0, 1]; 1 adds nothing.
        seed: Of the noise.
        full_dose_sd_hu: Standard deviation in the body, in HU, of the noise of the scan as it is. At a
            quarter of the dose the default adds the measured 66 HU.
    """

    kind: ClassVar[str] = "low_dose"
    whole_slices: ClassVar[bool] = True
    dose_fraction: float
    seed: int
    full_dose_sd_hu: float = FULL_DOSE_SD_HU

    def __post_init__(self) -> None:
        require(0 < self.dose_fraction <= 1, "a low dose's dose_fraction must lie above 0 and at most at 1")
        require(self.full_dose_sd_hu >= 0, "a low dose's full_dose_sd_hu must be 0 or more")
        require_seed(self.seed)

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
    """

    kind: ClassVar[str] = "thick_slices"
    thickness_mm: float
    increment_mm: float
    profile: SliceProfile = SliceProfile.RECTANGLE

    def __post_init__(self) -> None:
        require(self.thickness_mm > 0, "a thick slice's thickness_mm must be positive")
        require(self.increment_mm > 0, "a thick slice's increment_mm must be positive")
        object.__setattr__(self, "profile", SliceProfile(self.profile))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Makes the slices thick; see `thick_slices`."""
        return thick_slices(hu, spacing, self.thickness_mm, self.increment_mm, self.profile)


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
        require(0 <= self.double_exposure <= 1, "a motion's double_exposure lies between 0 and 1")
        object.__setattr__(self, "amplitude_mm", triple(self.amplitude_mm))

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
    implants: tuple[Implant, ...]
    streak_hu: float
    seed: int
    starvation: float = 0.4

    def __post_init__(self) -> None:
        require(self.streak_hu >= 0, "the metal's streak_hu must be 0 or more")
        require(0 <= self.starvation <= 1, "the metal's starvation lies between 0 and 1")
        require_seed(self.seed)
        read = (Implant(**each) if isinstance(each, Mapping) else each for each in self.implants)
        object.__setattr__(self, "implants", tuple(read))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Draws the implants and their streaks; see `metal_streaks`."""
        return metal_streaks(hu, spacing, self.implants, self.streak_hu, self.starvation, self.seed)
