"""The normalized surface distance of two masks.

Marching cubes puts a piece of surface into every 2x2x2 neighbourhood that is neither all inside nor
all outside. Its area depends on which of the 8 corners are inside (256 codes) and on the spacing.
DeepMind's surface-distance (Nikolov et al., arXiv 1809.04430) and MONAI keep a table of 256 rows of
triangle normals for it. The table follows from a short rule, used here:

- A code and its complement share a surface: look at the side with fewer corners, at most four.
- Corners of that side that are joined along edges of the cube make one piece; corners that meet only
  across a diagonal are cut off separately (this settles the ambiguous codes).
- Each piece's polygon runs through the middles of the edges that it cuts. There are six pieces, and
  all their triangles have normals along an axis, a face diagonal or a space diagonal.

A triangle with the area vector n on the unit grid has the area |n * (sy sz, sx sz, sx sy)| on a grid
of spacing (sx, sy, sz), so it is enough to count the area along each of these seven directions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from mpfnl.metrics.overlap import BooleanArray, Mask, mask_pair

Corner: TypeAlias = tuple[int, int, int]

CORNERS: tuple[Corner, ...] = tuple((x, y, z) for x, y, z in product((0, 1), repeat=3))
"""The corners of the cube; corner k is bit k of a code."""

_DIRECTIONS = np.array(CORNERS[1:])
_ALONG_ALL = 7

# Distances that differ by less than this part of a voxel are equal: 0.7 + 0.7 mm is within 1.4 mm.
_ROUNDING = 1e-6


def normalized_surface_distance(
    prediction: Mask, reference: Mask, spacing: Sequence[float], tolerance: float
) -> float:
    """Normalized surface distance (NSD, surface Dice): the fraction of two surfaces within a tolerance.

    Nikolov et al., arXiv 1809.04430: the area of either surface's elements within `tolerance` of the other
    surface, over the area of both. Elements are the marching-cubes pieces between voxel centres, weighted by
    their area in mm^2. A mask that reaches the border of the grid is closed there.

    Two empty masks have no NSD: the value is NaN, to be left out of a mean and counted. One empty mask
    gives 0.

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

    >>> a, b = np.zeros((8, 8, 8), dtype=bool), np.zeros((8, 8, 8), dtype=bool)
    >>> a[2:5, 2:5, 2:5], b[3:6, 2:5, 2:5] = True, True  # one cube, and the same moved by one voxel of 2 mm
    >>> normalized_surface_distance(a, b, spacing=(2.0, 2.0, 2.0), tolerance=2.0)
    1.0
    >>> normalized_surface_distance(a, b, spacing=(2.0, 2.0, 2.0), tolerance=1.0) < 1.0
    True
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
    """Codes of all cubes of eight voxel centres: bit k is set where corner k is inside the mask."""
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
    """Area in mm^2 nearer than `reach` mm to an element of the other surface, and the remaining area."""
    surface, other = area > 0, other_area > 0
    shared = area[surface & other]
    alone = surface & ~other
    tree = KDTree(np.argwhere(other) * spacing, balanced_tree=False, compact_nodes=False)
    distance, _ = tree.query(np.argwhere(alone) * spacing, distance_upper_bound=reach)
    near = np.isfinite(distance)
    return float(shared.sum() + area[alone][near].sum()), float(area[alone][~near].sum())


def surface_areas(spacing: Sequence[float]) -> NDArray[np.float64]:
    """The area in mm^2 of the surface in each of the 256 neighbourhoods.

    Args:
        spacing: Distance between voxel centres along x, y and z in mm.

    Returns:
        `(256,)`; bit k of the index says whether `CORNERS[k]` is inside. 0 for codes 0 and 255.
    """
    sx, sy, sz = spacing
    lengths = np.linalg.norm(_DIRECTIONS * np.array((sy * sz, sx * sz, sx * sy)), axis=1)
    areas: NDArray[np.float64] = _eighths() @ lengths / 8
    return areas


@cache
def _eighths() -> NDArray[np.int64]:
    """`(256, 7)`: for each code, the area along each direction of `_DIRECTIONS`, in eighths."""
    table = np.zeros((256, 7), dtype=np.int64)
    for code in range(256):
        inside = {corner for k, corner in enumerate(CORNERS) if code >> k & 1}
        minority = inside if len(inside) <= 4 else set(CORNERS) - inside
        for piece in _pieces(minority):
            for direction, eighths in _piece_area(piece).items():
                table[code, direction - 1] += eighths
    return table


def _pieces(corners: set[Corner]) -> Iterator[set[Corner]]:
    """Groups of corners that are joined along edges of the cube."""
    left = set(corners)
    while left:
        piece = {left.pop()}
        while grown := {corner for corner in left if any(_axis(corner, other) for other in piece)}:
            piece |= grown
            left -= grown
        yield piece


def _axis(a: Corner, b: Corner) -> int:
    """The edge between two corners as a bit (4 for x, 2 for y, 1 for z), or 0 where there is none."""
    bits = CORNERS.index(a) ^ CORNERS.index(b)
    return bits if bits in (1, 2, 4) else 0


def _piece_area(piece: set[Corner]) -> dict[int, int]:
    """The surface around one piece: direction (bits as in `_axis`) to area in eighths."""
    edges = [axis for a, b in combinations(sorted(piece), 2) if (axis := _axis(a, b))]
    across = _ALONG_ALL & ~_union(edges)  # the axis that no edge runs along, where there is one
    if len(piece) == 1:
        return {_ALONG_ALL: 1}
    if len(piece) == 2:  # an edge: a rectangle
        return {across: 4}
    if len(piece) == 3:  # three corners of a face
        return {_ALONG_ALL: 3, across: 4}
    if len(edges) == 4:  # a face
        return {across: 8}
    degrees = {corner: sum(bool(_axis(corner, other)) for other in piece) for corner in piece}
    if max(degrees.values()) == 3:  # a corner and its three neighbours: a plane hexagon
        return {_ALONG_ALL: 6}
    # A chain along all three axes: a skew hexagon, triangulated as in the published table.
    first, second = (corner for corner, degree in degrees.items() if degree == 2)
    middle = _axis(first, second)
    return {_ALONG_ALL: 4} | {middle | axis: 2 for axis in (1, 2, 4) if axis != middle}


def _union(bits: list[int]) -> int:
    union = 0
    for bit in bits:
        union |= bit
    return union
