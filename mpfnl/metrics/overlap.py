"""Overlap of two masks: the Dice similarity coefficient."""

from __future__ import annotations

import math

import numpy as np

from mpfnl.metrics.masks import Mask, mask_pair


def dice(prediction: Mask, reference: Mask) -> float:
    """Dice similarity coefficient of two masks, `2 |A and B| / (|A| + |B|)` (Dice 1945).

    Both masks empty: not defined, NaN; to be left out of a mean and counted. One mask empty: 0.

    Args:
        prediction: `(x, y, z)`, boolean, an array or a tensor.
        reference: The same shape.

    Returns:
        A value in [0, 1], or NaN.

    Raises:
        ValueError: If the masks are not 3-D or their shapes differ.
        TypeError: If a mask is not boolean.
    """
    a, b = mask_pair(prediction, reference)
    total = np.count_nonzero(a) + np.count_nonzero(b)
    if total == 0:
        return math.nan
    return 2 * np.count_nonzero(a & b) / total
