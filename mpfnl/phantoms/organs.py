"""Solid organs: kidneys, adrenals, pancreas, spleen, gall bladder, liver with its lesions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label

from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.scene import Anatomy, Region, curve, ellipsoid_distance, rotation, smooth_maximum
from mpfnl.phantoms.texture import Array
from mpfnl.phantoms.vessels import Landmarks, Points, paint_cava

_SLOPE_X, _SLOPE_Y = -0.80, -0.36  # how the underside falls to the right and to the front


@dataclass(frozen=True)
class Underside:
    """The liver's visceral surface z = height + slopes, in the patient's mm."""

    height: float
    slopes: tuple[float, float]
    origin_y: float

    @classmethod
    def draw(cls, anatomy: Anatomy) -> Underside:
        """Draws the surface's height and slant."""
        rng, tall = anatomy.rng, anatomy.habitus.stature
        origin = anatomy.habitus.place((0, 45, 0))
        height = (21 + rng.normal(0, 6)) * tall
        slopes = (_SLOPE_X * rng.uniform(0.85, 1.15), _SLOPE_Y * rng.uniform(0.8, 1.2))
        return cls(float(height), (float(slopes[0]), float(slopes[1])), float(origin[1]))

    def at(self, x: ArrayLike, y: ArrayLike) -> NDArray[np.float64]:
        """Height of the surface in mm; it levels out at the right end of the lobe."""
        right = np.asarray(x, dtype=np.float64)
        run = np.where(right > 60, 60 + 0.75 * (right - 60), np.where(right < 0, 0.6 * right, right))
        return np.asarray(
            self.height + self.slopes[0] * run + self.slopes[1] * (np.asarray(y) - self.origin_y)
        )


def build_kidneys(anatomy: Anatomy) -> None:
    """Both kidneys with cortex, pyramids, sinus and pelvis, in their perirenal fat."""
    size = anatomy.rng.uniform(0.88, 1.1)
    for side, name in ((1, "kidney_right"), (-1, "kidney_left")):
        centre = anatomy.place((side * 62, -12, -16 if side > 0 else -4), 3.0)
        turn = rotation(about_x=-9, about_y=-side * 11, about_z=side * (26 + anatomy.rng.normal(0, 6)))
        _kidney(anatomy, side, name, centre, turn, size * anatomy.rng.uniform(0.95, 1.05))


def _kidney(
    anatomy: Anatomy, side: int, name: str, centre: Points, turn: NDArray[np.float64], size: float
) -> None:
    scene, rng, texture = anatomy.scene, anatomy.rng, anatomy.texture
    radii = size * np.array([27.0, 24.0, 54.0])
    whole = anatomy.roughen(scene.ellipsoid(centre, radii, turn), low=0.8, middle=1.1, rough=0.4)
    box = whole.box
    local = scene.local(box, centre, turn)
    inwards = (local[0] + np.float32(side * 19 * size), local[1] - np.float32(3), local[2])
    sinus = ellipsoid_distance(inwards, size * np.array([19.0, 9.5, 25.0])) + 1.6 * texture.rough[box]
    whole = scene.carve(whole, 0.5)
    parenchyma = Region(box, smooth_maximum(whole.distance, -sinus, 5))
    anatomy.put(parenchyma, "kidney_cortex", name, fine=6, claim=None)
    pyramids = _pyramids(rng, local, radii, side)
    medulla = Region(box, np.maximum(pyramids, parenchyma.distance + np.float32(5.5 * size)))
    scene.paint(medulla, anatomy.textured("kidney_medulla", box, 4))
    cavity = Region(box, np.maximum(sinus, whole.distance + 1))
    anatomy.put(cavity, "fat", "kidney_sinus", fine=10, claim=None)
    pelvis = ellipsoid_distance(inwards, size * np.array([11.0, 5.0, 13.0])) + 1.5 * texture.fine[box]
    scene.paint(Region(box, np.maximum(pelvis, sinus + 2)), anatomy.hu["urine"])
    hilum = centre + turn @ np.array([-side * 24.0 * size, 1, 0])
    for sign in (1, -1):  # the renal vein's branches in the sinus
        at = centre + turn @ (np.array([-side * 8.0, 2.0, sign * 13.0]) * size)
        path, radius = curve(np.stack([hilum, at]), (3.4, 2.0), 5)
        scene.paint(scene.tube(path, radius), anatomy.hu["renal_vein"])
    if rng.random() < 0.25:
        offset = radii * rng.choice([-1, 1], 3) * rng.uniform(0.45, 0.75, 3)
        cyst = scene.ellipsoid(centre + turn @ offset, np.full(3, rng.uniform(4, 13)), None)
        anatomy.put(scene.carve(cyst, 1), "cyst", name, claim=1)
    fat = (1 + 3 * anatomy.habitus.visceral) if side > 0 else (3 + 6 * anatomy.habitus.visceral)
    scene.claim(anatomy.roughen(whole, low=1.5, middle=1.5), fat)


def _pyramids(rng: np.random.Generator, local: tuple[Array, Array, Array], radii: Points, side: int) -> Array:
    """Distance to balls in a shell below the surface; between them the cortex reaches inwards."""
    out = np.full(np.broadcast_shapes(*(c.shape for c in local)), 20, dtype=np.float32)
    size = radii[0] / 27
    for height in (-0.78, -0.5, -0.2, 0.1, 0.4, 0.7):
        for angle in (40, 120, 180, 240, 320):
            a = np.deg2rad(angle + rng.normal(0, 9))
            ring = 0.6 * np.sqrt(1 - height**2)
            at = radii * (-side * ring * np.cos(a), ring * np.sin(a), 0.84 * height + rng.normal(0, 0.03))
            square = sum((c - np.float32(p)) ** 2 for c, p in zip(local, at, strict=True))
            np.minimum(out, np.sqrt(square) - np.float32(size * rng.uniform(6.5, 8.2)), out=out)
    return out


def build_adrenals(anatomy: Anatomy) -> None:
    """Thin limbs above and in front of the upper poles."""
    limbs = (
        ("adrenal_gland_right", [(24, -6, 50), (27, -14, 44), (32, -24, 36)]),
        ("adrenal_gland_left", [(-34, 14, 34), (-38, 2, 32), (-36, -14, 28)]),
        ("adrenal_gland_left", [(-38, 4, 32), (-46, -8, 30)]),
    )
    for name, points in limbs:
        path, radii = curve(anatomy.place(points, 2.0), 2.3, 4.0)
        region = anatomy.scene.tube(path, radii, squash=(1, 1, 0.3))
        anatomy.put(anatomy.scene.carve(region, 0.8), "adrenal", name, claim=0.3)


def build_pancreas(anatomy: Anatomy, landmarks: Landmarks) -> None:
    """A lobulated tube along the splenic vein, with a broad head and an uncinate process."""
    scene, rng = anatomy.scene, anatomy.rng
    size = rng.uniform(0.88, 1.12)
    atrophy = rng.uniform(0, 1)
    line = landmarks.pancreas
    flat = 0.66
    girth = np.array([12.5, 9.0, 9.8, 10.0, 10.6, 10.8, 8.0]) * size * (1 - 0.08 * atrophy)
    path, radii = curve(line, girth, 5.0)
    body = scene.tube(path, radii, squash=(1, 1, flat))
    head_at = anatomy.place((33, 29, -22), 1.5)
    head = scene.ellipsoid(head_at, size * np.array([17.0, 14.5, 30.0]), rotation(about_y=-12))
    hook, hook_radii = curve(
        np.vstack([head_at + np.array([0, -3, -8]), anatomy.place((13, 23, -36), 1.0)]), (9 * size, 6), 4
    )
    uncinate = scene.tube(hook, hook_radii, squash=(1, 1, 0.6))
    # The duodenum hugs the head in some patients; in others a little fat lies between.
    gap = float(rng.choice([0.0, 0.5, 1.5]))
    anchors = np.vstack([line, head_at])
    box = scene.box(anchors.min(0) - 34, anchors.max(0) + 34)
    distance = np.minimum(np.minimum(body.on(box), head.on(box)), uncinate.on(box))
    lobes = (1.3 + 0.6 * atrophy) * anatomy.texture.rough[box] + (1.1 + 0.7 * atrophy) * anatomy.texture.fine[
        box
    ]
    whole = _largest_part(scene.carve(Region(box, distance + lobes.astype(np.float32)), gap))
    clefts = (10 + 45 * atrophy) * np.maximum(anatomy.texture.fine[box] - 0.9, 0)
    mottle = 4 * anatomy.texture.rough[box] - clefts
    scene.paint(whole, [np.float32(h) + mottle for h in anatomy.hu["pancreas"]], NUMBERS["pancreas"])
    duct = scene.tube(path[2:-2], 0.9)
    scene.paint(duct.within(whole.on(duct.box) + 3), anatomy.hu["bile"])
    scene.claim(whole)


def _largest_part(region: Region) -> Region:
    """The region without the islands that carving cut off."""
    parts, count = label(region.distance < 0, np.ones((3, 3, 3)))
    if count < 2:
        return region
    largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    island = (parts > 0) & (parts != largest)
    return Region(region.box, np.where(island, np.float32(4), region.distance))


def build_spleen(anatomy: Anatomy) -> None:
    """A crescent against the left wall; striped in the arterial phase."""
    scene, rng = anatomy.scene, anatomy.rng
    size = rng.uniform(0.82, 1.12)
    centre = anatomy.place((-97, -16, 46), 3.0)
    turn = rotation(about_x=18, about_z=-28 + rng.normal(0, 6))
    whole = scene.ellipsoid(centre, size * np.array([46.0, 66.0, 68.0]), turn)
    hollow = scene.ellipsoid(anatomy.place((-40, 16, 50), 3.0), (32, 38, 70))
    carved = Region(whole.box, smooth_maximum(whole.distance, 3 - hollow.on(whole.box), 12))
    spleen = scene.carve(anatomy.roughen(carved, low=1.2, middle=1.0), 1.6)
    box = spleen.box
    stripes = np.sin(2.6 * anatomy.texture.middle[box] + 1.4 * anatomy.texture.rough[box], dtype=np.float32)
    grain = np.float32(3) * anatomy.texture.fine[box]
    nc, arterial, pv = anatomy.hu["spleen"]
    mottled = (arterial + grain + float(rng.uniform(14, 34)) * stripes).astype(np.float32)
    scene.paint(spleen, [nc + grain, mottled, pv + grain], NUMBERS["spleen"])
    scene.claim(spleen, 1.0)


def build_gallbladder(anatomy: Anatomy, surface: Array) -> None:
    """A pear in the fossa on the liver's underside; `surface` is (z of the underside) at its place."""
    scene, rng = anatomy.scene, anatomy.rng
    fundus = anatomy.place((66, 66, 0), 3.0)
    fundus[2] = float(surface[0]) - 2
    neck = anatomy.place((46, 40, 0), 2.0)
    neck[2] = float(surface[1]) + 6
    size = rng.uniform(0.7, 1.15)
    path, radii = curve(
        np.stack([neck, 0.45 * neck + 0.55 * fundus, fundus]), np.array([5, 12, 14.5]) * size, 4.0
    )
    bladder = scene.carve(scene.tube(path, radii), 0.8)
    anatomy.put(bladder, "gallbladder_wall", "gallbladder", claim=-1.4)
    scene.paint(bladder.shrunk(1.6), anatomy.hu["bile"], NUMBERS["gallbladder"])
    if rng.random() < 0.12:
        stone = scene.ellipsoid(fundus + rng.normal(0, 3, 3) + (0, -5, 0), np.full(3, rng.uniform(3, 6)))
        scene.paint(stone.within(bladder.on(stone.box) + 2), (130.0, 130.0, 130.0))


def build_liver(
    anatomy: Anatomy, underside: Underside, landmarks: Landmarks, lesion_probability: float
) -> Array:
    """Paints the liver into the remaining room; returns its distance field over the grid."""
    scene, texture = anatomy.scene, anatomy.texture
    x, y, z = scene.coordinates(scene.everywhere)
    bulge = 3 * texture.low + 2 * texture.middle
    below = (underside.at(x, y).astype(np.float32) + bulge - z) * np.float32(0.75)
    left_tip = anatomy.place((-68, 40, 70), 8.0)[0]
    distance = smooth_maximum(below, np.float32(left_tip) - x + 2 * texture.middle, 14)
    behind = anatomy.habitus.place((0, 4, 60))[1]
    left_back = np.minimum(np.float32(behind) - y + np.float32(6), 30 + 0 * y) - np.maximum(x + 5, 0)
    distance = smooth_maximum(distance, left_back.astype(np.float32), 10)
    distance = smooth_maximum(distance, _fissure(anatomy, x, y, z), 3)
    room = np.float32(1.4) * scene.planes - scene.room
    liver = Region(scene.everywhere, smooth_maximum(distance, room, 4))
    anatomy.put(liver, "liver", "liver", fine=3.0, rough=2.5, claim=None)
    # The liver embraces the vena cava with no fat between.
    cuff = landmarks.cava.shrunk(-3.0).within(liver.distance[landmarks.cava.box] - 5.0)
    anatomy.put(cuff, "liver", "liver", fine=3.0, rough=2.5, claim=None)
    paint_cava(anatomy, landmarks.cava)
    scene.claim(liver)
    if anatomy.rng.random() < lesion_probability:
        _lesions(anatomy, liver.distance)
    return liver.distance


def _fissure(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """The wedge of fat around the round ligament, between the left lobe's segments."""
    middle = anatomy.place((0, 60, 40), 3.0)
    wide = np.clip((y - np.float32(middle[1]) + 2) / 10, 0, 4) * np.clip(
        (np.float32(middle[2]) + 12 - z) / 20, 0, 1
    )
    inside = wide - np.abs(x - np.float32(middle[0]) + 0.22 * (y - np.float32(middle[1])))
    return np.asarray(np.where(wide > 0.05, inside - 1.0, -9), dtype=np.float32)


def _lesions(anatomy: Anatomy, liver: Array) -> None:
    scene, rng = anatomy.scene, anatomy.rng
    kind = str(rng.choice(["metastasis", "cyst", "hypervascular"]))
    for _ in range(int(rng.integers(1, 4))):
        radius = rng.uniform(4, 15)
        centre = anatomy.place((rng.uniform(20, 95), rng.uniform(-10, 60), rng.uniform(10, 75)))
        lesion = anatomy.roughen(
            scene.ellipsoid(centre, radius * rng.uniform(0.85, 1.15, 3)), middle=0.8, rough=0.6
        )
        lesion = lesion.within(liver[lesion.box] + 2)
        if kind == "metastasis":
            anatomy.put(lesion, "metastasis_rim", "liver_lesion", claim=None)
            anatomy.put(lesion.shrunk(0.22 * radius), "metastasis", "liver_lesion", fine=4, claim=None)
        else:
            anatomy.put(lesion, kind, "liver_lesion", fine=2 if kind == "cyst" else 5, claim=None)


def gallbladder_fossa(anatomy: Anatomy, underside: Underside) -> Array:
    """Height of the underside in mm where the gall bladder's fundus and neck lie."""
    spots = anatomy.habitus.place([(66, 66, 0), (46, 40, 0)])
    return np.asarray(underside.at(spots[:, 0], spots[:, 1]), dtype=np.float32)
