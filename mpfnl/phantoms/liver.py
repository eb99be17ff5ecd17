"""The liver: all of the right upper abdomen above one slanting underside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpfnl.phantoms.fields import Array
from mpfnl.phantoms.scene import Region, smooth_maximum
from mpfnl.phantoms.stage import Stage
from mpfnl.phantoms.vessels import Roads, paint_cava

_SLOPE_X, _SLOPE_Y = -0.80, -0.36  # how the underside falls to the right and to the front


@dataclass(frozen=True)
class Underside:
    """The liver's visceral surface z = height + slopes, in the patient's mm."""

    height: float
    slopes: tuple[float, float]
    origin_y: float

    @classmethod
    def draw(cls, stage: Stage) -> Underside:
        """Draws the surface's height and slant."""
        rng, tall = stage.rng, stage.habitus.stature
        origin = stage.habitus.place((0, 45, 0))
        height = (21 + rng.normal(0, 6)) * tall
        slopes = (_SLOPE_X * rng.uniform(0.85, 1.15), _SLOPE_Y * rng.uniform(0.8, 1.2))
        return cls(float(height), (float(slopes[0]), float(slopes[1])), float(origin[1]))

    def at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Height of the surface in mm; it levels out at the far right, where the lobe ends."""
        right = np.asarray(x, dtype=np.float64)
        run = np.where(right > 60, 60 + 0.75 * (right - 60), np.where(right < 0, 0.6 * right, right))
        return np.asarray(
            self.height + self.slopes[0] * run + self.slopes[1] * (np.asarray(y) - self.origin_y)
        )


def build_liver(stage: Stage, underside: Underside, roads: Roads, lesion_probability: float) -> Array:
    """Paints the liver into what room is left; returns its distance field over the grid."""
    scene, texture = stage.scene, stage.texture
    x, y, z = scene.coordinates(scene.everywhere)
    bulge = 3 * texture.low + 2 * texture.middle
    below = (underside.at(x, y).astype(np.float32) + bulge - z) * np.float32(0.75)
    left_tip = stage.place((-68, 40, 70), 8.0)[0]
    distance = smooth_maximum(below, np.float32(left_tip) - x + 2 * texture.middle, 14)
    behind = stage.habitus.place((0, 4, 60))[1]
    left_back = np.minimum(np.float32(behind) - y + np.float32(6), 30 + 0 * y) - np.maximum(x + 5, 0)
    distance = smooth_maximum(distance, left_back.astype(np.float32), 10)
    distance = smooth_maximum(distance, _fissure(stage, x, y, z), 3)
    room = np.float32(1.4) * scene.planes - scene.room
    liver = Region(scene.everywhere, smooth_maximum(distance, room, 4))
    stage.put(liver, "liver", "liver", fine=3.0, rough=2.5, claim=None)
    # The liver embraces the vena cava with no fat between.
    cuff = roads.cava.shrunk(-3.0).within(liver.distance[roads.cava.box] - 5.0)
    stage.put(cuff, "liver", "liver", fine=3.0, rough=2.5, claim=None)
    paint_cava(stage, roads.cava)
    scene.claim(liver)
    if stage.rng.random() < lesion_probability:
        _lesions(stage, liver.distance)
    return liver.distance


def _fissure(stage: Stage, x: Array, y: Array, z: Array) -> Array:
    """The wedge of fat around the round ligament, between the left lobe's segments."""
    middle = stage.place((0, 60, 40), 3.0)
    wide = np.clip((y - np.float32(middle[1]) + 2) / 10, 0, 4) * np.clip(
        (np.float32(middle[2]) + 12 - z) / 20, 0, 1
    )
    inside = wide - np.abs(x - np.float32(middle[0]) + 0.22 * (y - np.float32(middle[1])))
    return np.asarray(np.where(wide > 0.05, inside - 1.0, -9), dtype=np.float32)


def _lesions(stage: Stage, liver: Array) -> None:
    scene, rng = stage.scene, stage.rng
    kind = str(rng.choice(["metastasis", "cyst", "hypervascular"]))
    for _ in range(int(rng.integers(1, 4))):
        radius = rng.uniform(4, 15)
        centre = stage.place((rng.uniform(20, 95), rng.uniform(-10, 60), rng.uniform(10, 75)))
        lesion = stage.roughen(
            scene.ellipsoid(centre, radius * rng.uniform(0.85, 1.15, 3)), middle=0.8, rough=0.6
        )
        lesion = lesion.within(liver[lesion.box] + 2)
        if kind == "metastasis":
            stage.put(lesion, "metastasis_rim", "liver_lesion", claim=None)
            stage.put(lesion.shrunk(0.22 * radius), "metastasis", "liver_lesion", fine=4, claim=None)
        else:
            stage.put(lesion, kind, "liver_lesion", fine=2 if kind == "cyst" else 5, claim=None)


def gallbladder_fossa(stage: Stage, underside: Underside) -> Array:
    """Height of the underside in mm where the gall bladder's fundus and neck lie."""
    spots = stage.habitus.place([(66, 66, 0), (46, 40, 0)])
    return np.asarray(underside.at(spots[:, 0], spots[:, 1]), dtype=np.float32)
