"""The Dice similarity coefficient of two masks, and the check of masks that all measures share."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Mask: TypeAlias = NDArray[np.bool_] | Tensor
"""The mask of one volume, `(x, y, z)`, boolean."""

BooleanArray: TypeAlias = NDArray[np.bool_]


def dice(prediction: Mask, reference: Mask) -> float:
    """Dice similarity coefficient of two masks, `2 |A and B| / (|A| + |B|)` (Dice 1945).

    Two empty masks have no coefficient: the value is NaN, to be left out of a mean and counted. One empty
    mask gives 0.

    Args:
        prediction: `(x, y, z)`, boolean, an array or a tensor.
        reference: The same shape.

    Returns:
        A value in [0, 1], or NaN.

    Raises:
        ValueError: If the masks are not 3-D or their shapes differ.
        TypeError: If a mask is not boolean.

    >>> a, b = np.zeros((2, 2, 2), dtype=bool), np.zeros((2, 2, 2), dtype=bool)
    >>> a[0], b[:, 0] = True, True  # two halves of 4 voxels that share 2
    >>> dice(a, b)
    0.5
    """
    a, b = mask_pair(prediction, reference)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    if total == 0:
        return math.nan
    return float(2 * np.count_nonzero(a & b) / total)


def mask_pair(prediction: Mask, reference: Mask) -> tuple[BooleanArray, BooleanArray]:
    """Two masks on one grid, as arrays (without a copy where they are on the CPU).

    Args:
        prediction: `(x, y, z)`, boolean, an array or a tensor on any device.
        reference: The same shape.

    Raises:
        ValueError: If the masks are not 3-D or their shapes differ.
        TypeError: If a mask is not boolean.
    """
    arrays = _as_array(prediction, "prediction"), _as_array(reference, "reference")
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(f"the prediction is {arrays[0].shape}, the reference is {arrays[1].shape}")
    return arrays


def _as_array(mask: Mask, name: str) -> BooleanArray:
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if array.dtype != np.bool_:
        raise TypeError(f"the {name} must be boolean, not {array.dtype}: compare labels first (labels == 7)")
    if array.ndim != 3:
        raise ValueError(f"the {name} must be one volume's mask (x, y, z), not {array.shape}")
    return array
