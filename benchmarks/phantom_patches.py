"""Patches of phantoms at 3 mm, augmented, for the training of the phantom weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import zoom
from skimage.transform import resize
from torch import Tensor
from torch.nn import functional

from mpfnl.phantoms import PhantomConfig, generate_study
from mpfnl.phantoms.config import SMALL, THREE_MM
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phases import Phase
from mpfnl.segmentation.phantom_weights import SPACING_MM, STRUCTURES, TRAINING_SEED, Intensity
from mpfnl.window import ABDOMEN

Size: TypeAlias = tuple[int, int, int]

PANCREAS = STRUCTURES.index("pancreas") + 1
FULL_MM = 1.5  # TotalSegmentator's full resolution
MARGIN_MM = 20.0  # TotalSegmentator's around what its crop pass found
OTHER_FIELDS = replace(
    SMALL,
    in_plane_mm=(2.4, 3.4),
    slice_mm=(2.5, 5.0),
    field_of_view_mm=(340.0, 420.0),
    depth_fraction=0.9,
    coverage_mm=(130.0, 220.0),
    noise_hu=(5.0, 18.0),
)


@dataclass(frozen=True)
class Example:
    """A training phantom at 3 mm, its axes (z, y, x) as nnU-Net reads NIfTI.

    Args:
        hu: The scan (z, y, x).
        shares: Fraction of each voxel that each structure fills, 0 to 255, (structure, z, y, x).
    """

    hu: NDArray[np.float32]
    shares: NDArray[np.uint8]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The structure that fills most of each voxel, 1 to 7, or 0."""
        rest = 255 - self.shares.sum(axis=0, dtype=np.int16)
        return np.argmax(np.stack([rest, *self.shares]), axis=0).astype(np.uint8)


@dataclass(frozen=True)
class Mixture:
    """How many phantoms of each kind.

    Args:
        three_mm: Number of phantoms with the demonstration's settings, which need no resampling.
        small: The same with voxels of 2.6 to 3 mm.
        other_fields: Number of phantoms with other fields of view, slices and noise.
        default: Number of phantoms with the default settings, with voxels of 1.5 to 2 mm.
    """

    three_mm: int
    small: int
    other_fields: int
    default: int

    def configs(self) -> list[PhantomConfig]:
        """The settings of each patient; the slow ones first, so that the processes end together."""
        kinds = (
            (PhantomConfig(), self.default),
            (OTHER_FIELDS, self.other_fields),
            (SMALL, self.small),
            (THREE_MM, self.three_mm),
        )
        return [config for config, count in kinds for _ in range(count)]


def make_examples(mixture: Mixture, processes: int) -> Iterator[Example]:
    """Makes the training phantoms in several processes, in a fixed order."""
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        made: list[Future[Example]] = [
            pool.submit(make_example, patient, config) for patient, config in enumerate(mixture.configs())
        ]
        for future in made:
            yield future.result()


def make_example(patient: int, config: PhantomConfig) -> Example:
    """One training phantom, portal venous, at 3 mm: every sixth as the full resolution's network sees it."""
    torch.set_num_threads(1)
    study = generate_study(TRAINING_SEED, patient, config)
    detour = patient % 6 == 0
    hu = resampled(study.phases[Phase.PORTAL_VENOUS].astype(np.float32), study.spacing, detour)
    named = merged_labels(study.labels)
    shares = [
        resampled((named == number).astype(np.float32), study.spacing, detour)
        for number in range(1, len(STRUCTURES) + 1)
    ]
    quantized = np.rint(255 * np.stack([share.T for share in shares])).astype(np.uint8)
    return Example(np.ascontiguousarray(np.trunc(hu).T), quantized)


def resampled(volume: NDArray[np.float32], spacing: Sequence[float], detour: bool) -> NDArray[np.float32]:
    """A volume at 3 mm, linearly: corner to corner as TotalSegmentator does it.

    With the detour of its full resolution, to 1.5 mm first, and then by nnU-Net to the network's 3 mm.
    """
    target = FULL_MM if detour else SPACING_MM
    found = zoom(volume, [side / target for side in spacing], order=1, mode="nearest")
    if detour:
        shape = [round(n * FULL_MM / SPACING_MM) for n in found.shape]
        found = resize(found, shape, order=1, mode="edge", anti_aliasing=False)
    return np.asarray(found, dtype=np.float32)


def merged_labels(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The structures' labels, 1 to 7; a lesion counts as liver, a renal sinus as the nearer kidney."""
    merged = np.where(labels <= len(STRUCTURES), labels, 0).astype(np.uint8)
    merged[labels == NUMBERS["liver_lesion"]] = NUMBERS["liver"]
    sides = [
        number for number in (NUMBERS["kidney_right"], NUMBERS["kidney_left"]) if (labels == number).any()
    ]
    sinus = np.argwhere(labels == NUMBERS["kidney_sinus"])
    if sides and len(sinus):
        middles = np.array([np.argwhere(labels == number).mean(axis=0)[0] for number in sides])
        nearest = np.abs(sinus[:, :1] - middles).argmin(axis=1)
        merged[tuple(sinus.T)] = np.array(sides)[nearest]
    return merged


def measure_intensity(examples: Sequence[Example]) -> Intensity:
    """nnU-Net's normalisation over the labelled voxels, with the HU window in place of the percentiles."""
    inside = np.concatenate([example.hu[example.labels > 0] for example in examples])
    clipped = np.clip(inside, ABDOMEN.lower, ABDOMEN.upper).astype(np.float64)
    mean, sd = round(float(clipped.mean()), 3), round(float(clipped.std()), 3)
    return Intensity(ABDOMEN.lower, ABDOMEN.upper, mean, sd)


class Patches:
    """Random augmented patches of the training phantoms.

    Args:
        examples: The phantoms.
        intensity: Normalisation of HU.
        seed: Seed of the draws.
    """

    def __init__(self, examples: Sequence[Example], intensity: Intensity, seed: int) -> None:
        self._seed = seed
        self._scans = [
            (np.clip(example.hu, intensity.low, intensity.high) - intensity.mean) / intensity.sd
            for example in examples
        ]
        self._shares = [example.shares for example in examples]
        self._labels = [example.labels for example in examples]

    def draw(self, number: int, size: Size) -> tuple[Tensor, Tensor]:
        """A sample; several threads may ask.

        Args:
            number: Number of the patch; with the seed it determines everything but the size.
            size: The patch's size (z, y, x) in voxels.

        Returns:
            The scan (1, 1, z, y, x) and how much of each voxel is background and each structure
            (1, 8, z, y, x), 0 to 1.
        """
        rng = np.random.default_rng([self._seed, number])
        at = int(rng.integers(len(self._scans)))
        box = _box(self._labels[at], size, rng)
        scan = torch.from_numpy(self._scans[at][box].astype(np.float32))[None, None]
        shares = torch.from_numpy(self._shares[at][:, *box].astype(np.float32))[None] / 255
        scan, shares = _augmented(scan, shares, rng)
        # nnU-Net pads what is smaller than the patch after the normalisation, evenly, with zeros.
        padding: list[int] = []
        for side, full in zip(reversed(scan.shape[2:]), reversed(size), strict=True):
            padding += [(full - side) // 2, full - side - (full - side) // 2]
        scan, shares = functional.pad(scan, padding), functional.pad(shares, padding)
        return scan, torch.cat([(1 - shares.sum(dim=1, keepdim=True)).clamp(min=0), shares], dim=1)


def _box(labels: NDArray[np.uint8], patch: Size, rng: np.random.Generator) -> tuple[slice, ...]:
    """Where to cut: within a crop around the pancreas, around some organ, or anywhere."""
    low, high = np.zeros(3, dtype=int), np.array(labels.shape)
    kind = rng.random()
    if kind < 0.15:
        where = np.argwhere(labels == PANCREAS)
        if len(where):
            margins = (MARGIN_MM + rng.uniform(-8, 8, size=(2, 3))) / SPACING_MM
            low = np.maximum(low, (where.min(axis=0) - margins[0]).astype(int))
            high = np.minimum(high, (where.max(axis=0) + 1 + margins[1]).astype(int))
    centre = rng.uniform(low, high)
    if 0.15 <= kind < 0.88:
        organ = PANCREAS if kind < 0.55 else int(rng.integers(1, len(STRUCTURES) + 1))
        where = np.argwhere(labels == organ)
        if len(where):
            centre = where[rng.integers(len(where))] + rng.uniform(-12, 12, size=3)
    size = np.minimum(patch, high - low)
    start = np.clip((centre - size / 2).astype(int), low, high - size)
    return tuple(slice(int(a), int(a + n)) for a, n in zip(start, size, strict=True))


def _augmented(scan: Tensor, shares: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Turned and scaled, and at a lower resolution; without mirroring.

    Noise, blur, brightness and contrast are left out on purpose. Weights trained with them were nearly blind
    to the paper's degradation on 3 mm phantoms, and Table II had nothing to show: these know scans of the
    phantoms' own quality only.
    """

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    if chance(0.2):
        scan, shares = _turned(scan, shares, rng.uniform(-0.17, 0.17, 3), rng.uniform(0.85, 1.18))
    if chance(0.1):  # the crop pass sees 6 mm voxels, resampled to 3 mm
        full = scan.shape[2:]
        factor = rng.uniform(0.5, 1)
        coarse = functional.interpolate(scan, [max(2, round(n * factor)) for n in full], mode="nearest")
        scan = functional.interpolate(coarse, full, mode="trilinear")
    return scan, shares


def _turned(scan: Tensor, shares: Tensor, angles: NDArray[np.float64], scale: float) -> tuple[Tensor, Tensor]:
    """The patch rotated by three angles (radians) about its middle and scaled."""
    sides = np.array(scan.shape[:1:-1], dtype=np.float64)  # x, y, z
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        one = np.eye(3)
        one[a, a] = one[b, b] = np.cos(angle)
        one[a, b], one[b, a] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    # affine_grid counts in half sides
    theta = (turn * scale) * sides[None, :] / sides[:, None]
    affine = torch.from_numpy(np.concatenate([theta, np.zeros((3, 1))], axis=1)[None].astype(np.float32))
    grid = functional.affine_grid(affine, list(scan.shape), align_corners=False)
    moved = functional.grid_sample(scan, grid, padding_mode="border", align_corners=False)
    moved_shares = functional.grid_sample(shares, grid, padding_mode="border", align_corners=False)
    return moved, moved_shares
