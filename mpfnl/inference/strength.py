"""Strength of an enhancement: a scan that is as good as the references of the training stays as it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mpfnl.samples import ReferenceNoise

FULL_RATIO = 1.33
"""Noise, as a multiple of the references', from which the strength is 1."""


def noise_strength(noise: float, spacing: Sequence[float], reference: ReferenceNoise) -> float:
    """The strength that a scan's noise calls for.

    A network cannot improve a scan beyond the references that it was trained on; on a scan of their quality
    it can only alter noise, edges and low contrast. The strength is therefore 0 up to the noise of the
    references, rises linearly and is 1 from 1.33 times their noise.

    Args:
        noise: Standard deviation of the input's noise in HU, see `noise_sd`.
        spacing: Voxel spacing of the input in mm.
        reference: Noise of the references of the training.

    Returns:
        A number from 0 to 1.

    >>> reference = ReferenceNoise(hu=16.0, exponent=0.3)
    >>> [noise_strength(noise, (3.0, 3.0, 3.0), reference) for noise in (15.0, 16.0, 18.64, 30.0)]
    [0.0, 0.0, 0.5, 1.0]
    """
    expected = reference.at(math.prod(spacing))
    strength = (noise / expected - 1) / (FULL_RATIO - 1)
    return round(min(1.0, max(0.0, strength)), 3)
