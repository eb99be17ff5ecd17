"""Metal implants in a body: the positions of the rods, and the pixels that they cover in each slice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mpfnl.transforms.degradation.low_dose_map import MU_WATER_PER_MM
from mpfnl.transforms.degradation.parallel_beam import Ellipse, Floats, Pair, ParallelBeam, Singles
from mpfnl.window import AIR_HU

IMPLANT_HU = 3071.0
"""HU of the metal: the largest value of a CT of 12 bits."""

NEAR_MM = 100.0
"""Distance from the implants' centres up to which the strength of the streaks is measured."""

TITANIUM_PER_MM = 0.25
"""Attenuation of titanium (4.5 g/cm^3) in 1/mm at 70 keV, from NIST's mass attenuation coefficients."""

_FEWEST_ANGLES = 360
_BODY_SHARE = 0.01  # a plane with less body, against the fullest, lies outside the body's box
_BLOOMING = (TITANIUM_PER_MM / MU_WATER_PER_MM * 1000 - 1000 - AIR_HU) / (IMPLANT_HU - AIR_HU)
_FAINT = 0.01  # a smaller share of metal in a pixel is ripple of the reconstruction


@dataclass(frozen=True)
class Implant:
    """A metal rod along z with an elliptic section: a screw, a pin, the shaft of a hip.

    Args:
        position: Centre of the rod along x, y, z, as fractions of the box around the body, 0 to 1.
        radius_mm: Half the width along x and along y in mm.
        length_mm: Length along z in mm.
    """

    position: tuple[float, float, float]
    radius_mm: Pair
    length_mm: float

    def __post_init__(self) -> None:
        if len(self.position) != 3 or not all(0 <= fraction <= 1 for fraction in self.position):
            raise ValueError(f"an implant's position is three fractions from 0 to 1, got {self.position}")
        if len(self.radius_mm) != 2 or not all(0 < radius < math.inf for radius in self.radius_mm):
            raise ValueError(f"an implant's radius_mm is two positive numbers, got {self.radius_mm}")
        if not 0 < self.length_mm < math.inf:
            raise ValueError(f"an implant's length_mm is a positive number, got {self.length_mm}")
        object.__setattr__(self, "position", tuple(self.position))
        object.__setattr__(self, "radius_mm", tuple(self.radius_mm))


@dataclass(frozen=True)
class Scene:
    """Body and implants, in mm from the slices' centre; along z in slices from the lowest face."""

    shape: tuple[int, ...]
    pixel_mm: Pair
    body: Ellipse
    rods: tuple[Ellipse, ...]
    ends: tuple[Pair, ...]

    @staticmethod
    def of(body: NDArray[np.bool_], spacing: Sequence[float], implants: Sequence[Implant]) -> Scene:
        """The scene of implants in a body `(x, y, z)`."""
        step = np.array(spacing, dtype=float)
        low, high = np.array([_extent(body, axis) for axis in range(3)], dtype=float).T
        centres = [low + np.array(implant.position) * (high - low) for implant in implants]
        heights = [float(centre[2]) for centre in centres]
        halves = [implant.length_mm / 2 / spacing[2] for implant in implants]

        def place(faces: Floats) -> Pair:
            x, y, _ = ((faces - np.array(body.shape) / 2) * step).tolist()
            return x, y

        x, y, _ = ((high - low) * step / 2).tolist()
        return Scene(
            body.shape,
            (float(step[0]), float(step[1])),
            Ellipse(place((low + high) / 2), (x, y)),
            tuple(Ellipse(place(at), each.radius_mm) for at, each in zip(centres, implants, strict=True)),
            tuple((at - half, at + half) for at, half in zip(heights, halves, strict=True)),
        )

    @property
    def axes(self) -> tuple[Floats, Floats]:
        """The pixels' centres along x and y in mm."""
        sizes = zip(self.shape[:2], self.pixel_mm, strict=True)
        x, y = (step * (np.arange(size, dtype=np.float64) - (size - 1) / 2) for size, step in sizes)
        return x, y

    def covered(self, low: float, high: float) -> Floats:
        """The share of each slice that lies between two heights."""
        return np.diff(np.arange(self.shape[2] + 1).clip(low, high))

    def parts(self) -> dict[tuple[int, ...], Floats]:
        """The sets of implants that some height cuts, each with its share of every slice."""
        shares: dict[tuple[int, ...], Floats] = {}
        for low, high in pairwise(sorted({end for ends in self.ends for end in ends})):
            cut = tuple(i for i, (bottom, top) in enumerate(self.ends) if bottom <= low and high <= top)
            share = self.covered(low, high)
            if cut and share.any():
                shares[cut] = shares[cut] + share if cut in shares else share
        return shares

    def metal(self, sections: Singles, slices: NDArray[np.intp]) -> tuple[Singles, NDArray[np.bool_]]:
        """The share of metal in each voxel of some slices, 0 to 1, and the voxels that metal covers.

        Args:
            sections: Reconstructed share of each implant in each pixel, `(implants, x, y)`.
            slices: Indices of the slices.

        Returns:
            Both `(slices, x, y)`.
        """
        shape = (len(slices), *self.shape[:2])
        share, rim = np.zeros(shape, np.float32), np.zeros(shape, bool)
        for section, ends in zip(sections, self.ends, strict=True):
            covered = self.covered(*ends)[slices].astype(np.float32)[:, None, None]
            share += covered * section
            rim |= (covered > 0) & (section > _FAINT)
        return np.where(rim, share * np.float32(_BLOOMING), np.float32(0)).clip(0, 1), rim

    def near(self, slices: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Pixels near an implant of their slice, `(slices, x, y)`."""
        result = np.zeros((len(slices), *self.shape[:2]), bool)
        x, y = self.axes
        for rod, ends in zip(self.rods, self.ends, strict=True):
            distance = np.hypot(x[:, None] - rod.centre[0], y - rod.centre[1])
            result[self.covered(*ends)[slices] > 0] |= distance <= NEAR_MM
        return result

    def beam(self) -> ParallelBeam:
        """Directions so dense that rays through an implant leave the array two pixels apart at most."""
        corner = np.array([axis[-1] for axis in self.axes])
        pixel = min(self.pixel_mm)
        far = max(float(np.hypot(*(corner + np.abs(rod.centre)))) for rod in self.rods)
        widest = max(float(np.hypot(*rod.centre)) + max(rod.radius) for rod in self.rods)
        angles = max(_FEWEST_ANGLES, math.ceil(math.pi * far / (2 * pixel)))
        return ParallelBeam(angles, max(float(np.hypot(*corner)), widest), pixel)


def _extent(body: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """The first and the last face of the body along an axis; single bright voxels in the air do not count."""
    counts = body.sum(axis=tuple(other for other in range(3) if other != axis))
    filled = np.flatnonzero(counts >= max(1, _BODY_SHARE * counts.max()))
    return (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, len(counts))
