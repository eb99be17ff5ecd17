"""Streaks of metal implants, reconstructed from the errors that metal makes in the projections."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.base import MOST_HU, MOST_MM, Degradation, check, checked_seed, require
from mpfnl.transforms.degradation.low_dose_map import MU_WATER_PER_MM
from mpfnl.transforms.degradation.metal_scene import IMPLANT_HU, TITANIUM_PER_MM, Implant, Scene
from mpfnl.transforms.degradation.parallel_beam import Floats, ParallelBeam, Singles
from mpfnl.transforms.degradation.random_field import normal_field
from mpfnl.transforms.degradation.stage import (
    Range,
    Stage,
    chance,
    check_probabilities,
    check_ranges,
    uniform,
)
from mpfnl.transforms.seeds import Draws, noise_seed
from mpfnl.window import BODY_HU

# Ratio of the standard deviations of the attenuation of water and titanium (NIST) over a 120 kV spectrum
# behind a body (50 to 100 keV, roughly).
_WATER_OVER_TITANIUM = 0.013
_OPAQUE = 6.0  # attenuation from which on a detector no longer tells more metal from less

_NOISES = 4  # noise images of a set of implants; each slice takes its own mixture of them
_NO_STREAKS = 1e-3  # streaks weaker than this, against their peak in the metal, may be reconstruction errors
_FLAT = 1e-30  # the square of streaks that are none
_LEAST_MM = 0.01
_MOST_LENGTH_MM = 2000.0


def metal_streaks(
    hu: SpatialVolume,
    spacing: Sequence[float],
    implants: Sequence[Implant],
    streak_hu: float,
    starvation: float = 0.4,
    seed: int = 0,
) -> SpatialVolume:
    """Adds metal implants and their streaks to a volume.

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
    than the scale reaches. No streaks lie on the metal. A slice that an implant fills in part has
    that part of its metal and streaks.

    One round implant in a round body hardens the beam alike from all sides, which gives no streaks: there
    noise makes up for them, and without noise they stay weaker than `streak_hu`. The noise of each slice is
    another mixture of a few noise images: slices differ, but are not independent. Scatter and the beam's
    cone are not modelled, and streaks may leave the range that a scanner stores.

    Args:
        hu: Volume `(x, y, z)` in HU.
        spacing: Voxel spacing in mm along x, y, z.
        implants: Metal rods, placed in the box around the voxels above -300 HU (around the whole array
            where there are none).
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
    scene = Scene.of(body, spacing, implants)
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


def _reconstructed(
    scene: Scene, slices: NDArray[np.intp], starvation: float, seed: int
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
    variance = np.expm1((TITANIUM_PER_MM * metal).clip(max=_OPAQUE)) * np.exp(
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


@dataclass(frozen=True)
class MetalStreaks(Degradation):
    """Implants of metal, and the streaks that they cast across their slices.

    Args:
        implants: Metal rods.
        streak_hu: Root mean square of the streaks near the implants in HU; 0 leaves the scan as it is.
        seed: Seed of the photon noise of the rays through metal.
        starvation: Share of photon noise in the streaks' variance; the rest is beam hardening.
    """

    kind = "metal_streaks"
    whole_slices = True
    implants: tuple[Implant, ...]
    streak_hu: float
    seed: int
    starvation: float = 0.4

    def __post_init__(self) -> None:
        check("the metal's streak_hu", self.streak_hu, 0, MOST_HU)
        check("the metal's starvation", self.starvation, 0, 1)
        object.__setattr__(self, "seed", checked_seed(self.seed))
        require(isinstance(self.implants, (list, tuple)), "the metal's implants must be a list")
        object.__setattr__(self, "implants", tuple(_implant_from_json(each) for each in self.implants))

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Draws the implants and their streaks; see `metal_streaks`."""
        return metal_streaks(hu, spacing, self.implants, self.streak_hu, self.starvation, self.seed)

    def describe(self) -> str:
        """For example "2 implants with streaks of 50 HU"."""
        count = len(self.implants)
        return f"{count} implant{'' if count == 1 else 's'} with streaks of {self.streak_hu:.3g} HU"


def _implant_from_json(value: object) -> Implant:
    """An implant from its JSON or as it is, with its numbers checked.

    Raises:
        ValueError: The value is not an implant, or a number is out of range.
    """
    implant = Implant(**value) if isinstance(value, Mapping) else value
    if not isinstance(implant, Implant):
        raise ValueError("the metal's implants must have a position, a radius_mm and a length_mm each")
    for radius in implant.radius_mm:
        check("an implant's radius_mm", radius, _LEAST_MM, MOST_MM)
    check("an implant's length_mm", implant.length_mm, _LEAST_MM, _MOST_LENGTH_MM)
    return implant


@dataclass(frozen=True)
class MetalStage(Stage):
    """Implants and their streaks.

    Args:
        count: Fewest and most implants.
        place: Range of the position along x and y, as fractions of the box around the body.
        radius_mm: Range of an implant's radius in the slice in mm.
        length_mm: Range of an implant's length along z in mm.
        streak_hu: Range of the streaks' root mean square near the implants in HU.
        probability: Probability of the stage.
    """

    degradations = (MetalStreaks,)
    count: tuple[int, int]
    place: Range
    radius_mm: Range
    length_mm: Range
    streak_hu: Range
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_probabilities(self.probability, *self.place)
        check_ranges(self.count, self.place, self.radius_mm, self.length_mm, self.streak_hu)

    def sample(self, draws: Draws) -> list[Degradation]:
        """Draws the implants, which are the patient's, and the noise of the rays through them."""
        rng = draws.protocol
        if not chance(self.probability, rng):
            return []
        count = int(rng.integers(self.count[0], self.count[1] + 1))
        implants = tuple(self._implant(rng) for _ in range(count))
        return [MetalStreaks(implants, uniform(self.streak_hu, rng), noise_seed(draws))]

    def _implant(self, rng: np.random.Generator) -> Implant:
        x, y, z = uniform(self.place, rng), uniform(self.place, rng), uniform((0.25, 0.75), rng)
        radius = uniform(self.radius_mm, rng)
        return Implant((x, y, z), (radius, radius), uniform(self.length_mm, rng))
