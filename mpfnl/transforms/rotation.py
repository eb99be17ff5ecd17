"""Rotations by multiples of 90 degrees: whole voxels move, nothing is interpolated."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_PLANES = ((1, 2), (2, 0), (0, 1))  # the plane that each axis is normal to, right-handed


def rotate90(volume: Tensor, axis: int, turns: int) -> Tensor:
    """Rotates the last three axes of a tensor about one of them.

    Args:
        volume: Tensor `(..., x, y, z)`.
        axis: Axis of the rotation: 0, 1 or 2 for x, y or z.
        turns: Number of quarter turns, from the next axis to the one after (x to y about z).

    Returns:
        The rotated tensor; the sizes of the plane's two axes are swapped by an odd number of turns.

    Raises:
        ValueError: The axis is not 0, 1 or 2.
    """
    first, second = _plane(axis)
    return torch.rot90(volume, turns, (first - 3, second - 3))


def rotate90_affine(affine: np.ndarray, shape: Sequence[int], axis: int, turns: int) -> np.ndarray:
    """The affine that goes with a rotated array: every voxel keeps its place in the world.

    The two spacings of the plane are swapped by an odd number of turns, as the array's axes are.

    Args:
        affine: Affine `(4, 4)` of the array before the rotation, voxels to mm.
        shape: Spatial shape `(x, y, z)` before the rotation.
        axis: Axis of the rotation: 0, 1 or 2.
        turns: Number of quarter turns.

    Returns:
        The affine `(4, 4)` of the rotated array.

    Raises:
        ValueError: The axis is not 0, 1 or 2.
    """
    first, second = _plane(axis)
    sizes = list(shape)
    result = np.array(affine, dtype=np.float64)
    for _ in range(turns % 4):
        # One turn puts at (i, j) what was at (j, size_second - 1 - i).
        source = np.eye(4)
        source[[first, second]] = 0
        source[first, second] = 1
        source[second, first] = -1
        source[second, 3] = sizes[second] - 1
        result = result @ source
        sizes[first], sizes[second] = sizes[second], sizes[first]
    return result


def checked_axis(axis: int) -> int:
    """An axis of a rotation: 0, 1 or 2.

    Raises:
        ValueError: The axis is none of them.
    """
    if axis not in (0, 1, 2):
        raise ValueError(f"the axis of a rotation is 0, 1 or 2, got {axis}")
    return axis


def _plane(axis: int) -> tuple[int, int]:
    return _PLANES[checked_axis(axis)]
