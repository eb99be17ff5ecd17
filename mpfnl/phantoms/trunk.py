"""The trunk's shell: skin, subcutaneous fat, wall muscle, cavity, diaphragm, lung bases, heart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.scene import Anatomy, Region, smooth_maximum
from mpfnl.phantoms.texture import Array


@dataclass(frozen=True)
class Shell:
    """Signed distances in mm that later parts lean on, over the whole grid.

    Args:
        body: To the skin.
        wall: To the outer surface of the wall muscle.
        cavity: To the inner surface of the wall.
        diaphragm: To the diaphragm's underside; negative below it.
    """

    body: Array
    wall: Array
    cavity: Array
    diaphragm: Array


def build_shell(anatomy: Anatomy) -> Shell:
    """Paints skin, fat, wall, lungs and heart, and opens the cavity for organs."""
    scene, habitus, texture = anatomy.scene, anatomy.habitus, anatomy.texture
    x, y, z = scene.coordinates(scene.everywhere, rigid=True)
    body = habitus.body_distance(x, y, z) + 1.5 * texture.low
    wall = body + _fat_thickness(anatomy, x, y, z) * (1 + 0.12 * texture.low)
    cavity = wall + _wall_thickness(anatomy, x, y, z) + 0.8 * texture.middle
    cavity = smooth_maximum(cavity, _gutter(anatomy, x, y, z), 14)
    diaphragm = _diaphragm(anatomy, x, y, z)
    shell = Shell(*(np.asarray(d, dtype=np.float32) for d in (body, wall, cavity, diaphragm)))

    everywhere = scene.everywhere
    skin = Region(everywhere, shell.body)
    fat = np.float32(6) * np.maximum(texture.rough, 0) * np.maximum(texture.fine, 0)
    scene.paint(skin, anatomy.hu["skin"])
    scene.paint(skin.shrunk(1.8), [h + fat + 2.5 * texture.rough for h in anatomy.hu["fat"]])
    muscle = Region(everywhere, np.maximum(shell.wall, -shell.cavity))
    scene.paint(muscle, _layered_muscle(anatomy, shell, y, z))
    strands = 16 * np.maximum(texture.fine - 0.6, 0) + 4 * texture.rough
    scene.paint(Region(everywhere, shell.cavity), [h + strands for h in anatomy.hu["fat"]])
    _lungs_and_heart(anatomy, shell)
    np.minimum(scene.room, -np.maximum(shell.cavity, shell.diaphragm), out=scene.room)
    return shell


def _fat_thickness(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    lateral, front, back = anatomy.habitus.fat
    u, v = (x / anatomy.habitus.width) ** 2, (y / anatomy.habitus.depth) ** 2
    sideways = u / np.maximum(u + v, 1e-6)
    loin = np.where(y < 0, 1.5 * sideways * (1 - sideways), 0)  # fat gathers behind the flanks
    belly = 1.0 - 0.3 / (1 + np.exp(-(z - 25) / 20))  # and is thinner over the ribs
    around = lateral * sideways + np.where(y > 0, front, back) * (1 - sideways)
    return np.asarray(around * belly * (0.88 + loin), dtype=np.float32)


def _wall_thickness(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Flank muscles at the side, the rectus in front with a thin linea alba, the back muscles behind."""
    u, v = (x / anatomy.habitus.width) ** 2, (y / anatomy.habitus.depth) ** 2
    sideways = u / np.maximum(u + v, 1e-6)
    rectus = 3.5 + 6 * np.exp(-(((np.abs(x) - 36) / 20) ** 2))
    front = np.where(y > 0, rectus, 14.0)
    flank = anatomy.habitus.wall * (1.12 - 0.22 / (1 + np.exp(-(z - 10) / 15)))
    return np.asarray(flank * sideways + front * (1 - sideways), dtype=np.float32)


def _gutter(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Keeps the cavity in front of the back muscles; beside them it reaches further back."""
    aside = np.maximum(np.abs(x) - 22, 0)
    line = anatomy.habitus.spine_axis(z).astype(np.float32) - 20 - 0.75 * aside
    return np.asarray((line - y) * 0.8, dtype=np.float32)


def _layered_muscle(anatomy: Anatomy, shell: Shell, y: Array, z: Array) -> list[Array]:
    """Wall muscle with the fat planes between its layers, and looser tissue between the ribs."""
    texture = anatomy.texture
    share = -shell.wall / np.maximum(shell.cavity - shell.wall, 1)
    planes = np.exp(-(((share - 0.36) / 0.07) ** 2)) + np.exp(-(((share - 0.7) / 0.06) ** 2))
    chest = 1 / (1 + np.exp(-(z - 15) / 12))
    ahead = np.clip((y + 25) / 30, 0, 1)  # over the front ribs little muscle is left
    outer = chest * ahead * np.clip((0.62 - share) / 0.12, 0, 1)
    loose = (75 + 15 * texture.middle) * planes + 22 * chest * np.maximum(texture.rough, 0) + 130 * outer
    front = np.clip((y - anatomy.habitus.spine_y + 40) / 20, 0.15, 1)  # the back muscles have no such layers
    loose = np.minimum(loose, 150) * front
    grain = 5 * texture.fine - np.maximum(loose, 0)
    return [np.asarray(h + grain, dtype=np.float32) for h in anatomy.hu["muscle"]]


def _diaphragm(anatomy: Anatomy, x: Array, y: Array, z: Array) -> Array:
    """Two domes that fall steeply towards the wall; a recess of lung reaches far down behind."""
    half, front, back = anatomy.habitus.cavity
    u, v = x / half, np.where(y > 0, y / front, y / back)
    k2 = u * u + v * v
    ahead = np.where(y > 0, v * v, 0) / np.maximum(k2, 1e-6)
    behind = np.where(y > 0, 0, v * v) / np.maximum(k2, 1e-6)
    drop = 30 * ahead + 78 * behind + 58 * (1 - ahead - behind)
    top = 101 + 7 * np.tanh(x / 45) - 6 * np.exp(-((x / 24) ** 2)) + anatomy.rng.normal(0, 4)
    surface = (top - drop * np.minimum(k2, 1.3) ** 1.7) * anatomy.habitus.stature
    step = [float(a[1] - a[0]) for a in anatomy.scene.axes]
    gx, gy = np.gradient(surface[:, :, 0], step[0], step[1])
    steep = np.sqrt(1 + np.minimum(gx**2 + gy**2, 9))[:, :, None]
    return np.asarray((z - surface + 1.5 * anatomy.texture.middle) / steep, dtype=np.float32)


def _lungs_and_heart(anatomy: Anatomy, shell: Shell) -> None:
    scene, texture = anatomy.scene, anatomy.texture
    x, y, _ = scene.coordinates(scene.everywhere, rigid=True)
    above = np.maximum(shell.cavity + 0.5, -shell.diaphragm)
    scene.paint(Region(scene.everywhere, above - 3), anatomy.hu["muscle"])  # the diaphragm's own sheet
    middle_y = anatomy.habitus.spine_y + 14
    mediastinum = np.hypot((x + 6) / 34, (y - middle_y) / 34) - 1
    lung = np.maximum(above, -30 * mediastinum + 2 * texture.middle)
    vessels = 420 * np.clip(texture.fine - 2.0, 0, 1) + 18 * texture.rough
    aerated = [h + vessels for h in anatomy.hu["lung"]]
    for name, side in (("lung_lower_lobe_right", x), ("lung_lower_lobe_left", -x)):
        scene.paint(Region(scene.everywhere, np.maximum(lung, -side)), aerated, NUMBERS[name])
    chest = Region(scene.everywhere, np.maximum(above, 30 * mediastinum + 2 * texture.middle))
    scene.paint(chest, anatomy.hu["fat"])
    heart = scene.ellipsoid(anatomy.place((-24, 48, 138)), (62, 45, 42))
    anatomy.put(
        heart.within(-shell.diaphragm[heart.box] + 1).within(shell.cavity[heart.box] + 3),
        "heart",
        "heart",
        fine=4,
        rough=6,
        claim=None,
    )
