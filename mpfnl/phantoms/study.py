"""One phantom patient: anatomy, phases and noise on the portal venous grid."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label, map_coordinates

from mpfnl.errors import OptionError
from mpfnl.phantoms import gut, organs, skeleton, trunk, vessels
from mpfnl.phantoms.acquisition import (
    Grid,
    blurred,
    correlated_noise,
    noise_level,
    resampled,
    source_indices,
    uniform,
)
from mpfnl.phantoms.config import PhantomConfig
from mpfnl.phantoms.enhancement import draw_enhancement
from mpfnl.phantoms.habitus import Habitus
from mpfnl.phantoms.labels import LABELS, NUMBERS
from mpfnl.phantoms.motion import Motion, draw_motion
from mpfnl.phantoms.scene import Anatomy, Region, Scene
from mpfnl.phantoms.texture import Array, SmoothField, Texture
from mpfnl.phases import PHASES, Phase

_STREAMS = ("grid", "habitus", "enhancement", "texture", "anatomy", "motion", "noise")


@dataclass(frozen=True)
class PhantomStudy:
    """A phantom patient: all phases on the portal venous grid.

    Args:
        phases: HU of each phase, int16 (x, y, z).
        labels: Structures of the portal venous phase, uint8 (x, y, z), numbered as in `LABELS`.
        phase_labels: Structures of each phase, displaced with the patient's motion.
        affine: Voxel indices to RAS+ mm, (4, 4).
        spacing: Voxel size in mm.
        truth: Drawn parameters as plain JSON: HU of each tissue, motion, noise, build, volumes, seeds.
    """

    phases: dict[Phase, NDArray[np.int16]]
    labels: NDArray[np.uint8]
    phase_labels: dict[Phase, NDArray[np.uint8]]
    affine: NDArray[np.float64]
    spacing: tuple[float, float, float]
    truth: dict[str, Any]


def generate_study(seed: int, patient: int, config: PhantomConfig | None = None) -> PhantomStudy:
    """Generates one phantom patient.

    A patient depends on the seed, the patient's number and the settings, not on the size of the cohort.

    Args:
        seed: Seed of the cohort, 0 to 2**32 - 1.
        patient: Number of the patient, 0 to 2**32 - 1.
        config: Settings; the default has voxels of 1.5 to 2 mm.

    Returns:
        The study. Its phases are synthetic and are not evidence about patients.

    Raises:
        OptionError: The seed or the number is out of range.

    >>> coarse = PhantomConfig(in_plane_mm=(12.0, 12.0), slice_mm=(20.0, 20.0))
    >>> study = generate_study(seed=0, patient=0, config=coarse)
    >>> study.phases[Phase.PORTAL_VENOUS].dtype, study.labels.ndim
    (dtype('int16'), 3)
    """
    config = PhantomConfig() if config is None else config
    rng = _streams(seed, patient)
    widest = 0.47 * config.field_of_view_mm[1]
    habitus = Habitus.draw(rng["habitus"], widest, widest * config.depth_fraction)
    grid = Grid.draw(rng["grid"], config, habitus.width)
    motions: dict[Phase, Motion] = {
        phase: draw_motion(rng["motion"], habitus, phase, config.misalignment)
        for phase in PHASES
        if phase is not Phase.PORTAL_VENOUS
    }
    moves = {phase: motion.displacement(grid.axes) for phase, motion in motions.items()}
    margin = 2 * grid.spacing[2] + max(float(np.abs(move[2]).max()) for move in moves.values())
    axes, first = grid.fine(margin)
    enhancement = draw_enhancement(rng["enhancement"])
    anatomy = _paint_anatomy(rng, axes, grid, habitus, enhancement.hu, config)
    mean_sd = uniform(rng["noise"], config.noise_hu)
    level = noise_level(habitus.body_distance(*_open(grid.axes)), mean_sd)

    slices = slice(first, first + (len(grid.axes[2]) - 1) * grid.factor + 1, grid.factor)
    labels = _one_piece(np.ascontiguousarray(anatomy.scene.labels[:, :, slices]), NUMBERS["pancreas"])
    phases, phase_labels = {}, {}
    for channel, phase in enumerate(PHASES):
        clean = blurred(anatomy.scene.hu[channel], grid.spacing, grid.factor)
        still = phase not in moves or not moves[phase].any()
        phase_labels[phase] = labels
        if still:
            scan = clean[:, :, slices]
        else:
            indices = source_indices(moves[phase], grid, first)
            scan = resampled(clean, indices)
            moved = map_coordinates(anatomy.scene.labels, indices, order=0, mode="nearest")
            phase_labels[phase] = _one_piece(moved, NUMBERS["pancreas"])
        scan = scan + level * correlated_noise(rng["noise"], labels.shape, grid.spacing[0])
        phases[phase] = np.clip(np.rint(scan), -1024, 3071).astype(np.int16)
    origin = np.round(rng["grid"].uniform((-15, -160, -500), (15, -80, -200)), 1)
    truth: dict[str, Any] = {
        "phantom": True,
        "seed": seed,
        "patient": patient,
        "hu": enhancement.to_json(),
        "noise_sd_hu": round(mean_sd, 3),
        "misalignment": {
            phase.value: motions[phase].to_json() | {"organs_mm": _organ_shifts(labels, moves[phase])}
            for phase in motions
        },
        "half_width_mm": round(habitus.width, 2),
        "half_depth_mm": round(habitus.depth, 2),
        "volumes_ml": _volumes(labels, grid.spacing),
    }
    return PhantomStudy(phases, labels, phase_labels, grid.affine(origin), grid.spacing, truth)


def _paint_anatomy(
    rng: dict[str, np.random.Generator],
    axes: tuple[Array, Array, Array],
    grid: Grid,
    habitus: Habitus,
    hu: dict[str, tuple[float, float, float]],
    config: PhantomConfig,
) -> Anatomy:
    """Paints all organs, the important ones first; later organs keep clear of earlier ones."""
    texture = Texture.draw(rng["texture"], axes)
    # The lean have organs that touch here and there, the obese have fat all around them.
    planes = np.clip(0.2 + 0.9 * habitus.visceral + 0.5 * texture.middle, -0.4, 2).astype(np.float32)
    scene = Scene(axes, grid.spacing[0], _warp(rng["texture"], axes, habitus), planes)
    anatomy = Anatomy(scene, habitus, hu, rng["anatomy"], texture)
    shell = trunk.build_shell(anatomy)
    _table(anatomy)
    skeleton.build_back(anatomy, shell)
    landmarks = vessels.build_great_vessels(anatomy)
    gut.build_oesophagus(anatomy)
    organs.build_kidneys(anatomy)
    gut.build_duodenum(anatomy)
    organs.build_pancreas(anatomy, landmarks)
    organs.build_adrenals(anatomy)
    gut.build_stomach(anatomy)
    underside = organs.Underside.draw(anatomy)
    organs.build_gallbladder(anatomy, organs.gallbladder_fossa(anatomy, underside))
    organs.build_spleen(anatomy)
    distance = organs.build_liver(anatomy, underside, landmarks, config.liver_lesion_probability)
    vessels.build_liver_vessels(anatomy, landmarks, distance)
    gut.build_colon(anatomy, underside)
    gut.build_small_bowel(anatomy)
    return anatomy


def _warp(rng: np.random.Generator, axes: tuple[Array, Array, Array], habitus: Habitus) -> Array:
    """Smooth irregular displacement of the soft organs, in mm; none at the spine."""
    x, y, z = _open(axes)
    spine = habitus.spine_axis(z).astype(np.float32)
    free = np.clip((np.hypot(x, y - spine) - 18) / 30, 0, 1)
    out = np.empty((3, len(axes[0]), len(axes[1]), len(axes[2])), dtype=np.float32)
    for axis in range(3):
        large, small = SmoothField.draw(rng, 48.0), SmoothField.draw(rng, 22.0)
        out[axis] = free * (2.8 * large.on(axes) + 0.7 * small.on(axes))
    return out


def _table(anatomy: Anatomy) -> None:
    """The patient table: a thin bent shell behind the back."""
    scene = anatomy.scene
    x, y, _ = scene.coordinates(scene.everywhere, rigid=True)
    depth = anatomy.habitus.depth
    sheet = np.abs(y + depth + 6 - (x / 60) ** 2 * 2.2) - 1.0
    shape = np.broadcast_to(np.where(np.abs(x) < 215, sheet, 9), scene.shape).astype(np.float32)
    outside = np.maximum(shape, 3 - anatomy.habitus.body_distance(*_open(scene.axes)))
    scene.paint(Region(scene.everywhere, outside), (-480.0, -480.0, -480.0))


def _one_piece(labels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """The labels without voxels of an organ that coarse slices separate from its largest part."""
    parts, count = label(labels == number, np.ones((3, 3, 3)))
    if count > 1:
        largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
        labels[(parts > 0) & (parts != largest)] = 0
    return labels


def _organ_shifts(labels: NDArray[np.uint8], move: Array) -> dict[str, list[float]]:
    shifts = {}
    for name in ("pancreas", "liver", "spleen", "kidney_left", "aorta", "vertebrae_L1"):
        mask = labels == NUMBERS[name]
        if mask.any():
            shifts[name] = [round(float(move[axis][mask].mean()), 3) for axis in range(3)]
    return shifts


def _volumes(labels: NDArray[np.uint8], spacing: tuple[float, float, float]) -> dict[str, float]:
    counts = np.bincount(labels.ravel(), minlength=256)
    voxel = math.prod(spacing) / 1000
    return {name: round(float(counts[number]) * voxel, 2) for number, name in LABELS.items()}


def _streams(seed: int, patient: int) -> dict[str, np.random.Generator]:
    for name, value in (("seed", seed), ("patient", patient)):
        if not 0 <= value < 2**32:
            raise OptionError(f"the {name} is {value}; give a number from 0 to 2**32 - 1")
    children = np.random.SeedSequence([seed, patient]).spawn(len(_STREAMS))
    return {name: np.random.default_rng(child) for name, child in zip(_STREAMS, children, strict=True)}


def _open(axes: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    return axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
