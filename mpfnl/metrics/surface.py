"""Distance between the surfaces of two masks: the normalized surface distance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from mpfnl.metrics.masks import BooleanArray, Mask, mask_pair
from mpfnl.metrics.surface_elements import CORNERS, surface_areas

# Distances that differ by less than this part of a voxel are equal: 0.7 + 0.7 mm is within 1.4 mm.
_ROUNDING = 1e-6


def normalized_surface_distance(
    prediction: Mask, reference: Mask, spacing: Sequence[float], tolerance: float
) -> float:
    """The share of two surfaces that lies within a tolerance of the other (NSD, surface Dice).

    Nikolov et al., arXiv 1809.04430: the area of either surface's elements within `tolerance` of the
    other surface, over the area of both. Elements are the marching-cubes pieces between voxel
    centres, weighted by their area in mm^2 (`mpfnl.metrics.surface_elements`). A mask that reaches
    the border of the grid is closed there.

    Both masks empty: not defined, NaN; to be left out of a mean and counted. One mask empty: 0.

    Args:
        prediction: `(x, y, z)`, boolean, an array or a tensor.
        reference: The same shape.
        spacing: Distance between voxel centres along x, y and z in mm.
        tolerance: Distance in mm that still counts as agreement, 0 or more.

    Returns:
        A value in [0, 1], or NaN.

    Raises:
        ValueError: If the masks are not 3-D, their shapes differ, or the spacing or the tolerance
            is not usable.
        TypeError: If a mask is not boolean.
    """
    a, b = mask_pair(prediction, reference)
    if len(spacing) != 3 or not all(0 < step < math.inf for step in spacing):
        raise ValueError(f"the spacing is {tuple(spacing)}; it must be three positive numbers of mm")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"the tolerance is {tolerance} mm; it must be finite and not negative")
    a, b = _crop_to_union(a, b)
    if not (a.any() and b.any()):
        return 0.0 if a.any() or b.any() else math.nan
    areas = surface_areas(spacing)
    area_a, area_b = areas[_neighbour_codes(a)], areas[_neighbour_codes(b)]
    reach = tolerance + _ROUNDING * min(spacing)
    inside_a, outside_a = _split_area(area_a, area_b, spacing, reach)
    inside_b, outside_b = _split_area(area_b, area_a, spacing, reach)
    inside, outside = inside_a + inside_b, outside_a + outside_b
    return inside / (inside + outside)


def _crop_to_union(a: BooleanArray, b: BooleanArray) -> tuple[BooleanArray, BooleanArray]:
    """Both masks on the smallest box that holds them; empty arrays where both are empty."""
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(a.any(axis=others) | b.any(axis=others))
        box = slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0)
        index = tuple(box if other == axis else slice(None) for other in range(3))
        a, b = a[index], b[index]
    return a, b


def _neighbour_codes(mask: BooleanArray) -> NDArray[np.uint8]:
    """For each cube of eight voxel centres, one voxel beyond the mask included, which are inside."""
    padded = np.pad(mask, 1).view(np.uint8)
    shape = tuple(size + 1 for size in mask.shape)
    codes = np.zeros(shape, dtype=np.uint8)
    for bit, corner in enumerate(CORNERS):
        shifted = padded[tuple(slice(at, at + size) for at, size in zip(corner, shape, strict=True))]
        codes |= shifted << np.uint8(bit)
    return codes


def _split_area(
    area: NDArray[np.float64], other_area: NDArray[np.float64], spacing: Sequence[float], reach: float
) -> tuple[float, float]:
    """The area in mm^2 that lies nearer than `reach` mm to an element of the other surface, and the rest."""
    surface, other = area > 0, other_area > 0
    shared = area[surface & other]
    alone = surface & ~other
    tree = KDTree(np.argwhere(other) * spacing, balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(np.argwhere(alone) * spacing, distance_upper_bound=reach)
    near = np.isfinite(distance)
    return float(shared.sum() + area[alone][near].sum()), float(area[alone][~near].sum())
