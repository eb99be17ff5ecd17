"""Slices of a tilted gantry, moved onto a grid with right angles."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.volumes.dicom.stack import Stack
from mpfnl.volumes.grid import Affine
from mpfnl.window import AIR_HU


def straighten(hu: NDArray[Any], stack: Stack) -> tuple[NDArray[Any], Affine]:
    """Moves each slice in its own plane so that the stack stands at right angles to it.

    The slices stay where they are in the patient; only the grid on which they are sampled changes. It is
    widened so that no pixel is lost. Pixels in between are interpolated linearly, with -1024 HU around.

    Args:
        hu: The slices in HU (x, y, z).
        stack: How they lie.

    Returns:
        The voxels on the wider grid, in the same number type (whole numbers are rounded), and its affine.
    """
    count = hu.shape[2]
    lean = np.array(stack.lean) / np.array(stack.slices[0].spacing)  # pixels a slice
    first = np.floor(np.minimum(lean * (count - 1), 0.0))
    extra = np.ceil(np.maximum(lean * (count - 1), 0.0) - first).astype(int)
    shape = (hu.shape[0] + int(extra[0]), hu.shape[1] + int(extra[1]), count)
    moved = np.empty(shape, hu.dtype, order="F")
    for index in range(count):
        x, y = lean * index - first
        plane = _moved(hu[:, :, index].astype(np.float64), float(x), shape[0])
        plane = _moved(plane.T, float(y), shape[1]).T
        moved[:, :, index] = np.rint(plane) if hu.dtype.kind == "i" else plane
    return moved, stack.affine((float(first[0]), float(first[1])))


def _moved(plane: NDArray[np.float64], by: float, size: int) -> NDArray[np.float64]:
    """Moves along the first axis by so many pixels (0 or more) into a plane of another size."""
    whole = int(np.floor(by))
    part = by - whole
    near, far = (np.full((size + 1, plane.shape[1]), float(AIR_HU)) for _ in range(2))
    near[whole : whole + len(plane)] = plane
    far[whole + 1 : whole + 1 + len(plane)] = plane[: size - whole]
    return ((1 - part) * near + part * far)[:size]
