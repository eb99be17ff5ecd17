"""Slices as radiologists look at them: from the feet, front up, the patient's right on the left."""

from __future__ import annotations

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation
from numpy.typing import NDArray


def axial_slice(volume: NDArray[np.generic], affine: NDArray[np.float64], index: int) -> NDArray[np.generic]:
    """One slice across the third voxel axis, turned for display.

    Args:
        volume: `(x, y, z)`.
        affine: Voxel indices to world positions in mm (RAS+).
        index: Along the third axis, as stored.

    Returns:
        `(x, y)` with x from the patient's right to left and y from front to back, where the third axis runs
        along the body; turned as if it did otherwise.
    """
    picked = volume[:, :, index : index + 1]
    canonical = np.asarray(apply_orientation(picked, io_orientation(affine)))
    plane = canonical[:, :, 0] if canonical.shape[2] == 1 else volume[:, :, index]
    return plane[::-1, ::-1]
