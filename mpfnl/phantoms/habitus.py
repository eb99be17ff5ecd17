"""One patient's build: sizes of trunk and cavity, and the mapping from the atlas to the patient.

Coordinates are the patient's own, RAS+ in mm: x to the right, y to the front, z to the head; the
origin lies in the middle of the body at the height of the first lumbar vertebra. The *atlas* is the
average patient's layout: x and z as above, y counted from the front of the vertebral bodies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpfnl.phantoms.texture import Array

_ATLAS_CAVITY = (131.0, 92.0)  # half-width of the cavity, and its depth in front of the spine, in mm
BODY_POWER = 2.22  # a trunk's section is a little squarer than an ellipse


@dataclass(frozen=True)
class Habitus:
    """The drawn measures of the trunk, in mm.

    Args:
        width: Half the body's width.
        depth: Half the body's depth (front to back).
        fat: Subcutaneous fat at the flank, in front, at the back.
        wall: Thickness of the muscular wall at the flank.
        visceral: Visceral fat, 0 (lean) to 1.
        stature: Scale of lengths along z.
        spine_y: y of the middle of the first lumbar vertebral body.
    """

    width: float
    depth: float
    fat: tuple[float, float, float]
    wall: float
    visceral: float
    stature: float
    spine_y: float

    @classmethod
    def draw(cls, rng: np.random.Generator, largest_width: float, largest_depth: float) -> Habitus:
        """Draws a build whose half-width and half-depth fit the field of view."""
        weight, visceral = rng.uniform(0, 1, 2)
        width = 143 + 30 * weight + 8 * visceral + rng.normal(0, 4)
        depth = 94 + 22 * weight + 14 * visceral + rng.normal(0, 3)
        thickness = rng.uniform(0.75, 1.25)
        fat = (
            thickness * (7 + 20 * weight),
            thickness * (8 + 18 * weight),
            thickness * (8 + 20 * weight),
        )
        depth = min(depth, largest_depth)
        return cls(
            width=float(min(width, largest_width)),
            depth=float(depth),
            fat=(float(fat[0]), float(fat[1]), float(fat[2])),
            wall=float(rng.uniform(11, 16)),
            visceral=float(visceral),
            stature=float(rng.uniform(0.93, 1.07)),
            spine_y=float(-0.23 * depth + rng.normal(0, 2)),
        )

    @property
    def cavity(self) -> tuple[float, float, float]:
        """Half-width of the abdominal cavity, and its half-depths in front and behind."""
        lateral, front, back = self.fat
        return (self.width - lateral - self.wall, self.depth - front - 9, self.depth - back - 12)

    def spine_axis(self, z: ArrayLike) -> NDArray[np.float64]:
        """Y of the middle of the vertebral column at height z: lordosis, leaning back in the chest."""
        lift = np.asarray(z, dtype=np.float64) / self.stature
        return np.asarray(self.spine_y - 5.5e-4 * (lift + 60) ** 2 + 5.5e-4 * 60**2)

    def scale(self) -> tuple[float, float, float]:
        """Ratios of the patient's width, depth and height to the atlas."""
        front = self.cavity[1] - (self.spine_y + 16.5)
        wide, deep = self.cavity[0] / _ATLAS_CAVITY[0], front / _ATLAS_CAVITY[1]
        return (float(np.clip(wide, 0.85, 1.2)), float(np.clip(deep, 0.8, 1.2)), self.stature)

    def place(self, points: ArrayLike) -> NDArray[np.float64]:
        """Moves atlas points (..., 3) in mm to this patient."""
        atlas = np.asarray(points, dtype=np.float64)
        wide, deep, tall = self.scale()
        z = atlas[..., 2] * tall
        near_spine = np.exp(-np.maximum(atlas[..., 1], 0) / 40)
        bend = (self.spine_axis(z) - self.spine_y) * near_spine
        ahead = atlas[..., 1] * np.where(atlas[..., 1] > 0, deep, wide)
        return np.stack([atlas[..., 0] * wide, self.spine_y + 16.5 + bend + ahead, z], axis=-1)

    def body_distance(self, x: Array, y: Array, z: Array) -> Array:
        """Approximate signed distance to the skin, negative inside; broadcasts."""
        lift = z / self.stature
        width = self.width * (1 - 2.0e-6 * (lift - 10) ** 2)
        depth = self.depth * (1 - 1.0e-6 * (lift - 10) ** 2)
        u, v = np.abs(x / width), np.abs(y / depth)
        p = np.float32(BODY_POWER)
        up, vp = u ** (p - 1), v ** (p - 1)
        radius = np.maximum(up * u + vp * v, 1e-6) ** (1 / p)
        slope = np.sqrt((up / width) ** 2 + (vp / depth) ** 2) * radius ** (1 - p)
        furrow = 7 * np.exp(-((x / 16) ** 2)) * np.clip(-y / self.depth, 0, 1)
        return np.asarray((radius - 1) / np.maximum(slope, 1e-4) + furrow, dtype=np.float32)
