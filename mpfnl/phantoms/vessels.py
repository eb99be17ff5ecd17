"""Great vessels, the portal system, and the vessels inside the liver."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.scene import Anatomy, Hu, Region, curve
from mpfnl.phantoms.texture import Array

Points = NDArray[np.float64]

_PANCREAS_LINE = np.array(
    [(28, 30, -6), (12, 45, 0), (-8, 50, 6), (-30, 43, 11), (-52, 28, 17), (-72, 11, 23), (-86, 0, 29)],
    dtype=np.float64,
)
"""Head, neck, body and tail of the atlas's pancreas."""


@dataclass(frozen=True)
class Landmarks:
    """Lines in the patient (n, 3), in mm, that organs follow.

    Args:
        pancreas: Centre line from the head to the tail.
        hilum: Entry of the portal vein into the liver.
        cava_top: Confluence of the hepatic veins with the vena cava.
        cava: Vena cava, enclosed by the liver.
    """

    pancreas: Points
    hilum: Points
    cava_top: Points
    cava: Region


def build_great_vessels(anatomy: Anatomy) -> Landmarks:
    """Paints aorta, vena cava, their visceral branches and the portal system."""
    rng = anatomy.rng
    # A pancreas lies steeply in one patient and flat in another; its vein goes with it.
    line = _PANCREAS_LINE.copy()
    beyond = np.clip((12 - line[:, 0]) / 98, 0, 1)
    line[:, 2] += rng.normal(0, 11) * beyond + rng.normal(0, 3)
    line[:, 1] += rng.normal(0, 3) * np.sin(np.pi * beyond) + rng.normal(0, 1.5)
    line[:, 0] *= 1 + rng.normal(0, 0.05)
    pancreas = anatomy.place(line, 1.5)
    cava = _cava(anatomy)
    _aorta(anatomy)
    hilum = anatomy.place((44, 24, 38), 3.0)
    _portal(anatomy, pancreas, hilum)
    _arteries(anatomy, pancreas, hilum)
    _renal(anatomy)
    return Landmarks(pancreas, hilum, anatomy.place((24, 16, 84), 2.0), cava)


def _aorta(anatomy: Anatomy) -> None:
    rng = anatomy.rng
    size, sway = rng.uniform(0.85, 1.2), rng.normal(0, 3)
    points = [
        (-17, 3, 165),
        (-15, 3, 110),
        (-9, 8, 65),
        (-6, 11, 20),
        (-6 + sway, 11, -30),
        (-5 + sway, 11, -92),
    ]
    aorta = anatomy.vessel(points, np.array([12, 11.5, 11, 10, 9, 8.2]) * size, 1.0)
    anatomy.put(aorta, "aorta", "aorta")
    for side in (1, -1):
        iliac = anatomy.vessel(
            [(-5 + sway, 11, -88), (side * 14 - 3, 10, -110), (side * 34, 4, -150)], 5.2, 1.0
        )
        anatomy.put(iliac, "aorta")
    if rng.random() < 0.45:  # calcified plaques in the wall
        patch = 2.5 - 1.7 * anatomy.texture.rough[aorta.box] - rng.uniform(0, 0.8)
        plaque = Region(aorta.box, np.maximum(np.abs(aorta.distance) - 0.9, patch.astype(np.float32)))
        anatomy.scene.paint(plaque, anatomy.hu["cortical_bone"])


def _cava(anatomy: Anatomy) -> Region:
    size, flat = anatomy.rng.uniform(0.85, 1.15), anatomy.rng.uniform(0.8, 1.0)
    points = [
        (19, 9, -150),
        (20, 10, -92),
        (20, 10, -40),
        (21, 9, 5),
        (24, 12, 45),
        (25, 15, 84),
        (20, 26, 130),
    ]
    path, radii = curve(anatomy.place(points, 1.5), np.array([9, 9.5, 10, 10.5, 11, 12, 12.5]) * size, 6.0)
    region = anatomy.scene.tube(path, radii, squash=(flat, 1, 1))
    paint_cava(anatomy, region)
    anatomy.scene.claim(region, 0.5)
    return region


def paint_cava(anatomy: Anatomy, region: Region) -> None:
    """Paints the vena cava: unmixed blood from the legs, enhanced blood from the kidneys upwards."""
    z = anatomy.scene.coordinates(region.box)[2]
    mixed = 1 / (1 + np.exp(-(z + 12) / 7))  # renal veins bring enhanced blood from L1-L2 upwards
    low, high = anatomy.hu["cava_infrarenal"], anatomy.hu["cava_suprarenal"]
    swirl = 1 + 0.18 * anatomy.texture.middle[region.box] * mixed * (1 - mixed) * 4
    hu: Hu = [
        np.asarray(a + (b - a) * mixed * swirl, dtype=np.float32) for a, b in zip(low, high, strict=True)
    ]
    anatomy.scene.paint(region, hu, NUMBERS["inferior_vena_cava"])


def _portal(anatomy: Anatomy, pancreas: Points, hilum: Points) -> None:
    """Splenic vein behind the pancreas, mesenteric vein from below, portal vein to the hilum."""
    rng = anatomy.rng
    size = rng.uniform(0.85, 1.15)
    confluence = pancreas[1] + np.array([1.0, -15.0, -3.0])
    behind = pancreas[2:] + np.array([0.0, -11.5, 3.0]) + rng.normal(0, 0.8, (len(pancreas) - 2, 3))
    tip = pancreas[-1] + np.array([-13.0, -10.0, 6.0])
    splenic = np.vstack([tip, behind[::-1], confluence])
    path, radii = curve(splenic, np.linspace(3.6, 5.0, len(splenic)) * size, 5.0)
    pieces = [anatomy.scene.tube(path, radii)]
    stem = anatomy.place([(11, 36, -38), (12, 42, -72), (8, 46, -118), (6, 44, -150)], 2.0)
    path, radii = curve(np.vstack([confluence, stem]), np.array([6.3, 5.8, 5.0, 4.2, 3.8]) * size, 5.0)
    mesenteric = anatomy.scene.tube(path, radii)
    middle = 0.5 * (confluence + hilum) + np.array([-1.0, -2.0, 1.0])
    path, radii = curve(np.vstack([confluence, middle, hilum]), np.array([6.6, 7.0, 6.5]) * size, 5.0)
    pieces.append(anatomy.scene.tube(path, radii))
    anatomy.put(mesenteric, "portal_vein_and_splenic_vein", "portal_vein_and_splenic_vein")
    for piece in pieces:
        anatomy.put(piece, "portal_vein_and_splenic_vein", "portal_vein_and_splenic_vein")


def _arteries(anatomy: Anatomy, pancreas: Points, hilum: Points) -> None:
    rng = anatomy.rng
    mesenteric = anatomy.vessel(
        [(-6, 14, 4), (-6, 27, -1), (-6, 33, -22), (-4, 36, -60), (0, 40, -105), (0, 42, -150)],
        np.array([4.0, 3.9, 3.8, 3.5, 3.0, 2.5]),
        1.0,
    )
    anatomy.put(mesenteric, "aorta", "superior_mesenteric_artery", claim=2.5)
    trunk = anatomy.place([(-7, 14, 21), (-6, 26, 25), (-5, 33, 24)], 0.8)
    path, radii = curve(trunk, 3.6, 4.0)
    anatomy.put(anatomy.scene.tube(path, radii), "aorta", "coeliac_artery", claim=1.0)
    right = anatomy.place([(8, 42, 20), (24, 42, 17)], 2.0)
    path, radii = curve(
        np.vstack([trunk[-1], right, hilum + np.array([-8.0, 8, -6])]), (3.0, 2.6, 2.4, 2.0), 4.0
    )
    anatomy.put(anatomy.scene.tube(path, radii), "aorta", "coeliac_artery", claim=0.5)
    # The splenic artery winds along the upper border of the pancreas.
    above = pancreas[2:] + np.array([0.0, -5.0, 13.0])
    wind = np.stack(
        [rng.normal(0, 2, len(above)), rng.normal(0, 3, len(above)), rng.normal(0, 4, len(above))], 1
    )
    path, radii = curve(np.vstack([trunk[-1], above + wind]), 2.5, 4.0)
    anatomy.put(anatomy.scene.tube(path, radii), "aorta", "coeliac_artery", claim=0.5)


def _renal(anatomy: Anatomy) -> None:
    left_vein = anatomy.vessel(
        [(16, 16, -14), (0, 25, -12), (-14, 22, -10), (-40, -2, -8)], (4.6, 3.2, 4.6, 4.2)
    )
    right_vein = anatomy.vessel([(22, 10, -18), (34, 0, -20), (44, -6, -20)], 4.4)
    for vein in (left_vein, right_vein):
        anatomy.put(anatomy.scene.carve(vein, 0.0), "renal_vein", claim=0.5)
    for points in (
        [(-8, 11, -14), (-22, 6, -12), (-44, -7, -8)],
        [(-4, 9, -16), (22, -2, -18), (46, -10, -20)],
    ):
        anatomy.put(anatomy.scene.carve(anatomy.vessel(points, 2.4), 0.0), "aorta", claim=0.5)


def build_liver_vessels(anatomy: Anatomy, landmarks: Landmarks, liver: Array) -> None:
    """Branching portal and hepatic veins, confined to the liver's distance field."""
    targets = anatomy.place([(88, 22, 55), (84, -8, 15), (72, 50, 30), (-8, 58, 46), (20, 62, 62)], 7.0)
    left_turn = anatomy.place((8, 48, 44), 3.0)
    for index, target in enumerate(targets):
        start = landmarks.hilum if index < 3 else left_turn
        _tree(anatomy, liver, "portal_vein_and_splenic_vein", start, target, 5.8 if index < 3 else 4.8, 2)
    path, radii = curve(np.vstack([landmarks.hilum, left_turn]), 5.0, 5.0)
    _inside(anatomy, anatomy.scene.tube(path, radii), liver, "portal_vein_and_splenic_vein")
    ends = anatomy.place([(98, 10, 28), (60, 62, 26), (-28, 56, 56), (70, -22, 40)], 7.0)
    for end, radius in zip(ends, (6.0, 5.6, 5.0, 3.6), strict=True):
        _tree(anatomy, liver, "hepatic_vein", landmarks.cava_top, end, radius, 2)


def _tree(
    anatomy: Anatomy, liver: Array, tissue: str, start: Points, end: Points, radius: float, depth: int
) -> None:
    """A bent branch with side branches that leave it at an acute angle, each thinner."""
    rng = anatomy.rng
    run = end - start
    length = float(np.linalg.norm(run))
    bent = start + 0.5 * run + rng.normal(0, 0.08 * length, 3)
    path, radii = curve(np.stack([start, bent, end]), (radius, 0.8 * radius, 0.55 * radius), 6.0)
    _inside(anatomy, anatomy.scene.tube(path, radii), liver, tissue)
    if depth == 0 or length < 12:
        return
    for share in (0.3, 0.55, 0.8):
        at = int(share * (len(path) - 1))
        aside = np.cross(run / length, rng.normal(0, 1, 3))
        aside /= max(float(np.linalg.norm(aside)), 1e-6)
        reach = length * rng.uniform(0.35, 0.6)
        tip = path[at] + reach * (0.75 * run / length + 0.66 * aside)
        _tree(anatomy, liver, tissue, path[at], tip, 0.6 * float(radii[at]) + 0.4, depth - 1)


def _inside(anatomy: Anatomy, region: Region, liver: Array, tissue: str) -> None:
    inside = region.within(liver[region.box] + np.float32(2.5))
    anatomy.scene.paint(inside, anatomy.hu[tissue])
