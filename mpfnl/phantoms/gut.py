"""Hollow organs: oesophagus, stomach, duodenum, colon, small bowel and its mesentery."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpfnl.phantoms.organs import Underside
from mpfnl.phantoms.scene import Anatomy, Region, curve
from mpfnl.phantoms.texture import Array


def build_oesophagus(anatomy: Anatomy) -> None:
    """Beside the thoracic aorta, down to the cardia."""
    tube = anatomy.vessel([(-6, 22, 165), (-7, 20, 120), (-14, 26, 95), (-34, 24, 80)], (8, 8, 8, 9))
    anatomy.put(tube, "oesophagus", "esophagus", fine=5)


def build_stomach(anatomy: Anatomy) -> None:
    """Fundus under the left dome, body in front, antrum across the midline to the pylorus."""
    scene, rng = anatomy.scene, anatomy.rng
    full = rng.uniform(0.68, 1.05)
    points = [
        (-60, -4, 88),
        (-68, 20, 64),
        (-62, 46, 28),
        (-38, 66, -2),
        (-4, 66, -14),
        (24, 54, -4),
        (37, 44, 3),
    ]
    radii = np.array([32.0, 34, 28, 23, 18, 12, 7.5]) * np.array([full] * 5 + [0.5 + 0.5 * full, 1])
    path, radius = curve(anatomy.place(points, 3.0), radii, 7.0)
    stomach = scene.carve(anatomy.roughen(scene.tube(path, radius), low=2, middle=2.2), 2.0)
    folds = 1.4 * np.maximum(anatomy.texture.rough[stomach.box], 0) * (1.3 - full) * 3
    wall = 3.2 + 2.5 * (1.05 - full)
    lumen = Region(stomach.box, stomach.distance + wall + folds.astype(np.float32))
    anatomy.put(stomach, "stomach_wall", "stomach", fine=6)
    _content(anatomy, lumen, str(rng.choice(["fluid", "chyme"])))
    _gas(anatomy, lumen, float(anatomy.habitus.place((0, rng.uniform(38, 76), 30))[1]))


def build_duodenum(anatomy: Anatomy) -> None:
    """The C around the pancreatic head, then across under the mesenteric root to the jejunum."""
    points = [
        (38, 44, 3), (49, 38, 6), (57, 29, -9), (59, 25, -32), (54, 23, -56),
        (36, 24, -69), (8, 26, -72), (-18, 27, -65), (-32, 33, -44), (-38, 42, -30),
    ]  # fmt: skip
    radii = np.array([8, 10, 11, 11, 11, 10, 7.5, 9, 10, 10.5]) * anatomy.rng.uniform(0.85, 1.12)
    path, radius = curve(anatomy.place(points, 1.5), radii, 5.0)
    duodenum = anatomy.scene.carve(
        anatomy.roughen(anatomy.scene.tube(path, radius), middle=0.6, rough=1.0), 0.8
    )
    anatomy.put(duodenum, "bowel_wall", "duodenum", fine=8)
    lumen = anatomy.roughen(duodenum.shrunk(3.2), rough=0.8)
    _content(anatomy, lumen, "fluid")
    _gas_pockets(anatomy, lumen, path, radius, 0.08)


def build_colon(anatomy: Anatomy, underside: Underside) -> None:
    """Ascending, hepatic flexure below the liver, transverse in front, descending."""
    rng = anatomy.rng
    flexure = anatomy.place((92, 20, 0), 2.0)
    tall = anatomy.habitus.stature
    level = float(np.clip(underside.at(flexure[0], flexure[1]) / tall - 16, -100, -46))
    sag = rng.uniform(-72, -44)
    points = [
        (102, -8, -150), (104, -8, -112), (101, 4, level - 14), (88, 36, level),
        (58, 68, min(level + 4, sag + 6)), (16, 78, sag), (-30, 78, sag + 6), (-70, 60, sag + 30),
        (-96, 26, -6), (-106, 2, 12), (-108, -16, -16), (-108, -18, -70), (-104, -10, -112), (-100, -4, -150),
    ]  # fmt: skip
    size = rng.uniform(0.85, 1.15)
    radii = np.array([24, 23, 22, 20, 18, 18, 17, 16, 16, 15, 14, 13, 13, 13]) * size
    path, radius = curve(anatomy.place(points, 3.0), radii, 7.0)
    radius = radius * (1 + 0.16 * np.sin(np.arange(len(path)) * 7.0 / 26 * 2 * np.pi))  # haustra
    colon = anatomy.scene.carve(anatomy.roughen(anatomy.scene.tube(path, radius), middle=1.5, rough=1.8), 1.4)
    anatomy.put(colon, "bowel_wall", "colon", fine=6)
    lumen = colon.shrunk(2.2)
    anatomy.scene.paint(lumen, _stool(anatomy, lumen))
    _gas_pockets(anatomy, lumen, path, radius, float(rng.uniform(0.25, 0.75)))


def build_small_bowel(anatomy: Anatomy) -> None:
    """Jejunal loops on the left, ileal loops in the middle and on the right, in a vascular mesentery."""
    rng = anatomy.rng
    root = anatomy.place([(0, 40, -28), (2, 42, -60), (4, 44, -95)])
    for loop in range(26):
        left = loop % 3 != 2
        centre = np.array([rng.uniform(-88, -8) if left else rng.uniform(0, 78), rng.uniform(26, 74), -150.0])
        centre[2] = rng.uniform(-140, -16 if left else -60)
        reach = np.array([26.0, 13, 17])
        steps = np.array([(-1, 0, -0.6), (-0.4, 0.9, 0.3), (0.4, -0.9, 0.4), (1, 0.3, -0.3), (0.9, 0.4, 1)])
        points = centre + steps * reach * rng.choice([-1, 1], 3) + rng.normal(0, 6, (5, 3))
        path, radius = curve(anatomy.place(points), rng.uniform(9, 14.5, 5), 6.0)
        tube = anatomy.roughen(anatomy.scene.tube(path, radius), middle=0.8, rough=1.2)
        bowel = anatomy.scene.carve(tube, 1.3)
        anatomy.put(bowel, "bowel_wall", "small_bowel", fine=10)
        collapsed = float(rng.uniform(2.4, 7.0)) if left else float(rng.uniform(1.8, 4.0))
        feathery = anatomy.roughen(bowel.shrunk(collapsed), rough=1.2 if left else 0.3)
        _content(anatomy, feathery, str(rng.choice(["fluid", "chyme"])))
        _gas_pockets(anatomy, feathery, path, radius, 0.08)
        _mesentery(anatomy, root[loop % 3], anatomy.place(centre))


def _mesentery(anatomy: Anatomy, root: ArrayLike, loop: ArrayLike) -> None:
    """Small arteries and veins that fan out in the fat."""
    rng = anatomy.rng
    start, end = np.asarray(root), np.asarray(loop)
    for tissue, radius in (("portal_vein_and_splenic_vein", 1.7), ("aorta", 1.1)):
        for _ in range(2):
            tip = end + rng.normal(0, 16, 3) * (1, 0.6, 1)
            middle = 0.5 * (start + tip) + rng.normal(0, 5, 3)
            path, radii = curve(np.stack([start, middle, tip]), (1.6 * radius, radius, 0.6 * radius), 9.0)
            anatomy.put(anatomy.scene.carve(anatomy.scene.tube(path, radii), 0.2), tissue, claim=None)


def _content(anatomy: Anatomy, lumen: Region, content: str) -> None:
    grain = 3.0 if content == "fluid" else 9.0
    anatomy.put(lumen, content, fine=grain, rough=grain / 2, claim=None)


def _gas(anatomy: Anatomy, lumen: Region, level: float) -> None:
    """Gas rises to the front, as the patient lies on the back: the fluid's level is a plane of constant y."""
    y = anatomy.scene.coordinates(lumen.box, rigid=True)[1]
    gas = Region(lumen.box, np.maximum(lumen.distance, np.float32(level) - y))
    anatomy.scene.paint(gas, (-960.0, -960.0, -960.0))


def _gas_pockets(
    anatomy: Anatomy, lumen: Region, path: NDArray[np.float64], radius: NDArray[np.float64], share: float
) -> None:
    """Bubbles along a tube: about `share` of its length holds gas, each piece with its own level."""
    for i in range(1, len(path) - 1, 4):
        chance, fullness = anatomy.rng.random(), anatomy.rng.uniform(-0.6, 0.5)
        if chance < share:
            around = anatomy.scene.ellipsoid(path[i], np.full(3, 2.0 * radius[i]))
            pocket = around.within(lumen.on(around.box))
            _gas(anatomy, pocket, float(path[i, 1] + fullness * radius[i]))


def _stool(anatomy: Anatomy, lumen: Region) -> list[Array]:
    bubbles = 420 * np.clip(anatomy.texture.fine[lumen.box] - 0.7, 0, 1.6)
    mottle = 22 * anatomy.texture.rough[lumen.box] - bubbles
    return [np.asarray(h + mottle, dtype=np.float32) for h in anatomy.hu["stool"]]
