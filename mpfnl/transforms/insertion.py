"""Insertion of small lesions and vessels into the clean phases of a training patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpfnl.window import COVERED_FROM_HU

Range = tuple[float, float]

BODY_FROM_HU = -200
"""HU of the target from which a voxel can take a structure: soft tissue and fat, not lung or air."""


@dataclass(frozen=True)
class StructureInsertion:
    """Spheres (lesions) and cylinders (vessels) of low contrast, at random places of a patch.

    Low-contrast structures of a few millimetres are rare in patches of 32 voxels, and a network that seldom
    meets them learns to smooth them away. The structures are inserted before the degradation, into all phases
    and the target: some in every phase, some with another sign in the other phases, some in one phase only.
    Voxels at a border take the share of the structure (partial volume).

    Args:
        mean_count: Mean number of structures in a patch; the number is Poisson distributed.
        vessel_share: Share of the structures that are vessels.
        lesion_mm: Range of the lesions' diameters in mm.
        lesion_hu: Range of the lesions' absolute contrasts in HU.
        vessel_mm: Range of the vessels' diameters in mm.
        vessel_hu: Range of the vessels' contrasts in HU.
        hypodense_share: Share of the lesions that are darker than their surroundings.

    Raises:
        ValueError: A number is negative, or a range not in order.

    >>> patch = np.full((2, 24, 24, 24), 50, np.int16)
    >>> inserted = StructureInsertion(mean_count=20.0)(patch, (1.5, 1.5, 2.5), np.random.default_rng(0))
    >>> inserted.shape, inserted.dtype, bool((inserted < 50).any()), bool((inserted > 50).any())
    ((2, 24, 24, 24), dtype('int16'), True, True)
    """

    mean_count: float = 2.0
    vessel_share: float = 0.4
    lesion_mm: Range = (3.0, 20.0)
    lesion_hu: Range = (10.0, 60.0)
    vessel_mm: Range = (2.0, 8.0)
    vessel_hu: Range = (20.0, 120.0)
    hypodense_share: float = 0.7

    def __post_init__(self) -> None:
        shares = (self.vessel_share, self.hypodense_share)
        if self.mean_count < 0 or not all(0 <= share <= 1 for share in shares):
            raise ValueError("mean_count is at least 0, and shares lie between 0 and 1")
        for name in ("lesion_mm", "lesion_hu", "vessel_mm", "vessel_hu"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} is ({low}, {high}); it must be positive and in order")

    def __call__(
        self, hu: NDArray[np.int16], spacing: Sequence[float], rng: np.random.Generator
    ) -> NDArray[np.int16]:
        """Inserts structures into a patch.

        Args:
            hu: Phases and the target, which is the last, `(P, x, y, z)` in HU; not changed.
            spacing: Voxel spacing in mm.
            rng: Generator of this patch.

        Returns:
            An array of the same shape; voxels that a phase does not cover, and air, stay as they are.
        """
        count = int(rng.poisson(self.mean_count))
        if not count:
            return hu
        added = np.zeros(hu.shape, np.float32)
        for _ in range(count):
            vessel = bool(rng.random() < self.vessel_share)
            share = _share(hu.shape[1:], spacing, self._diameter(vessel, rng), vessel, rng)
            added += self._contrasts(vessel, len(hu), rng)[:, None, None, None] * share
        open_to = (hu[-1:] > BODY_FROM_HU) & (hu > COVERED_FROM_HU)
        return np.where(open_to, np.rint(hu + added), hu).astype(np.int16)

    def _diameter(self, vessel: bool, rng: np.random.Generator) -> float:
        low, high = self.vessel_mm if vessel else self.lesion_mm
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))  # as many small ones as large ones

    def _contrasts(self, vessel: bool, phases: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """The contrast in each phase."""
        contrast = rng.uniform(*(self.vessel_hu if vessel else self.lesion_hu))
        if not vessel and rng.random() < self.hypodense_share:
            contrast = -contrast
        factors = rng.uniform(0.0, 1.2, phases)
        behaviour = rng.random()
        if behaviour < 0.3:  # in one phase only
            factors = np.zeros(phases)
        elif behaviour < 0.5:  # as washout: brighter before, darker in the target, or the reverse
            factors = -factors
        factors[-1 if behaviour >= 0.15 else rng.integers(phases)] = 1.0
        return (contrast * factors).astype(np.float32)


def _share(
    shape: tuple[int, ...],
    spacing: Sequence[float],
    diameter: float,
    vessel: bool,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """The share of each voxel that a sphere, or an endless cylinder, fills: linear over a voxel's width."""
    centre = rng.uniform(0, 1, 3) * np.array(shape)
    axes = [
        (np.arange(side, dtype=np.float32) - c) * s for side, c, s in zip(shape, centre, spacing, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    square = x**2 + y**2 + z**2
    if vessel:
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        square = square - (x * direction[0] + y * direction[1] + z * direction[2]) ** 2
    width = float(np.mean(spacing))
    distance = np.sqrt(np.maximum(square, 0))
    return np.clip((diameter / 2 - distance) / width + 0.5, 0, 1).astype(np.float32)
