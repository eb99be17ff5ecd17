"""Structure inside organs: vessels and lesions of the clean scan, and blobs that it does not show.

HU arrays `(x, y, z)`; NumPy and SciPy only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mpfnl.metrics.contrast import Mask, Scan, smoothed
from mpfnl.metrics.phase_leak import box_around

SMOOTHING_MM = 1.5
"""Standard deviation of the Gaussian filter before structures and blobs are sought, in mm."""

CORE_MM = 3.0
"""Depth of an organ's core below its surface, in mm."""

STRUCTURE_HU = 20.0
"""Least distance of a vessel or a lesion from its organ's median in the smoothed clean scan, in HU."""


@dataclass(frozen=True, eq=False)
class OrganStructure:
    """The structures inside an organ, and the homogeneous rest, as the clean scan shows them.

    Args:
        bright: Bright structures such as vessels.
        homogeneous: Core of the organ without any structure and its neighbourhood.
    """

    bright: Mask
    homogeneous: Mask

    @staticmethod
    def find(
        reference: Scan, spacing: Sequence[float], organ: Mask, gap_mm: float = 3.0, least_ml: float = 0.1
    ) -> OrganStructure:
        """Finds structures by their distance from the organ's median in the smoothed clean scan.

        Structures differ by at least 20 HU and hold at least 0.1 mL; thin vessels are missed, and noise of a
        poor clean scan can pass for a structure.

        Args:
            reference: HU of the clean scan.
            spacing: Voxel size in mm.
            organ: Mask of the organ.
            gap_mm: Distance of the homogeneous tissue from structures in mm.
            least_ml: Least volume of a structure in mL.

        Raises:
            ValueError: The mask is empty.

        >>> liver = np.full((30, 30, 30), 110.0)
        >>> liver[12:17, 12:17] = 170.0  # a vessel of 5 mm through a cube of liver
        >>> found = OrganStructure.find(liver, (1.0, 1.0, 1.0), np.ones(liver.shape, dtype=bool))
        >>> [bool(mask[14, 14, 15]) for mask in (found.bright, found.homogeneous)]
        [True, False]
        """
        if not organ.any():
            raise ValueError("the mask of the organ is empty")
        box = box_around(organ, spacing)
        core = eroded(organ[box], spacing, CORE_MM)
        bright, homogeneous = np.zeros(organ.shape, dtype=bool), np.zeros(organ.shape, dtype=bool)
        if core.any():
            smooth = smoothed(reference[box], spacing, SMOOTHING_MM)
            shift = smooth - np.median(smooth[core])
            least = least_ml * 1000 / math.prod(spacing)
            found = core & large_parts(core & (shift > STRUCTURE_HU), least)[0]
            dark = large_parts(core & (shift < -STRUCTURE_HU), least)[0]
            bright[box] = found
            homogeneous[box] = core & eroded(~(found | dark), spacing, gap_mm)
        return OrganStructure(bright, homogeneous)


def blob_rate(
    image: Scan,
    reference: Scan,
    spacing: Sequence[float],
    region: Mask,
    least_hu: float = 10.0,
    least_mm: float = 4.0,
) -> float:
    """Number of blobs in 100 mL of homogeneous organ: structure that the clean scan does not show.

    A blob is a connected region, bright or dark, in which image minus reference, without its median and
    smoothed by 1.5 mm, differs by at least `least_hu`, and whose volume is at least that of a sphere of
    `least_mm`. Noise of the clean scan in the difference can make blobs of its own.

    Args:
        image: HU (x, y, z).
        reference: HU of the clean scan.
        spacing: Voxel size in mm.
        region: Mask of the homogeneous part of an organ, see `OrganStructure`.
        least_hu: Least difference in HU.
        least_mm: Least equivalent diameter in mm.

    Raises:
        ValueError: The region is empty.

    >>> liver, region = np.full((50, 50, 40), 110.0), np.ones((50, 50, 40), dtype=bool)  # 100 mL
    >>> image = liver.copy()
    >>> image[20:28, 20:28, 20:28] += 30
    >>> [blob_rate(each, liver, (1.0, 1.0, 1.0), region) for each in (image, liver - 20)]
    [1.0, 0.0]
    """
    if not region.any():
        raise ValueError("the region is empty")
    box = box_around(region, spacing)
    inside = region[box]
    difference = image[box].astype(np.float32) - reference[box].astype(np.float32)
    difference = np.where(inside, difference - np.median(difference[inside]), np.float32(0))
    weight = smoothed(inside, spacing, SMOOTHING_MM)
    smooth = smoothed(difference, spacing, SMOOTHING_MM) / np.maximum(weight, np.float32(1e-6))
    least = math.pi / 6 * least_mm**3 / math.prod(spacing)
    count = sum(large_parts(inside & (sign * smooth >= least_hu), least)[1] for sign in (1, -1))
    return 100.0 * count / (float(np.count_nonzero(inside)) * math.prod(spacing) / 1000.0)


def eroded(mask: Mask, spacing: Sequence[float], depth_mm: float) -> Mask:
    """A mask without its outermost millimetres, at least one voxel, along each axis.

    The mask is assumed to continue beyond the grid.

    Args:
        mask: Mask (x, y, z).
        spacing: Voxel size in mm.
        depth_mm: Depth in mm.

    >>> int(eroded(np.pad(np.ones((4, 4, 4), dtype=bool), 2), (1.0, 1.0, 1.0), 1.0).sum())
    8
    """
    size = [2 * max(1, math.ceil(depth_mm / step - 1e-6)) + 1 for step in spacing]
    return np.asarray(ndimage.minimum_filter(mask.astype(np.uint8), size, mode="nearest").astype(bool))


def large_parts(mask: Mask, least_voxels: float) -> tuple[Mask, int]:
    """The connected parts of a mask (by faces) that are large enough, and their number."""
    parts, count = ndimage.label(mask)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    large = sizes >= least_voxels
    large[0] = False
    return np.asarray(large[parts]), int(np.count_nonzero(large))
