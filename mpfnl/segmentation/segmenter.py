"""The `Segmenter` protocol, and the checks of a scan before its segmentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError, SegmentationError
from mpfnl.volumes import Volume
from mpfnl.volumes.grid import check_affine
from mpfnl.volumes.hu_check import hu_fault

StructureMasks: TypeAlias = Mapping[str, NDArray[np.bool_]]
"""Mask (x, y, z) of each structure on the scan's grid; empty where the structure was not found."""

SPACING_MM = (0.1, 20.0)
"""Range of the voxel spacings of CT, with a wide margin."""


class Segmenter(Protocol):
    """Segmenter of anatomical structures in a CT scan.

    A segmenter of one's own needs `structures` and `segment`; `evaluate(..., segmenter=...)` and the other
    functions with a segmenter then take it as they take TotalSegmentator.

    Example:
        >>> class Threshold(Segmenter):
        ...     structures = ("pancreas",)
        ...     def segment(self, scan):
        ...         return {"pancreas": scan.data > 60}
        >>> scan = Volume.from_array(np.array([[[-100, 40, 90]]]), np.eye(4), "scan.nii.gz")
        >>> Threshold().segment(scan)["pancreas"].tolist()
        [[[False, False, True]]]
        >>> Threshold().describe()
        {'segmenter': 'Threshold', 'structures': ['pancreas']}
    """

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the structures, as in TotalSegmentator."""

    @property
    def notice(self) -> str:
        """Caution that every table and figure made with this segmenter repeats; empty for none."""
        return ""

    def describe(self) -> dict[str, Any]:
        """Software, version, task, resampling and weights that define the results, as JSON values."""
        return {"segmenter": type(self).__name__, "structures": list(self.structures)}

    def segment(self, scan: Volume) -> StructureMasks:
        """Segments one scan.

        Args:
            scan: Scan in HU.

        Returns:
            Mask of each of `structures`.

        Raises:
            SegmentationError: This scan cannot be segmented; others may be.
            InputError: No scan can be segmented, for example because weights are missing.
        """


def check_scan(scan: Volume) -> None:
    """Refuses a scan on which TotalSegmentator would fail or return a meaningless mask.

    Args:
        scan: Scan in HU.

    Raises:
        SegmentationError: The scan has NaN, is not in HU, is sheared, or has lost its spacing.
    """
    if not np.isfinite(scan.data).all():
        raise SegmentationError(f"{scan.name}: has voxels that are not finite; repair the scan")
    if fault := hu_fault(scan.data):
        raise SegmentationError(f"{scan.name}: {fault}")
    try:
        check_affine(scan.affine, scan.name)
    except InputError as error:
        raise SegmentationError(str(error)) from None
    least, most = SPACING_MM
    if not all(least <= step <= most for step in scan.spacing):
        spacing = " x ".join(f"{step:g}" for step in scan.spacing)
        raise SegmentationError(f"{scan.name}: its voxels are {spacing} mm; give the scan's true spacing")
    if np.array_equal(np.abs(scan.affine), np.eye(4)):  # diag(-1, -1, 1) is ITK's identity in RAS
        raise SegmentationError(
            f"{scan.name}: its affine is the identity, so its spacing and position are lost; convert it again"
            " from its DICOM slices"
        )
