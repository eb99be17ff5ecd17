"""Thick slices, with the slice sensitivity profile of a scanner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.base import MOST_MM, Degradation, check
from mpfnl.transforms.degradation.convolution import FWHM_PER_SIGMA, TRUNCATION
from mpfnl.transforms.degradation.resampling import (
    Resampling,
    Taps,
    apply_taps,
    coarse_grid,
    interpolation_taps,
    sampled_taps,
)
from mpfnl.transforms.degradation.stage import (
    DECIMALS,
    HALF_A_VOXEL,
    Range,
    Stage,
    chance,
    check_probabilities,
    check_ranges,
    uniform,
)
from mpfnl.transforms.seeds import Draws

LEAST_MM = 0.01


class SliceProfile(StrEnum):
    """Sensitivity of a slice as a function of the distance from its centre."""

    RECTANGLE = "rectangle"
    """Box as wide as the slice: an axial (step-and-shoot) scan, or the mean of thin slices."""
    BELL = "bell"
    """A Gaussian whose full width at half maximum is the thickness: a helical scan."""


def thick_slices(
    hu: SpatialVolume,
    spacing: Sequence[float],
    thickness_mm: float,
    increment_mm: float,
    profile: SliceProfile,
    grid_shift: float = 0.0,
) -> SpatialVolume:
    """Averages a volume into thick slices and returns them to its grid.

    The section sensitivity profile of an axial scan is near a rectangle of the nominal thickness; a helical
    scan's is bell-shaped and is described by its full width at half maximum (Polacin, Kalender and Marchal,
    Radiology 1992;185:29-35). Each thick slice is the volume's mean weighted by the profile around its
    centre; the centres lie `increment_mm` apart, in a grid that is centred on the volume but for
    `grid_shift`. Between the centres the slices are interpolated linearly, as a viewer or a resampler does.

    The slices of the volume are treated as contiguous boxes as thick as their spacing, each the mean over its
    box, and the profile is integrated over these boxes exactly. A rectangle whose faces lie on faces of boxes
    is therefore met exactly; any other is up to a box wider. The boxes add spacing^2 / 6 to the variance of a
    bell, which is taken off first; at thickness = spacing nearly nothing is left of it. Slices are never
    made thinner than they are, nor placed more densely: a smaller thickness or increment counts as the
    spacing. At the ends, what lies inside the volume of a profile is weighted up to 1.

    Args:
        hu: Volume `(x, y, z)`; the slices lie along z.
        spacing: Voxel spacing in mm along x, y, z.
        thickness_mm: Full width at half maximum of the profile in mm, positive.
        increment_mm: Distance between the slices' centres in mm, positive; gaps and overlaps are allowed.
        profile: Rectangle or bell.
        grid_shift: Shift of the slices from the middle of the volume, in increments, from -1/2 to 1/2.

    Returns:
        The volume, on its own grid; the input itself where its slices are as thick and as far apart already.

    Raises:
        ValueError: The thickness or the increment is not a positive number, or the shift is too large.
    """
    profile = SliceProfile(profile)
    for name, value in (("thickness_mm", thickness_mm), ("increment_mm", increment_mm)):
        if not 0 < value < math.inf:
            raise ValueError(f"the {name} of thick slices must be a positive number, got {value}")
    if not abs(grid_shift) <= 0.5:
        raise ValueError(f"the grid_shift of thick slices lies between -1/2 and 1/2, got {grid_shift}")
    step = spacing[2]
    if thickness_mm <= step and increment_mm <= step:
        return hu
    width, increment = max(thickness_mm / step, 1.0), max(increment_mm / step, 1.0)
    length = hu.shape[2]
    count, offset = coarse_grid(length, increment, grid_shift if increment > 1 else 0.0)
    centres = offset + increment * (np.arange(count, dtype=np.float64) + 0.5)
    chain = [slice_taps(centres.clip(0, length), width, profile, length)]
    if increment > 1:
        positions = (np.arange(length) + 0.5 - offset) / increment - 0.5
        chain.append(interpolation_taps(positions, Resampling.LINEAR, count))
    return apply_taps(hu[None], 2, [chain])[0]


def slice_taps(centres: NDArray[np.float64], width: float, profile: SliceProfile, length: int) -> Taps:
    """The weights of voxels in thick slices: the profile's integral over each voxel, of sum 1.

    Args:
        centres: Centres of the slices, in voxels from the volume's edge.
        width: Full width at half maximum of the profile in voxels, 1 or more.
        profile: Rectangle or bell.
        length: Length of the axis in voxels.
    """
    if profile is SliceProfile.RECTANGLE:
        reach, scale = width / 2, width
    else:
        scale = math.sqrt((width / FWHM_PER_SIGMA) ** 2 - 1 / 6)
        reach = TRUNCATION * scale
    first = np.floor(centres - reach)
    voxels = first + np.arange(math.ceil(2 * reach) + 1)[:, None]
    faces = np.concatenate([voxels, voxels[-1:] + 1]) - centres
    below = (faces / scale + 0.5).clip(0, 1) if profile is SliceProfile.RECTANGLE else ndtr(faces / scale)
    weights = np.diff(below, axis=0) * ((voxels >= 0) & (voxels < length))
    return sampled_taps(voxels, weights / weights.sum(0), length)


@dataclass(frozen=True)
class ThickSlices(Degradation):
    """Thick slices along z, seen through a slice sensitivity profile and brought back to the grid.

    Args:
        thickness_mm: Full width at half maximum of the profile in mm.
        increment_mm: Distance between slices in mm; below the thickness they overlap.
        profile: Shape of the profile.
        grid_shift: Shift of the slices from the middle of the volume (or patch), in increments, from -1/2
            to 1/2.
    """

    kind = "thick_slices"
    margin = 8
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

    def describe(self) -> str:
        """For example "bell slices of 5 mm every 2.5 mm"."""
        return f"{self.profile} slices of {self.thickness_mm:.3g} mm every {self.increment_mm:.3g} mm"


@dataclass(frozen=True)
class ThickSlicesStage(Stage):
    """Thick slices.

    Args:
        thickness_mm: Range of the slice thickness in mm.
        overlap: Range of the share by which neighbouring slices overlap, below 1.
        bell_probability: Probability that the profile is a bell (helical), not a rectangle (axial).
        probability: Probability of the stage.
    """

    degradations = (ThickSlices,)
    thickness_mm: Range
    overlap: Range = (0.0, 0.0)
    bell_probability: float = 0.5
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_probabilities(self.bell_probability, self.probability)
        check_ranges(self.thickness_mm, self.overlap)
        if self.overlap[1] >= 1:
            raise ValueError("thick slices overlap by a share below 1")

    def sample(self, draws: Draws) -> list[Degradation]:
        """Draws thickness, increment and profile."""
        rng = draws.protocol
        if not chance(self.probability, rng):
            return []
        thickness = uniform(self.thickness_mm, rng)
        increment = round(thickness * (1 - uniform(self.overlap, rng)), DECIMALS)
        profile = SliceProfile.BELL if chance(self.bell_probability, rng) else SliceProfile.RECTANGLE
        return [ThickSlices(thickness, increment, profile, uniform(HALF_A_VOXEL, draws.own))]
