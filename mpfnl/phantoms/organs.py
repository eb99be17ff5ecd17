"""Solid organs: liver, gall bladder, spleen, kidneys, adrenals, pancreas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from mpfnl.phantoms.fields import Array
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.scene import Region, curve, ellipsoid_distance, rotation, smooth_maximum
from mpfnl.phantoms.stage import Stage
from mpfnl.phantoms.vessels import Points, Roads


def build_kidneys(stage: Stage) -> None:
    """Both kidneys with cortex, pyramids, sinus and pelvis, in their perirenal fat."""
    size = stage.rng.uniform(0.88, 1.1)
    for side, name in ((1, "kidney_right"), (-1, "kidney_left")):
        centre = stage.place((side * 62, -12, -16 if side > 0 else -4), 3.0)
        turn = rotation(about_x=-9, about_y=-side * 11, about_z=side * (26 + stage.rng.normal(0, 6)))
        _kidney(stage, side, name, centre, turn, size * stage.rng.uniform(0.95, 1.05))


def _kidney(
    stage: Stage, side: int, name: str, centre: Points, turn: NDArray[np.float64], size: float
) -> None:
    scene, rng, texture = stage.scene, stage.rng, stage.texture
    radii = size * np.array([27.0, 24.0, 54.0])
    whole = stage.roughen(scene.ellipsoid(centre, radii, turn), low=0.8, middle=1.1, rough=0.4)
    box = whole.box
    local = scene.local(box, centre, turn)
    inwards = (local[0] + np.float32(side * 19 * size), local[1] - np.float32(3), local[2])
    sinus = ellipsoid_distance(inwards, size * np.array([19.0, 9.5, 25.0])) + 1.6 * texture.rough[box]
    whole = scene.carve(whole, 0.5)
    parenchyma = Region(box, smooth_maximum(whole.distance, -sinus, 5))
    stage.put(parenchyma, "kidney_cortex", name, fine=6, claim=None)
    pyramids = _pyramids(rng, local, radii, side)
    medulla = Region(box, np.maximum(pyramids, parenchyma.distance + np.float32(5.5 * size)))
    scene.paint(medulla, stage.textured("kidney_medulla", box, 4))
    cavity = Region(box, np.maximum(sinus, whole.distance + 1))
    stage.put(cavity, "fat", "kidney_sinus", fine=10, claim=None)
    pelvis = ellipsoid_distance(inwards, size * np.array([11.0, 5.0, 13.0])) + 1.5 * texture.fine[box]
    scene.paint(Region(box, np.maximum(pelvis, sinus + 2)), stage.hu["urine"])
    hilum = centre + turn @ np.array([-side * 24.0 * size, 1, 0])
    for sign in (1, -1):  # the renal vein's branches in the sinus
        at = centre + turn @ (np.array([-side * 8.0, 2.0, sign * 13.0]) * size)
        path, radius = curve(np.stack([hilum, at]), (3.4, 2.0), 5)
        scene.paint(scene.tube(path, radius), stage.hu["renal_vein"])
    if rng.random() < 0.25:
        offset = radii * rng.choice([-1, 1], 3) * rng.uniform(0.45, 0.75, 3)
        cyst = scene.ellipsoid(centre + turn @ offset, np.full(3, rng.uniform(4, 13)), None)
        stage.put(scene.carve(cyst, 1), "cyst", name, claim=1)
    fat = (1 + 3 * stage.habitus.visceral) if side > 0 else (3 + 6 * stage.habitus.visceral)
    scene.claim(stage.roughen(whole, low=1.5, middle=1.5), fat)


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


def build_adrenals(stage: Stage) -> None:
    """Thin limbs above and in front of the upper poles."""
    limbs = (
        ("adrenal_gland_right", [(24, -6, 50), (27, -14, 44), (32, -24, 36)]),
        ("adrenal_gland_left", [(-34, 14, 34), (-38, 2, 32), (-36, -14, 28)]),
        ("adrenal_gland_left", [(-38, 4, 32), (-46, -8, 30)]),
    )
    for name, points in limbs:
        path, radii = curve(stage.place(points, 2.0), 2.3, 4.0)
        region = stage.scene.tube(path, radii, squash=(1, 1, 0.3))
        stage.put(stage.scene.carve(region, 0.8), "adrenal", name, claim=0.3)


def build_pancreas(stage: Stage, roads: Roads) -> None:
    """A lobulated tube along the splenic vein, with a broad head and an uncinate process."""
    scene, rng = stage.scene, stage.rng
    size = rng.uniform(0.88, 1.12)
    atrophy = rng.uniform(0, 1)
    line = roads.pancreas
    flat = 0.66
    girth = np.array([12.5, 9.0, 9.8, 10.0, 10.6, 10.8, 8.0]) * size * (1 - 0.08 * atrophy)
    path, radii = curve(line, girth, 5.0)
    body = scene.tube(path, radii, squash=(1, 1, flat))
    head_at = stage.place((33, 29, -22), 1.5)
    head = scene.ellipsoid(head_at, size * np.array([17.0, 14.5, 30.0]), rotation(about_y=-12))
    hook, hook_radii = curve(
        np.vstack([head_at + np.array([0, -3, -8]), stage.place((13, 23, -36), 1.0)]), (9 * size, 6), 4
    )
    uncinate = scene.tube(hook, hook_radii, squash=(1, 1, 0.6))
    # The duodenum hugs the head in some patients; in others a little fat lies between.
    gap = float(rng.choice([0.0, 0.5, 1.5]))
    anchors = np.vstack([line, head_at])
    box = scene.box(anchors.min(0) - 34, anchors.max(0) + 34)
    distance = np.minimum(np.minimum(body.on(box), head.on(box)), uncinate.on(box))
    lobes = (1.3 + 0.6 * atrophy) * stage.texture.rough[box] + (1.1 + 0.7 * atrophy) * stage.texture.fine[box]
    whole = _largest_part(scene.carve(Region(box, distance + lobes.astype(np.float32)), gap))
    clefts = (10 + 45 * atrophy) * np.maximum(stage.texture.fine[box] - 0.9, 0)
    texture = 4 * stage.texture.rough[box] - clefts
    scene.paint(whole, [np.float32(h) + texture for h in stage.hu["pancreas"]], NUMBERS["pancreas"])
    duct = scene.tube(path[2:-2], 0.9)
    scene.paint(duct.within(whole.on(duct.box) + 3), stage.hu["bile"])
    scene.claim(whole)


def _largest_part(region: Region) -> Region:
    """The region without the islands that carving cut off."""
    parts, count = label(region.distance < 0, np.ones((3, 3, 3)))
    if count < 2:
        return region
    largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    island = (parts > 0) & (parts != largest)
    return Region(region.box, np.where(island, np.float32(4), region.distance))


def build_spleen(stage: Stage) -> None:
    """A crescent against the left wall; striped in the arterial phase."""
    scene, rng = stage.scene, stage.rng
    size = rng.uniform(0.82, 1.12)
    centre = stage.place((-97, -16, 46), 3.0)
    turn = rotation(about_x=18, about_z=-28 + rng.normal(0, 6))
    whole = scene.ellipsoid(centre, size * np.array([46.0, 66.0, 68.0]), turn)
    hollow = scene.ellipsoid(stage.place((-40, 16, 50), 3.0), (32, 38, 70))
    carved = Region(whole.box, smooth_maximum(whole.distance, 3 - hollow.on(whole.box), 12))
    spleen = scene.carve(stage.roughen(carved, low=1.2, middle=1.0), 1.6)
    box = spleen.box
    stripes = np.sin(2.6 * stage.texture.middle[box] + 1.4 * stage.texture.rough[box], dtype=np.float32)
    grain = np.float32(3) * stage.texture.fine[box]
    nc, arterial, pv = stage.hu["spleen"]
    mottled = (arterial + grain + float(rng.uniform(14, 34)) * stripes).astype(np.float32)
    scene.paint(spleen, [nc + grain, mottled, pv + grain], NUMBERS["spleen"])
    scene.claim(spleen, 1.0)


def build_gallbladder(stage: Stage, surface: Array) -> None:
    """A pear in the fossa on the liver's underside; `surface` is (z of the underside) at its place."""
    scene, rng = stage.scene, stage.rng
    fundus = stage.place((66, 66, 0), 3.0)
    fundus[2] = float(surface[0]) - 2
    neck = stage.place((46, 40, 0), 2.0)
    neck[2] = float(surface[1]) + 6
    size = rng.uniform(0.7, 1.15)
    path, radii = curve(
        np.stack([neck, 0.45 * neck + 0.55 * fundus, fundus]), np.array([5, 12, 14.5]) * size, 4.0
    )
    bladder = scene.carve(scene.tube(path, radii), 0.8)
    stage.put(bladder, "gallbladder_wall", "gallbladder", claim=-1.4)
    scene.paint(bladder.shrunk(1.6), stage.hu["bile"], NUMBERS["gallbladder"])
    if rng.random() < 0.12:
        stone = scene.ellipsoid(fundus + rng.normal(0, 3, 3) + (0, -5, 0), np.full(3, rng.uniform(3, 6)))
        scene.paint(stone.within(bladder.on(stone.box) + 2), (130.0, 130.0, 130.0))
