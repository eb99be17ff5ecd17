"""Contrast that a scan keeps: of lesions, of vessels, of organs, and its error in the body, all in HU.

PSNR and SSIM average over a volume and hardly change where a small lesion is wiped out. These functions
measure what a reader looks for. They take HU arrays `(x, y, z)` and import NumPy and SciPy only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.metrics.phase_leak import LeakRule, OrganZones, box_around, organ_zones

Scan: TypeAlias = NDArray[Any]
"""HU (x, y, z), whole or floating-point numbers."""

Mask: TypeAlias = NDArray[np.bool_]


def contrast(image: Scan, inside: Mask, around: Mask) -> float:
    """Contrast of a structure: mean HU inside minus mean HU around it.

    Args:
        image: HU (x, y, z).
        inside: Mask of the structure.
        around: Mask of its surroundings.

    Raises:
        ValueError: The shapes differ, or a mask is empty.

    >>> scan = np.full((4, 4, 4), 110.0)
    >>> lesion = np.zeros(scan.shape, dtype=bool)
    >>> lesion[1:3, 1:3, 1:3] = True
    >>> contrast(np.where(lesion, 70.0, scan), lesion, ~lesion)
    -40.0
    """
    _check_shapes(image, inside, around)
    if not (inside.any() and around.any()):
        raise ValueError("a mask is empty: a contrast needs voxels inside and around")
    return float(image[inside].mean(dtype=np.float64) - image[around].mean(dtype=np.float64))


def contrast_kept(image: Scan, reference: Scan, inside: Mask, around: Mask, least_hu: float = 5.0) -> float:
    """Fraction of a structure's contrast that an image keeps: 1 keeps all, 0 none, below 0 inverts it.

    `contrast(image) / contrast(reference)`. The reference's noise is in the denominator: over n independent
    voxels of noise s the contrast has a standard error of s / sqrt(n), which makes the fraction uncertain for
    a small structure. Where image and reference have different noise, and the masks were not drawn from the
    reference's own voxels, the fraction is right in the mean.

    Args:
        image: HU (x, y, z).
        reference: HU of the clean scan.
        inside: Mask of the structure.
        around: Mask of its surroundings, see `shell`.
        least_hu: Least contrast of the reference, positive or negative, in HU.

    Returns:
        The fraction; NaN if the reference has less contrast than `least_hu`.

    Raises:
        ValueError: The shapes differ, or a mask is empty.

    >>> lesion = np.zeros((9, 9, 9), dtype=bool)
    >>> lesion[3:6, 3:6, 3:6] = True
    >>> clean, faint = np.where(lesion, 70.0, 110.0), np.where(lesion, 100.0, 110.0)
    >>> contrast_kept(faint, clean, lesion, shell(lesion, (1.0, 1.0, 1.0), inner_mm=1.0, outer_mm=3.0))
    0.25
    """
    _check_shapes(image, reference)
    whole = contrast(reference, inside, around)
    return contrast(image, inside, around) / whole if abs(whole) >= max(least_hu, 1e-9) else math.nan


def shell(mask: Mask, spacing: Sequence[float], inner_mm: float = 2.0, outer_mm: float = 6.0) -> Mask:
    """The surroundings of a structure: voxels more than `inner_mm` and at most `outer_mm` away from it.

    Args:
        mask: Mask of the structure, (x, y, z).
        spacing: Distance between voxel centres along x, y and z in mm.
        inner_mm: Width of the gap, which leaves out voxels that the structure shares, in mm.
        outer_mm: Distance of the farthest voxels in mm.

    Raises:
        ValueError: The mask is empty, or the distances do not fit.

    >>> point = np.zeros((9, 9, 9), dtype=bool)
    >>> point[4, 4, 4] = True
    >>> int(shell(point, (1.0, 1.0, 1.0), inner_mm=0.5, outer_mm=1.0).sum())  # the six neighbours
    6
    """
    if not 0 <= inner_mm < outer_mm:
        raise ValueError(f"the shell from {inner_mm} to {outer_mm} mm has no width")
    if not mask.any():
        raise ValueError("the mask is empty: it has no surroundings")
    box = box_around(mask, spacing, outer_mm)
    distance = ndimage.distance_transform_edt(~mask[box], sampling=list(spacing))
    around = np.zeros(mask.shape, dtype=bool)
    around[box] = (distance > inner_mm) & (distance <= outer_mm)
    return around


def sphere_fraction(
    shape: Sequence[int],
    spacing: Sequence[float],
    centre: Sequence[float],
    diameter_mm: float,
    samples: int = 5,
) -> NDArray[np.float32]:
    """Fraction of each voxel that a sphere fills.

    Args:
        shape: Size of the grid in voxels.
        spacing: Voxel size in mm.
        centre: Centre of the sphere in voxel indices, also fractions of them.
        diameter_mm: Diameter in mm.
        samples: Number of sampling points along each axis of a voxel.

    Returns:
        `(x, y, z)` in [0, 1].

    Raises:
        ValueError: The diameter or the number of samples is not positive.

    >>> fraction = sphere_fraction((20, 20, 20), (1.0, 1.0, 1.0), (9.3, 9.5, 10.1), diameter_mm=12.0)
    >>> round(float(fraction.sum()))  # pi / 6 * 12^3 mm^3
    905
    """
    if not (diameter_mm > 0 and samples > 0):
        raise ValueError(f"a sphere of {diameter_mm} mm and {samples} samples: both must be positive")
    filled = np.zeros(tuple(shape), np.float32)
    within = (np.arange(samples) + 0.5) / samples - 0.5
    box, squares = [], []
    for side, step, middle in zip(shape, spacing, centre, strict=True):
        reach = diameter_mm / 2 / step + 1
        box.append(
            slice(max(0, math.floor(middle - reach)), max(0, min(side, math.ceil(middle + reach) + 1)))
        )
        points = np.arange(box[-1].start, box[-1].stop)[:, None] + within - middle
        squares.append((points * step) ** 2)
    x, y, z = (square.reshape(-1) for square in squares)
    inside = x[:, None, None] + y[None, :, None] + z <= (diameter_mm / 2) ** 2
    sides = [size for square in squares for size in (square.shape[0], samples)]
    filled[box[0], box[1], box[2]] = inside.reshape(sides).mean(axis=(1, 3, 5))
    return filled


def insert_lesion(
    hu: Scan,
    spacing: Sequence[float],
    centre: Sequence[float],
    diameter_mm: float,
    contrast_hu: float,
) -> Scan:
    """A scan with a spherical lesion added, to be inserted before the scan is degraded.

    The lesion is added to the voxels, so that texture and noise remain; voxels at its border are mixtures
    (partial volume). Enhancing the scan with and without the lesion, degraded by the same draw, gives the
    contrast of the difference, which is free of anatomy and nearly of noise; one run against the clean scan
    with the lesion takes half of the time and carries the noise that `contrast_kept` describes.

    Args:
        hu: Clean scan (x, y, z).
        spacing: Voxel size in mm.
        centre: Centre in voxel indices.
        diameter_mm: Diameter in mm.
        contrast_hu: Contrast in HU, negative for a dark lesion.

    Returns:
        The scan with the lesion, in the number type of the scan.

    Raises:
        ValueError: The diameter is not positive.

    >>> liver = np.full((20, 20, 20), 110, np.int16)
    >>> lesion = insert_lesion(liver, (1.0, 1.0, 1.0), (10, 10, 10), diameter_mm=8.0, contrast_hu=-40.0)
    >>> int(lesion[10, 10, 10]), int(lesion[0, 0, 0])
    (70, 110)
    """
    added = hu + contrast_hu * sphere_fraction(hu.shape, spacing, centre, diameter_mm)
    whole = np.issubdtype(hu.dtype, np.integer)
    return np.asarray(np.rint(added) if whole else added).astype(hu.dtype)


def body_rmse(image: Scan, reference: Scan, body: Mask) -> float:
    """Root mean square error inside the body in HU; air around the patient does not count.

    Args:
        image: HU (x, y, z).
        reference: HU of the clean scan.
        body: Mask of the body.

    Raises:
        ValueError: The shapes differ, or the mask is empty.

    >>> body_rmse(np.full((2, 2, 2), 53.0), np.full((2, 2, 2), 50.0), np.ones((2, 2, 2), dtype=bool))
    3.0
    """
    _check_shapes(image, reference, body)
    if not body.any():
        raise ValueError("the mask of the body is empty")
    error = image[body].astype(np.float64) - reference[body]
    return math.sqrt(float(np.mean(error * error)))


def organ_mean_errors(
    image: Scan,
    reference: Scan,
    labels: NDArray[Any],
    spacing: Sequence[float],
    organs: Mapping[str, int],
    rule: LeakRule | None = None,
) -> dict[str, float]:
    """Error of each organ's mean HU, over the organ's core.

    The core lies deeper than 3 mm and at least one voxel below the surface, as in the phase-leak check
    (`mpfnl.metrics.phase_leak.organ_zones`).

    Args:
        image: HU (x, y, z).
        reference: HU of the clean scan.
        labels: Label map on the same grid.
        spacing: Voxel size in mm.
        organs: Numbers in the label map by organ.
        rule: Depth of the core, and its least volume of 1 mL.

    Returns:
        Image minus reference in HU by organ; organs that are missing or too small are left out.

    Raises:
        ValueError: The shapes differ.

    >>> labels = np.full((12, 12, 12), 5, np.uint8)
    >>> clean = np.full(labels.shape, 110.0)
    >>> organ_mean_errors(clean - 4, clean, labels, (2.0, 2.0, 2.0), {"liver": 5, "spleen": 1})
    {'liver': -4.0}
    """
    _check_shapes(image, reference, labels)
    return mean_errors(image, reference, organ_cores(labels, spacing, organs, rule))


def organ_cores(
    labels: NDArray[Any], spacing: Sequence[float], organs: Mapping[str, int], rule: LeakRule | None = None
) -> dict[str, OrganZones]:
    """The zones of each organ whose core is large enough; see `organ_mean_errors`."""
    rule = rule or LeakRule()
    masks = {name: np.asarray(labels == number) for name, number in organs.items()}
    zones = {name: organ_zones(mask, spacing, rule) for name, mask in masks.items() if mask.any()}
    return {name: each for name, each in zones.items() if each.core_ml >= rule.least_ml}


def mean_errors(image: Scan, reference: Scan, cores: Mapping[str, OrganZones]) -> dict[str, float]:
    """Mean of image minus reference over the core of each organ in HU."""
    return {
        name: float(np.mean(image[each.box][each.core].astype(np.float64) - reference[each.box][each.core]))
        for name, each in cores.items()
    }


def smoothed(hu: Scan, spacing: Sequence[float], sigma_mm: float) -> NDArray[np.float32]:
    """A Gaussian filter of a width in mm; the grid continues beyond its border as its last voxels."""
    sigma = [sigma_mm / step for step in spacing]
    return np.asarray(ndimage.gaussian_filter(hu.astype(np.float32), sigma, mode="nearest", truncate=3.0))


def _check_shapes(*arrays: NDArray[Any]) -> None:
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 3:
        raise ValueError(
            f"all arrays must be (x, y, z) of one shape: {', '.join(str(array.shape) for array in arrays)}"
        )
