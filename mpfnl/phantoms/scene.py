"""The scene in patient coordinates: organs as signed distances, painted with partial-volume edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from mpfnl.phantoms.enhancement import Phases
from mpfnl.phantoms.habitus import Habitus
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.texture import Array, Texture

Box: TypeAlias = tuple[slice, slice, slice]
Hu: TypeAlias = Sequence["float | Array"]
"""HU per phase: three numbers, or three arrays over the region."""

_REACH = 6.0  # mm around a shape within which its distance is computed


@dataclass(frozen=True)
class Region:
    """A shape on a part of the grid: signed distance in mm, negative inside."""

    box: Box
    distance: Array

    def shrunk(self, by: float) -> Region:
        """The same shape with its surface moved inwards by `by` mm (outwards if negative)."""
        return Region(self.box, self.distance + np.float32(by))

    def within(self, other: Array) -> Region:
        """The part of the shape where another distance on the same box is negative too."""
        return Region(self.box, np.maximum(self.distance, other))

    def on(self, box: Box) -> Array:
        """The distance on another box; a few mm (outside) where this region has none."""
        shape = tuple(s.stop - s.start for s in box)
        out = np.full(shape, _REACH, dtype=np.float32)
        source, target = [], []
        for mine, other in zip(self.box, box, strict=True):
            start, stop = max(mine.start, other.start), min(mine.stop, other.stop)
            source.append(slice(start - mine.start, max(start, stop) - mine.start))
            target.append(slice(start - other.start, max(start, stop) - other.start))
        out[tuple(target)] = self.distance[tuple(source)]
        return out


def curve(
    points: ArrayLike, radii: ArrayLike, step: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A smooth line through control points (n, 3) with radii (n,), resampled about every `step` mm."""
    control = np.asarray(points, dtype=np.float64)
    widths = np.broadcast_to(np.asarray(radii, dtype=np.float64), (len(control),))
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(control, axis=0), axis=1))])
    at = np.linspace(0, length[-1], max(2, round(length[-1] / step) + 1))
    return CubicSpline(length, control)(at), PchipInterpolator(length, widths)(at)


class Scene:
    """The noise-free image of all phases while organs are painted.

    Args:
        axes: Coordinates in mm of the voxels along x, y and z.
        edge: Width in mm over which a surface fades: the voxel's partial volume.
        warp: Displacement in mm that gives soft organs their irregular form, (3, x, y, z).
        planes: Thickness of the fat planes between organs, relative to the usual; 0 or less where
            organs touch, (x, y, z).
    """

    def __init__(self, axes: tuple[Array, Array, Array], edge: float, warp: Array, planes: Array) -> None:
        self.axes = axes
        self.edge = np.float32(edge)
        self.planes = planes
        self.shape = (len(axes[0]), len(axes[1]), len(axes[2]))
        self.hu = np.full((3, *self.shape), -1000, dtype=np.float32)
        self.labels = np.zeros(self.shape, dtype=np.uint8)
        self.room = np.full(self.shape, 99, dtype=np.float32)
        """Distance in mm to painted organs; later organs are carved to keep clear of them."""
        grid = (axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :])
        self._rigid = grid
        self._warped = tuple(np.asarray(grid[i] + warp[i], dtype=np.float32) for i in range(3))
        self._slack = float(np.abs(warp).max()) if warp.size else 0.0

    @property
    def everywhere(self) -> Box:
        """The whole grid."""
        x, y, z = self.shape
        return (slice(0, x), slice(0, y), slice(0, z))

    def box(self, low: ArrayLike, high: ArrayLike, rigid: bool = False) -> Box:
        """The voxels between two corners in mm, with a margin for the warp."""
        pad = _REACH + (0 if rigid else self._slack)
        lows, highs = np.asarray(low) - pad, np.asarray(high) + pad
        bounds = []
        for axis, a, b in zip(self.axes, lows, highs, strict=True):
            start = int(np.searchsorted(axis, a))
            bounds.append(slice(start, max(start, int(np.searchsorted(axis, b)))))
        return (bounds[0], bounds[1], bounds[2])

    def coordinates(self, box: Box, rigid: bool = False) -> tuple[Array, Array, Array]:
        """x, y, z in mm in a box (broadcastable); warped unless `rigid`."""
        if rigid:
            x, y, z = self._rigid
            return x[box[0]], y[:, box[1]], z[:, :, box[2]]
        x, y, z = self._warped
        return x[box], y[box], z[box]

    def ellipsoid(
        self,
        centre: ArrayLike,
        radii: ArrayLike,
        rotation: NDArray[np.float64] | None = None,
        rigid: bool = False,
    ) -> Region:
        """An ellipsoid; `rotation` (3, 3) turns its own axes into the patient's."""
        middle, half = np.asarray(centre, dtype=np.float64), np.asarray(radii, dtype=np.float64)
        turn = np.eye(3) if rotation is None else rotation
        reach = np.sqrt(((turn * half) ** 2).sum(axis=1))
        box = self.box(middle - reach, middle + reach, rigid)
        local = self.local(box, middle, turn, rigid)
        return Region(box, ellipsoid_distance(local, half))

    def local(
        self, box: Box, centre: ArrayLike, rotation: NDArray[np.float64], rigid: bool = False
    ) -> tuple[Array, Array, Array]:
        """Coordinates in a turned frame around `centre`."""
        middle = np.asarray(centre, dtype=np.float32)
        x, y, z = (c - m for c, m in zip(self.coordinates(box, rigid), middle, strict=True))
        if np.array_equal(rotation, np.eye(3)):
            return x, y, z
        r = rotation.astype(np.float32)
        u, v, w = (r[0, i] * x + r[1, i] * y + r[2, i] * z for i in range(3))
        return u, v, w

    def tube(
        self,
        path: ArrayLike,
        radii: ArrayLike,
        squash: tuple[float, float, float] = (1, 1, 1),
        rigid: bool = False,
    ) -> Region:
        """The union of cone pieces along a line: path (n, 3) in mm, radii (n,) in mm.

        `squash` scales the axes before distances are taken: 0.6 in z makes the section 1/0.6 as tall.
        """
        scale = np.asarray(squash, dtype=np.float64)
        line = np.asarray(path, dtype=np.float64)
        radius = np.broadcast_to(np.asarray(radii, dtype=np.float64), (len(line),))
        reach = radius[:, None] / scale
        whole = self.box((line - reach).min(0), (line + reach).max(0), rigid)
        shape = tuple(s.stop - s.start for s in whole)
        distance = np.full(shape, _REACH, dtype=np.float32)
        for i in range(len(line) - 1):
            ends, spread = line[i : i + 2], reach[i : i + 2]
            box = self.box((ends - spread).min(0), (ends + spread).max(0), rigid)
            inner = tuple(
                slice(max(b.start, w.start) - w.start, max(b.start, b.stop) - w.start)
                for b, w in zip(box, whole, strict=True)
            )
            piece = _cone(self.coordinates(box, rigid), ends, radius[i : i + 2], scale)
            target = distance[inner]
            np.minimum(target, piece, out=target)
        return Region(whole, distance)

    def carve(self, region: Region, gap: float = 1.5) -> Region:
        """The region without painted organs, with about `gap` mm of fat between."""
        clearance = np.float32(gap) * self.planes[region.box] - self.room[region.box]
        return Region(region.box, np.maximum(region.distance, clearance))

    def claim(self, region: Region, margin: float = 0.0) -> None:
        """Takes a region's room (and `margin` mm around it), so that later organs keep clear of it."""
        room = self.room[region.box]
        np.minimum(room, region.distance - np.float32(margin), out=room)

    def paint(self, region: Region, hu: Hu, label: int | None = None) -> None:
        """Paints a region with the HU of each phase, with a partial-volume edge."""
        cover = np.clip(0.5 - region.distance / self.edge, 0, 1)
        for channel, value in enumerate(hu):
            target = self.hu[channel][region.box]
            target += cover * (value - target)
        if label is not None:
            self.labels[region.box][region.distance < 0] = label


@dataclass
class Anatomy:
    """A patient whose anatomy is being painted: the scene, the build, HU and textures.

    Args:
        scene: Painted image of all phases.
        habitus: Build of the patient.
        hu: HU of each tissue in each phase.
        rng: Source of random numbers for positions and sizes.
        texture: Random fields on the grid.
    """

    scene: Scene
    habitus: Habitus
    hu: dict[str, Phases]
    rng: np.random.Generator
    texture: Texture

    def place(self, points: ArrayLike, jitter: float = 0.0) -> NDArray[np.float64]:
        """Atlas points moved to the patient, each off by a normal error of `jitter` mm."""
        placed = self.habitus.place(points)
        return placed + self.rng.normal(0, 1, placed.shape) * jitter

    def vessel(self, points: ArrayLike, radii: ArrayLike, jitter: float = 1.5) -> Region:
        """A tube along a smooth line through atlas points, radii in mm."""
        path, radius = curve(self.place(points, jitter), radii, 6.0)
        return self.scene.tube(path, radius)

    def textured(self, tissue: str, box: Box, fine: float, rough: float = 0.0) -> Hu:
        """The tissue's HU with texture: standard deviations in HU at the 6 mm and the 10 mm scale."""
        grain = np.float32(fine) * self.texture.fine[box]
        if rough:
            grain += np.float32(rough) * self.texture.rough[box]
        return [np.float32(value) + grain for value in self.hu[tissue]]

    def put(
        self,
        region: Region,
        tissue: str,
        name: str | None = None,
        *,
        fine: float = 0.0,
        rough: float = 0.0,
        claim: float | None = 0.0,
    ) -> None:
        """Paints a region with a tissue and takes its room (with a margin; None takes none)."""
        self.scene.paint(
            region, self.textured(tissue, region.box, fine, rough), None if name is None else NUMBERS[name]
        )
        if claim is not None:
            self.scene.claim(region, claim)

    def roughen(self, region: Region, low: float = 0.0, middle: float = 0.0, rough: float = 0.0) -> Region:
        """The region with an irregular surface: amplitudes in mm at the three scales."""
        box = region.box
        bumps = np.float32(low) * self.texture.low[box]
        if middle:
            bumps = bumps + np.float32(middle) * self.texture.middle[box]
        if rough:
            bumps = bumps + np.float32(rough) * self.texture.rough[box]
        return Region(box, region.distance + bumps)


def ellipsoid_distance(local: tuple[Array, Array, Array], radii: ArrayLike) -> Array:
    """First-order signed distance to an ellipsoid at the origin."""
    half = np.asarray(radii, dtype=np.float32)
    u, v, w = (c / h for c, h in zip(local, half, strict=True))
    k = np.sqrt(u * u + v * v + w * w)
    slope = np.sqrt((u / half[0]) ** 2 + (v / half[1]) ** 2 + (w / half[2]) ** 2)
    return np.asarray(k * (k - 1) / np.maximum(slope, 1e-6), dtype=np.float32)


def smooth_maximum(a: Array, b: Array, width: float) -> Array:
    """The maximum of two distances with the edge between them rounded over `width` mm."""
    blend = np.maximum(np.float32(width) - np.abs(a - b), 0)
    return np.asarray(np.maximum(a, b) + blend * blend / np.float32(4 * width), dtype=np.float32)


def rotation(about_x: float = 0, about_y: float = 0, about_z: float = 0) -> NDArray[np.float64]:
    """A rotation matrix from angles in degrees: first x, then y, then z."""
    a, b, c = np.deg2rad([about_x, about_y, about_z])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def _cone(
    coordinates: tuple[Array, Array, Array],
    ends: NDArray[np.float64],
    radii: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> Array:
    a, b = ends * scale
    along = (b - a).astype(np.float32)
    rel = [c * np.float32(s) - np.float32(o) for c, s, o in zip(coordinates, scale, a, strict=True)]
    length = max(float(along @ along), 1e-6)
    t = np.clip((rel[0] * along[0] + rel[1] * along[1] + rel[2] * along[2]) / np.float32(length), 0, 1)
    square = sum((r - t * d) ** 2 for r, d in zip(rel, along, strict=True))
    return np.asarray(
        np.sqrt(square) - (np.float32(radii[0]) + t * np.float32(radii[1] - radii[0])), dtype=np.float32
    )
