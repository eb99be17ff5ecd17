"""Stages: the ranges that operations are drawn from, in mm and HU.

Numbers that the scanner and its protocol decide come from the protocol's generator, noise and motion from the
phase's own (see `mpfnl.transforms.seeds.Draws`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from mpfnl.transforms.degradation.low_dose import FULL_DOSE_SD_HU
from mpfnl.transforms.degradation.metal import Implant
from mpfnl.transforms.degradation.operations import (
    Blur,
    GaussianNoise,
    Operation,
    PoissonNoise,
    Resize,
    Triple,
)
from mpfnl.transforms.degradation.resampling import Interpolation
from mpfnl.transforms.degradation.scanner import LowDose, MetalStreaks, MotionBlur, ThickSlices
from mpfnl.transforms.degradation.thick_slices import SliceProfile
from mpfnl.transforms.seeds import Draws

Range: TypeAlias = tuple[float, float]
"""Lower and upper bound of a uniform distribution."""

_DECIMALS = 4  # of the recorded numbers: finer than anything that shows in a scan
_HALF_A_VOXEL = (-0.5, 0.5)  # where the coarse grid lies is chance, in a scanner as in a patch
_DOWN = tuple(Interpolation)
_UP = (Interpolation.LINEAR, Interpolation.CUBIC)


class Stage(Protocol):
    """One step of a preset: draws the operations that it takes by chance."""

    whole_slices: ClassVar[bool]
    """Whether its operations must see whole cross-sections."""

    margin: ClassVar[int]
    """Voxels around a patch that its operations should see, so that the patch is degraded as in its scan."""

    def sample(self, draws: Draws) -> list[Operation]:
        """Draws; an empty list where chance leaves the stage out."""
        ...


@dataclass(frozen=True)
class SecondOrderStage:
    """Blur, then resizing, then noise, each with its probability (after Wang et al., Real-ESRGAN, 2021).

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

    whole_slices: ClassVar[bool] = False
    margin: ClassVar[int] = 4
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
        _check_chances(
            self.blur_probability,
            self.anisotropic_probability,
            self.resize_probability,
            self.noise_probability,
            self.poisson_probability,
        )
        _check_ranges(
            self.blur_fwhm_mm,
            self.inplane_voxel_mm,
            self.slice_voxel_mm,
            self.noise_sd_hu,
            self.noise_correlation_mm,
        )

    def sample(self, draws: Draws) -> list[Operation]:
        """Draws the stage's operations."""
        operations: list[Operation] = []
        if _chance(self.blur_probability, draws.protocol):
            operations.append(self._blur(draws.protocol))
        if _chance(self.resize_probability, draws.protocol):
            operations.append(self._resize(draws))
        if _chance(self.noise_probability, draws.protocol):
            operations.append(self._noise(draws))
        return operations

    def _blur(self, rng: np.random.Generator) -> Blur:
        if _chance(self.anisotropic_probability, rng):
            x, y, z = (_uniform(self.blur_fwhm_mm, rng) for _ in range(3))
            return Blur((x, y, z))
        width = _uniform(self.blur_fwhm_mm, rng)
        return Blur((width, width, width))

    def _resize(self, draws: Draws) -> Resize:
        rng = draws.protocol
        inplane = _uniform(self.inplane_voxel_mm, rng)
        voxel: Triple = (inplane, inplane, _uniform(self.slice_voxel_mm, rng))
        down, up = _DOWN[rng.integers(len(_DOWN))], _UP[rng.integers(len(_UP))]
        x, y, z = (_uniform(_HALF_A_VOXEL, draws.own) for _ in range(3))
        return Resize(voxel, down, up, self.max_factor, (x, y, z))

    def _noise(self, draws: Draws) -> GaussianNoise | PoissonNoise:
        kind = PoissonNoise if _chance(self.poisson_probability, draws.protocol) else GaussianNoise
        sd = _uniform(self.noise_sd_hu, draws.protocol)
        correlation = _uniform(self.noise_correlation_mm, draws.protocol)
        return kind(sd, correlation, _seed(draws.own))


@dataclass(frozen=True)
class LowDoseStage:
    """Noise of a lower dose.

    Args:
        dose_fraction: Of the scan's dose.
        full_dose_sd_hu: Standard deviation of the noise of the scan as it is, in the body, in HU.
        probability: That the stage is taken.
    """

    whole_slices: ClassVar[bool] = True
    margin: ClassVar[int] = 0
    dose_fraction: Range
    full_dose_sd_hu: float = FULL_DOSE_SD_HU
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_chances(self.probability)
        _check_ranges(self.dose_fraction)

    def sample(self, draws: Draws) -> list[Operation]:
        """Draws the dose."""
        if not _chance(self.probability, draws.protocol):
            return []
        dose = _uniform(self.dose_fraction, draws.protocol)
        return [LowDose(dose, _seed(draws.own), self.full_dose_sd_hu)]


@dataclass(frozen=True)
class ThickSlicesStage:
    """Thick slices.

    Args:
        thickness_mm: Of a slice.
        overlap: Share by which neighbouring slices overlap, below 1.
        bell_probability: That the profile is a bell (helical), not a rectangle (axial).
        probability: That the stage is taken.
    """

    whole_slices: ClassVar[bool] = False
    margin: ClassVar[int] = 8
    thickness_mm: Range
    overlap: Range = (0.0, 0.0)
    bell_probability: float = 0.5
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_chances(self.bell_probability, self.probability)
        _check_ranges(self.thickness_mm, self.overlap)
        if self.overlap[1] >= 1:
            raise ValueError("thick slices overlap by a share below 1")

    def sample(self, draws: Draws) -> list[Operation]:
        """Draws thickness, increment and profile."""
        rng = draws.protocol
        if not _chance(self.probability, rng):
            return []
        thickness = _uniform(self.thickness_mm, rng)
        increment = round(thickness * (1 - _uniform(self.overlap, rng)), _DECIMALS)
        profile = SliceProfile.BELL if _chance(self.bell_probability, rng) else SliceProfile.RECTANGLE
        return [ThickSlices(thickness, increment, profile, _uniform(_HALF_A_VOXEL, draws.own))]


@dataclass(frozen=True)
class MotionStage:
    """Motion during the acquisition.

    Args:
        inplane_mm: Length of the path along x and along y in mm.
        slice_mm: Length of the path along z in mm; breathing moves organs mostly along z.
        double_exposure: Share of the time at the ends of the path.
        probability: That the stage is taken.
    """

    whole_slices: ClassVar[bool] = False
    margin: ClassVar[int] = 8
    inplane_mm: Range
    slice_mm: Range
    double_exposure: Range = (0.0, 0.0)
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_chances(self.probability, *self.double_exposure)
        _check_ranges(self.inplane_mm, self.slice_mm, self.double_exposure)

    def sample(self, draws: Draws) -> list[Operation]:
        """Draws the path: all of it is of this acquisition."""
        rng = draws.own
        if not _chance(self.probability, rng):
            return []
        x, y, z = (_uniform(length, rng) for length in (self.inplane_mm, self.inplane_mm, self.slice_mm))
        signed = (x, y if _chance(0.5, rng) else -y, z if _chance(0.5, rng) else -z)
        return [MotionBlur(signed, _uniform(self.double_exposure, rng))]


@dataclass(frozen=True)
class MetalStage:
    """Implants and their streaks.

    Args:
        count: Fewest and most implants.
        place: Range of the position in the body's bounding box along x and y, in shares of it.
        radius_mm: Of an implant in the slice.
        length_mm: Of an implant along z.
        streak_hu: Strength of the streaks near the implants.
        probability: That the stage is taken.
    """

    whole_slices: ClassVar[bool] = True
    margin: ClassVar[int] = 0
    count: tuple[int, int]
    place: Range
    radius_mm: Range
    length_mm: Range
    streak_hu: Range
    probability: float = 1.0

    def __post_init__(self) -> None:
        _check_chances(self.probability, *self.place)
        _check_ranges(self.count, self.place, self.radius_mm, self.length_mm, self.streak_hu)

    def sample(self, draws: Draws) -> list[Operation]:
        """Draws the implants, which are the patient's, and the noise of the rays through them."""
        rng = draws.protocol
        if not _chance(self.probability, rng):
            return []
        count = int(rng.integers(self.count[0], self.count[1] + 1))
        implants = tuple(self._implant(rng) for _ in range(count))
        return [MetalStreaks(implants, _uniform(self.streak_hu, rng), _seed(draws.own))]

    def _implant(self, rng: np.random.Generator) -> Implant:
        x, y, z = _uniform(self.place, rng), _uniform(self.place, rng), _uniform((0.25, 0.75), rng)
        radius = _uniform(self.radius_mm, rng)
        return Implant((x, y, z), (radius, radius), _uniform(self.length_mm, rng))


def _check_chances(*chances: float) -> None:
    if not all(0 <= chance <= 1 for chance in chances):
        raise ValueError("a stage's probabilities lie between 0 and 1")


def _check_ranges(*ranges: Range) -> None:
    if not all(0 <= low <= high for low, high in ranges):
        raise ValueError("a stage's ranges are (low, high) with 0 <= low <= high")


def _chance(probability: float, rng: np.random.Generator) -> bool:
    return bool(rng.random() < probability)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _uniform(bounds: Range, rng: np.random.Generator) -> float:
    return round(float(rng.uniform(*bounds)), _DECIMALS)
