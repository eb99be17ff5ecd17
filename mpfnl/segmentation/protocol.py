"""What the study asks of a segmenter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpfnl.volumes import Volume

Masks: TypeAlias = Mapping[str, NDArray[np.bool_]]
"""Structure name to mask (x, y, z) on the scan's grid; empty where the structure was not found."""


class Segmenter(Protocol):
    """Finds anatomical structures in a CT scan."""

    @property
    def structures(self) -> tuple[str, ...]:
        """The structures that it finds, by TotalSegmentator's names."""

    @property
    def notice(self) -> str:
        """What a reader must know about every result made with it; empty if there is nothing."""

    def describe(self) -> dict[str, Any]:
        """What defines its results, as JSON values: software, version, task, resampling, weights."""

    def segment(self, scan: Volume) -> Masks:
        """Segments one scan.

        Args:
            scan: The scan in HU.

        Returns:
            A mask for each of `structures`.

        Raises:
            SegmentationError: This scan could not be segmented; others may be.
            InputError: No scan can be segmented: weights are missing, and the like.
        """
