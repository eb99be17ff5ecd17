"""The back: vertebral column with its muscles, and the ribs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpfnl.phantoms.habitus import BODY_POWER
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.scene import Anatomy, Hu, Region, curve
from mpfnl.phantoms.texture import Array
from mpfnl.phantoms.trunk import Shell

_LEVELS = {
    "vertebrae_L4": -111.0,
    "vertebrae_L3": -74.0,
    "vertebrae_L2": -37.0,
    "vertebrae_L1": 0.0,
    "vertebrae_T12": 34.0,
    "vertebrae_T11": 64.0,
    "vertebrae_T10": 92.0,
    "vertebrae_T9": 118.0,
}
"""Height of each vertebral body's middle in the atlas, in mm."""

_RIB_HEADS = {12: 44.0, 11: 76.0, 10: 106.0, 9: 132.0, 8: 157.0, 7: 181.0, 6: 204.0}
_RIB_ENDS = {12: 62.0, 11: 98.0, 10: 128.0, 9: 134.0, 8: 138.0, 7: 142.0, 6: 144.0}  # degrees from the back
_RIB_FALLS = {12: 52.0, 11: 84.0, 10: 108.0, 9: 118.0, 8: 122.0, 7: 126.0, 6: 130.0}  # mm over the bony part


@dataclass(frozen=True)
class Bone:
    """The bony look of one patient: cortical and trabecular HU."""

    anatomy: Anatomy

    def hu(self, region: Region, cortex: float, marrow: float = 0.0) -> Hu:
        """Dense within about `cortex` mm of the surface, mottled marrow (HU offset `marrow`) inside."""
        depth = np.maximum(-region.distance, 0) / np.float32(cortex)
        shell = np.exp(-(depth**2))
        texture = self.anatomy.texture
        mottle = 24 * texture.fine[region.box] + 16 * texture.rough[region.box] + np.float32(marrow)
        pairs = zip(self.anatomy.hu["marrow"], self.anatomy.hu["cortical_bone"], strict=True)
        return [np.asarray(m + mottle + shell * (c - m), dtype=np.float32) for m, c in pairs]

    def paint(self, region: Region, cortex: float, label: int | None, marrow: float = 0.0) -> None:
        """Paints bone and takes its room."""
        self.anatomy.scene.paint(region, self.hu(region, cortex, marrow), label)
        self.anatomy.scene.claim(region)


def build_back(anatomy: Anatomy, shell: Shell) -> None:
    """Paints back muscles, psoas, vertebral column and ribs, and takes their room."""
    _muscles(anatomy, shell)
    _column(anatomy)
    _ribs(anatomy, shell)


def _muscles(anatomy: Anatomy, shell: Shell) -> None:
    scene, habitus = anatomy.scene, anatomy.habitus
    bulk = anatomy.rng.uniform(0.88, 1.12)
    top, bottom = 140.0, -150.0
    heights = np.linspace(bottom, top, 15) * habitus.stature
    spine = habitus.spine_axis(heights)
    chest = np.clip((heights + 40) / 130, 0, 1)
    for side, name in ((1, "right"), (-1, "left")):
        out = side * (33 - 6 * chest)
        path = np.stack([out, spine - 41 + 5 * chest, heights], axis=1)
        region = scene.tube(path, bulk * (18 - 4 * chest), squash=(0.62, 1, 1), rigid=True)
        region = anatomy.roughen(region.within(shell.wall[region.box] + 1), middle=1.2, rough=0.6)
        fascia = np.maximum(np.abs(region.distance + 0.2) - 0.6, shell.wall[region.box] + 2)
        grain = anatomy.texture.fine[region.box] * 7
        fatty = 45 * np.maximum(anatomy.texture.rough[region.box] - 1.1, 0)
        scene.paint(region, [h + grain - fatty for h in anatomy.hu["muscle"]], NUMBERS[f"autochthon_{name}"])
        scene.paint(Region(region.box, fascia), anatomy.hu["fat"])
        scene.claim(region)
        _psoas(anatomy, side, name, bulk)


def _psoas(anatomy: Anatomy, side: int, name: str, bulk: float) -> None:
    atlas = [(26, -14, 22), (29, -15, 0), (34, -14, -35), (39, -11, -70), (44, -7, -105), (49, -2, -150)]
    radii = bulk * np.array([3.0, 7.5, 12.5, 16.0, 19.0, 20.0])
    path, radius = curve(anatomy.place(np.array(atlas) * (side, 1, 1), 1.0), radii, 10.0)
    psoas = anatomy.scene.tube(path, radius)
    anatomy.put(psoas, "muscle", f"iliopsoas_{name}", fine=5, rough=3)
    square = [(48, -40, 25), (56, -44, -40), (63, -44, -100), (66, -42, -150)]
    path, radius = curve(anatomy.place(np.array(square) * (side, 1, 1), 1.0), bulk * 9.5, 14.0)
    lumborum = anatomy.scene.tube(path, radius, squash=(0.6, 1, 1))
    anatomy.put(anatomy.scene.carve(lumborum, 0.3), "muscle", fine=5, rough=3)


def _column(anatomy: Anatomy) -> None:
    scene, habitus, bone = anatomy.scene, anatomy.habitus, Bone(anatomy)
    size = anatomy.rng.uniform(0.93, 1.07)
    heights = np.linspace(-150, 150, 21) * habitus.stature
    spine = habitus.spine_axis(heights)
    cushion = _cylinder(anatomy, size, 20.5, 15.0)
    anatomy.put(cushion, "disc", fine=4)
    for name, level in _LEVELS.items():
        _arch(anatomy, bone, name, level * habitus.stature, size)
    path = np.stack([0 * heights, spine - 16.0 * size - 7.0, heights], axis=1)
    epidural = scene.tube(path, 8.2, squash=(0.72, 1, 1), rigid=True)
    anatomy.put(epidural, "fat", fine=8)
    anatomy.put(epidural.shrunk(1.5), "cord", "spinal_cord")
    for name, level in _LEVELS.items():
        _body(anatomy, bone, name, level * habitus.stature, size)


def _cylinder(anatomy: Anatomy, size: float, wide: float, deep: float) -> Region:
    """An elliptic column along the spine's curve."""
    scene = anatomy.scene
    box = scene.box((-wide - 4, -200, -300), (wide + 4, 200, 300), rigid=True)
    x, y, z = scene.coordinates(box, rigid=True)
    v = y - anatomy.habitus.spine_axis(z).astype(np.float32)
    return Region(box, _oval(x, v, wide * size, deep * size))


def _oval(u: Array, v: Array, wide: float | Array, deep: float | Array) -> Array:
    """Distance to an ellipse whose back is a little flattened."""
    flat = np.where(v < 0, v * (1.05 + 0.22 * np.exp(-np.square(u / 11))), v)
    k = np.hypot(u / wide, flat / deep)
    slope = np.hypot(u / np.square(wide), flat / np.square(deep))
    return np.asarray(k * (k - 1) / np.maximum(slope, 1e-6), dtype=np.float32)


def _body(anatomy: Anatomy, bone: Bone, name: str, level: float, size: float) -> None:
    scene, habitus = anatomy.scene, anatomy.habitus
    lumbar = np.clip(1 - level / 120, 0, 1)
    wide, deep = size * (17.5 + 5 * lumbar), size * (15 + 1.8 * lumbar)
    half = size * habitus.stature * (10.8 + 2.6 * lumbar)
    y = float(habitus.spine_axis(level))
    box = scene.box((-wide, y - deep, level - half), (wide, y + deep, level + half), rigid=True)
    u, v, w = scene.coordinates(box, rigid=True)
    tilt = np.float32((habitus.spine_axis(level + 1) - habitus.spine_axis(level - 1)) / 2)
    v, w = v - np.float32(y), w - np.float32(level)
    v, w = v - tilt * w, w + tilt * v
    waist = 1 - 0.09 * np.clip(1 - (w / half) ** 2, 0, 1)
    side = _oval(u, v, wide * waist, deep * waist)
    dished = 1.6 * np.clip(1 - (u / wide) ** 2 - (v / deep) ** 2, 0, 1)
    region = Region(box, np.maximum(side, np.abs(w) - half + dished).astype(np.float32))
    bone.paint(region, 1.5, NUMBERS[name])


def _arch(anatomy: Anatomy, bone: Bone, name: str, level: float, size: float) -> None:
    """Pedicles, laminae, spinous and transverse processes, facet joints."""
    scene = anatomy.scene
    lumbar = float(np.clip(1 - level / 60, 0, 1))
    y = float(anatomy.habitus.spine_axis(level))
    spread = 34 + 8 * lumbar

    def tube(points: list[tuple[float, float, float]], radius: float, tall: float = 1.0) -> None:
        path = np.array(points) * size + (0, y, level)
        bone.paint(scene.tube(path, radius, squash=(1, 1, 1 / tall), rigid=True), 1.5, NUMBERS[name], 60)

    tube([(0, -35, -4), (0, -43, -9), (0, -60 - 3 * lumbar, -14)], 3.2, 2.4 + lumbar)
    for side in (1, -1):
        tube([(15 * side, -11, 6), (16 * side, -28, 5)], 4.2, 1.6)
        tube([(16 * side, -28, 3), (8 * side, -35, -3), (0, -38, -6)], 3.4, 2.0)
        tube([(17 * side, -27, 3), (spread * side, -31, 4 - 6 * (1 - lumbar))], 3.6, 1.3)
        tube([(17 * side, -30, 8), (18 * side, -32, -16)], 5.6, 1.0)


def _ribs(anatomy: Anatomy, shell: Shell) -> None:
    habitus, bone = anatomy.habitus, Bone(anatomy)
    half, front, back = habitus.cavity
    rise = anatomy.rng.normal(0, 3)
    for rib, head in _RIB_HEADS.items():
        for side, name in ((1, "right"), (-1, "left")):
            degrees = np.linspace(32, _RIB_ENDS[rib], 9 + 2 * (12 - rib > 1))
            angle = np.deg2rad(degrees)
            along = (degrees - degrees[0]) / (degrees[-1] - degrees[0])
            x, y = _along_wall(angle, side * (half + 4.5), front + 3, back + 2)
            z = (head + rise - 12 - _RIB_FALLS[rib] * along) * habitus.stature
            spine = float(habitus.spine_axis((head + rise) * habitus.stature))
            start = [
                (side * 22, spine - 14, head * habitus.stature + rise),
                (side * 40, spine - 30, z[0] + 7),
            ]
            path, radius = curve(np.vstack([start, np.stack([x, y, z], axis=1)]), 3.6, 12.0)
            region = anatomy.scene.tube(path, radius, squash=(1, 1, 0.58), rigid=True)
            region = region.within(shell.wall[region.box])
            bone.paint(region, 1.4, NUMBERS[f"rib_{name}_{rib}"], -20)
            if rib <= 10:
                _cartilage(anatomy, shell, path[-3:], side)


def _cartilage(anatomy: Anatomy, shell: Shell, end: ArrayLike, side: int) -> None:
    """From the bony end of the rib up and towards the breastbone, along the wall."""
    half, front, _ = anatomy.habitus.cavity
    tip = np.asarray(end)[-1]
    start = np.arctan2(abs(tip[0]) / half, -tip[1] / front)
    angle = np.linspace(start, np.deg2rad(166), 6)[1:]
    x, y = _along_wall(angle, side * (half + 3), front + 3, front + 3)
    z = tip[2] + np.linspace(4, 46, 5) * anatomy.habitus.stature
    path = np.vstack([np.asarray(end), np.stack([x, y, z], axis=1)])
    region = anatomy.scene.tube(path, 4.0, squash=(1, 1, 0.7), rigid=True)
    anatomy.put(region.within(shell.wall[region.box]), "cartilage", "costal_cartilages", fine=10)


def _along_wall(
    angle: NDArray[np.float64], half: float, front: float, back: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points on the trunk's section, by angle from the back."""
    sine, cosine = np.sin(angle), np.cos(angle)
    power = 2 / BODY_POWER
    y = -np.sign(cosine) * np.where(cosine > 0, back, front) * np.abs(cosine) ** power
    return half * np.abs(sine) ** power, y
