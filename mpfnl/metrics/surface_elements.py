"""The area of the surface that crosses a cube of eight neighbouring voxel centres.

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

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations, product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Corner: TypeAlias = tuple[int, int, int]

CORNERS: tuple[Corner, ...] = tuple((x, y, z) for x, y, z in product((0, 1), repeat=3))
"""The corners of the cube; corner k is bit k of a code."""

_DIRECTIONS = np.array(CORNERS[1:])
_ALONG_ALL = 7


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
    """The corners in groups that are joined along edges of the cube."""
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
