"""Streaks of metal implants, reconstructed from the errors that metal makes in the projections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.low_dose_map import MU_WATER_PER_MM
from mpfnl.transforms.degradation.parallel_beam import Ellipse, Floats, Pair, ParallelBeam, Singles
from mpfnl.transforms.degradation.random_field import normal_field
from mpfnl.window import AIR_HU, BODY_HU

IMPLANT_HU = 3071.0
"""What metal is set to: the largest HU of a CT of 12 bits."""

NEAR_MM = 100.0
"""The strength of the streaks is measured up to this distance from the implants' centres."""

# Titanium (4.5 g/cm^3) and water, from NIST's tables of mass attenuation coefficients: at 70 keV, and the
# ratio of their standard deviations over what a body leaves of a 120 kV spectrum (50 to 100 keV, roughly).
_TITANIUM_PER_MM = 0.25
_WATER_OVER_TITANIUM = 0.013
_OPAQUE = 6.0  # attenuation from which on a detector no longer tells more metal from less

_NOISES = 4  # noise images of a set of implants; each slice takes its own mixture of them
_FEWEST_ANGLES = 360
_BODY_SHARE = 0.01  # a plane with less body, against the fullest, lies outside the body's box
_BLOOMING = (_TITANIUM_PER_MM / MU_WATER_PER_MM * 1000 - 1000 - AIR_HU) / (IMPLANT_HU - AIR_HU)
_FAINT = 0.01  # a smaller share of metal in a pixel is ripple of the reconstruction
_NO_STREAKS = 1e-3  # streaks weaker than this, against their peak in the metal, may be reconstruction errors
_FLAT = 1e-30  # the square of streaks that are none


@dataclass(frozen=True)
class Implant:
    """A metal rod along z with an elliptic section: a screw, a pin, the shaft of a hip.

    Args:
        position: Its centre, as fractions of the box around the body along x, y, z; 0 to 1.
        radius_mm: Half its width along x and along y in mm.
        length_mm: Along z in mm.
    """

    position: tuple[float, float, float]
    radius_mm: Pair
    length_mm: float

    def __post_init__(self) -> None:
        if len(self.position) != 3 or not all(0 <= fraction <= 1 for fraction in self.position):
            raise ValueError(f"an implant's position is three fractions from 0 to 1, got {self.position}")
        if len(self.radius_mm) != 2 or not all(0 < radius < math.inf for radius in self.radius_mm):
            raise ValueError(f"an implant's radius_mm is two positive numbers, got {self.radius_mm}")
        if not 0 < self.length_mm < math.inf:
            raise ValueError(f"an implant's length_mm is a positive number, got {self.length_mm}")
        object.__setattr__(self, "position", tuple(self.position))
        object.__setattr__(self, "radius_mm", tuple(self.radius_mm))


def metal_streaks(
    hu: SpatialVolume,
    spacing: Sequence[float],
    implants: Sequence[Implant],
    streak_hu: float,
    starvation: float = 0.4,
    seed: int = 0,
) -> SpatialVolume:
    """Puts metal implants into a volume, with the streaks that they give.

    Two errors that metal makes in the projections are reconstructed by filtered backprojection and added.

    - Beam hardening. The attenuation of a polychromatic beam grows less than in proportion. To second
      order a ray with P mm of metal and W mm of body lacks a multiple of (P + k W)^2, of which the
      correction for water gives (k W)^2 back: the error is -(P^2 + 2 k P W), with k = 0.013 for titanium. Its
      cross terms give dark bands between two implants and along the longest way through the body (Park,
      Chung and Seo, Phil Trans R Soc A 2015;373:20140388). The body is an ellipse in the box around it.
    - Photon starvation. Behind metal few photons are left, and the logarithm of a count N has the variance
      1 / N: rays through metal get normal noise of the variance (exp(m P) - 1) exp(w W), with m and w the
      attenuation of titanium (from m P = 6 on constant) and of water. It gives fine bright and dark rays.

    The streaks' root mean square is `streak_hu`, taken over all slices with metal together, in the body up
    to 100 mm from the centres of a slice's implants and outside of what they cover. Their mean over the body
    of a slice is 0, so a uniform region keeps its mean. The implants are shown as the same reconstruction
    shows them: blurred at the edge, and a little wider than they are, as titanium is three times brighter
    than the scale reaches. No streaks lie on what they cover. A slice that an implant fills in part has
    that part of its metal and streaks.

    One round implant in a round body hardens the beam alike from all sides, which gives no streaks: there
    noise makes up for them, and without noise they stay weaker than `streak_hu`. The noise of each slice is
    another mixture of a few noise images: slices differ, but are not independent. Scatter and the beam's
    cone are not modelled, and streaks may leave the range that a scanner stores.

    Args:
        hu: Volume `(x, y, z)` in HU.
        spacing: Voxel spacing in mm along x, y, z.
        implants: What to put in; placed in the box around the voxels above -300 HU (around the whole
            array where there are none).
        streak_hu: Root mean square of the streaks in HU, 0 or more.
        starvation: Share of the streaks' variance that is photon noise, from 0 to 1.
        seed: Seed of the noise, 0 or more.

    Returns:
        The volume with metal of 3071 HU and its streaks; slices without metal keep their values. The input
        itself where `streak_hu` is 0 or no implant reaches into the volume.

    Raises:
        ValueError: The strength is negative or not a number, or the share does not lie between 0 and 1.
    """
    if not 0 <= streak_hu < math.inf:
        raise ValueError(f"streak_hu is 0 or more, got {streak_hu}")
    if not 0 <= starvation <= 1:
        raise ValueError(f"starvation is a share from 0 to 1, got {starvation}")
    if streak_hu == 0 or not implants:
        return hu
    body = (hu > BODY_HU).cpu().numpy()
    if not body.any():
        body = np.ones_like(body)
    scene = _Scene.of(body, spacing, implants)
    touched = np.flatnonzero(sum(scene.parts().values()))
    if len(touched) == 0:
        return hu
    sections, hardening, noise = _reconstructed(scene, touched, starvation, seed)
    metal, rim = scene.metal(sections, touched)
    outside = np.moveaxis(body[:, :, touched], -1, 0) & ~rim
    near = scene.near(touched) & outside
    streaks = math.sqrt(1 - starvation) * _scaled(hardening, outside, near, _NO_STREAKS)
    if noise is not None:
        streaks += math.sqrt(starvation) * _scaled(noise, outside, near)
        streaks = _scaled(streaks, outside, near)
    return _with_metal(hu, touched, np.where(rim, np.float32(0), streak_hu * streaks), metal)


@dataclass(frozen=True)
class _Scene:
    """Where body and implants are: in mm from the slices' centre, along z in slices from the lowest face."""

    shape: tuple[int, ...]
    pixel_mm: Pair
    body: Ellipse
    rods: tuple[Ellipse, ...]
    ends: tuple[Pair, ...]

    @staticmethod
    def of(body: NDArray[np.bool_], spacing: Sequence[float], implants: Sequence[Implant]) -> _Scene:
        step = np.array(spacing, dtype=float)
        low, high = np.array([_extent(body, axis) for axis in range(3)], dtype=float).T
        centres = [low + np.array(implant.position) * (high - low) for implant in implants]
        heights = [float(centre[2]) for centre in centres]
        halves = [implant.length_mm / 2 / spacing[2] for implant in implants]

        def place(faces: Floats) -> Pair:
            x, y, _ = ((faces - np.array(body.shape) / 2) * step).tolist()
            return x, y

        x, y, _ = ((high - low) * step / 2).tolist()
        return _Scene(
            body.shape,
            (float(step[0]), float(step[1])),
            Ellipse(place((low + high) / 2), (x, y)),
            tuple(Ellipse(place(at), each.radius_mm) for at, each in zip(centres, implants, strict=True)),
            tuple((at - half, at + half) for at, half in zip(heights, halves, strict=True)),
        )

    @property
    def axes(self) -> tuple[Floats, Floats]:
        """The pixels' centres along x and y in mm."""
        sizes = zip(self.shape[:2], self.pixel_mm, strict=True)
        x, y = (step * (np.arange(size, dtype=np.float64) - (size - 1) / 2) for size, step in sizes)
        return x, y

    def covered(self, low: float, high: float) -> Floats:
        """The share of each slice that lies between two heights."""
        return np.diff(np.arange(self.shape[2] + 1).clip(low, high))

    def parts(self) -> dict[tuple[int, ...], Floats]:
        """The sets of implants that some height cuts, each with its share of every slice."""
        shares: dict[tuple[int, ...], Floats] = {}
        for low, high in pairwise(sorted({end for ends in self.ends for end in ends})):
            cut = tuple(i for i, (bottom, top) in enumerate(self.ends) if bottom <= low and high <= top)
            share = self.covered(low, high)
            if cut and share.any():
                shares[cut] = shares[cut] + share if cut in shares else share
        return shares

    def metal(self, sections: Singles, slices: NDArray[np.intp]) -> tuple[Singles, NDArray[np.bool_]]:
        """What metal does to slices: how far it takes voxels to the largest HU (0 to 1), and which it covers.

        Args:
            sections: Each implant's share of each pixel as reconstructed, `(implants, x, y)`.
            slices: Which slices.

        Returns:
            Both `(slices, x, y)`.
        """
        shape = (len(slices), *self.shape[:2])
        share, rim = np.zeros(shape, np.float32), np.zeros(shape, bool)
        for section, ends in zip(sections, self.ends, strict=True):
            covered = self.covered(*ends)[slices].astype(np.float32)[:, None, None]
            share += covered * section
            rim |= (covered > 0) & (section > _FAINT)
        return np.where(rim, share * np.float32(_BLOOMING), np.float32(0)).clip(0, 1), rim

    def near(self, slices: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which pixels of some slices lie near an implant of their slice, `(slices, x, y)`."""
        result = np.zeros((len(slices), *self.shape[:2]), bool)
        x, y = self.axes
        for rod, ends in zip(self.rods, self.ends, strict=True):
            distance = np.hypot(x[:, None] - rod.centre[0], y - rod.centre[1])
            result[self.covered(*ends)[slices] > 0] |= distance <= NEAR_MM
        return result

    def beam(self) -> ParallelBeam:
        """Directions so dense that rays through an implant leave the array two pixels apart at most."""
        corner = np.array([axis[-1] for axis in self.axes])
        pixel = min(self.pixel_mm)
        far = max(float(np.hypot(*(corner + np.abs(rod.centre)))) for rod in self.rods)
        widest = max(float(np.hypot(*rod.centre)) + max(rod.radius) for rod in self.rods)
        angles = max(_FEWEST_ANGLES, math.ceil(math.pi * far / (2 * pixel)))
        return ParallelBeam(angles, max(float(np.hypot(*corner)), widest), pixel)


def _extent(body: NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """The first and the last face of the body along an axis; single bright voxels in the air do not count."""
    counts = body.sum(axis=tuple(other for other in range(3) if other != axis))
    filled = np.flatnonzero(counts >= max(1, _BODY_SHARE * counts.max()))
    return (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, len(counts))


def _reconstructed(
    scene: _Scene, slices: NDArray[np.intp], starvation: float, seed: int
) -> tuple[Singles, Singles, Singles | None]:
    """Sections of the implants `(implants, x, y)`; hardening and noise of some slices `(slices, x, y)`."""
    beam, parts = scene.beam(), scene.parts()
    chords = np.stack([beam.chords(rod) for rod in scene.rods])
    water = beam.chords(scene.body)
    metal = np.stack([chords[list(cut)].sum(0) for cut in parts])
    hardening = -(metal**2) - 2 * _WATER_OVER_TITANIUM * metal * water
    shares = np.stack([share[slices] for share in parts.values()]).astype(np.float32)
    sinograms = [chords, hardening]
    if starvation > 0:
        noise, mixture = _noise(beam, metal, water, len(slices), seed)
        sinograms.append(noise)
    images = beam.reconstruct(np.concatenate(sinograms, dtype=np.float32), *scene.axes)
    sections, hardened, noisy = np.split(images, [len(chords), len(chords) + len(parts)])
    if starvation == 0:
        return sections, _mixed(shares, hardened), None
    weights = (mixture[:, None] * shares).reshape(-1, len(slices))
    return sections, _mixed(shares, hardened), _mixed(weights, noisy)


def _noise(
    beam: ParallelBeam, metal: Floats, water: Floats, slices: int, seed: int
) -> tuple[Floats, Singles]:
    """Noise of the rays `(noises x sets, angles, bins)`; each slice's mixture of it `(noises, slices)`."""
    shape = (_NOISES, 1, beam.angles, beam.bins)
    normal = normal_field((math.prod(shape) + _NOISES * slices,), seed).numpy()
    variance = np.expm1((_TITANIUM_PER_MM * metal).clip(max=_OPAQUE)) * np.exp(
        MU_WATER_PER_MM * (water - water.max())
    )
    sinograms = np.sqrt(variance) * normal[: math.prod(shape)].reshape(shape)
    mixture = normal[math.prod(shape) :].reshape(_NOISES, slices)
    return sinograms.reshape(-1, beam.angles, beam.bins), mixture / np.sqrt((mixture**2).sum(0))


def _mixed(weights: Singles, images: Singles) -> Singles:
    """The sum of images `(images, x, y)`, with weights `(images, slices)`, in each slice."""
    total = np.zeros((weights.shape[1], *images.shape[1:]), np.float32)
    for weight, image in zip(weights, images, strict=True):
        for slice_, share in zip(total, weight, strict=True):
            slice_ += share * image
    return total


def _scaled(
    streaks: Singles, outside: NDArray[np.bool_], near: NDArray[np.bool_], least: float = 0.0
) -> Singles:
    """Mean 0 over the outside in each slice, root mean square 1 near the implants; 0 where nothing is near.

    Streaks weaker than `least` times their peak, which lies in the metal, are not made up to 1.
    """
    for streak, inside in zip(streaks, outside, strict=True):
        if inside.any():
            streak -= streak[inside].mean(dtype=np.float64)
    square = float(np.square(streaks[near], dtype=np.float64).mean()) if near.any() else 0.0
    strength = max(math.sqrt(square), least * float(np.abs(streaks).max()))
    return streaks / np.float32(strength) if square > _FLAT else np.zeros_like(streaks)


def _with_metal(
    hu: SpatialVolume, slices: NDArray[np.intp], streaks: Singles, metal: Singles
) -> SpatialVolume:
    where = torch.from_numpy(slices).to(hu.device)
    added, share = (torch.from_numpy(each).to(hu).permute(1, 2, 0) for each in (streaks, metal))
    changed = (hu.index_select(2, where) + added).mul_(1 - share).add_(share * IMPLANT_HU)
    return hu.index_copy(2, where, changed)
