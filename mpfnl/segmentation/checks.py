"""What a scan must be before a segmenter sees it: TotalSegmentator itself takes nearly anything."""

from __future__ import annotations

import numpy as np

from mpfnl.errors import InputError, SegmentationError
from mpfnl.volumes import Volume
from mpfnl.volumes.grid import check_affine

DARKEST_HU = -50.0
"""Every abdominal scan in HU has fat or air, which is darker than this; [0, 1], grey values and raw detector
numbers without their intercept are not."""

BRIGHTEST_HU = 0.0
"""Every abdominal scan in HU has soft tissue, which is brighter than this."""

SPACING_MM = (0.1, 20.0)
"""The voxel spacings that CT has, generously."""


def check_scan(scan: Volume) -> None:
    """Refuses a scan that TotalSegmentator would answer with garbage or break off on.

    Args:
        scan: The scan in HU.

    Raises:
        SegmentationError: It has NaN, is not in HU, is sheared, or has lost its spacing.
    """
    if not np.isfinite(scan.data).all():
        raise SegmentationError(f"{scan.name}: has voxels that are not finite; repair the scan")
    lowest, highest = float(scan.data.min()), float(scan.data.max())
    if lowest > DARKEST_HU or highest < BRIGHTEST_HU:
        raise SegmentationError(
            f"{scan.name}: its values lie in [{lowest:g}, {highest:g}], which is not HU of an abdomen"
            " (no fat, no air, or no soft tissue); give the scan in HU"
        )
    try:
        check_affine(scan.affine, scan.name)
    except InputError as error:
        raise SegmentationError(str(error)) from None
    least, most = SPACING_MM
    if not all(least <= step <= most for step in scan.spacing):
        spacing = " x ".join(f"{step:g}" for step in scan.spacing)
        raise SegmentationError(f"{scan.name}: its voxels are {spacing} mm; give the scan's true spacing")
    if np.array_equal(np.abs(scan.affine), np.eye(4)):  # with -1, -1, 1 it is ITK's, written in RAS
        raise SegmentationError(
            f"{scan.name}: its affine is the identity, so its spacing and place have been lost; convert it"
            " again from its DICOM slices"
        )
