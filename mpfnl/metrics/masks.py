"""Boolean masks, as arrays or tensors, checked once for every measure that compares them."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Mask: TypeAlias = NDArray[np.bool_] | Tensor
"""The mask of one volume, `(x, y, z)`, boolean."""

BooleanArray: TypeAlias = NDArray[np.bool_]


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
