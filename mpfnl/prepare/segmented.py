"""The abdomen from TotalSegmentator's organs, with the extra `segment`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError, SegmentationError
from mpfnl.segmentation import TotalSegmentatorSegmenter
from mpfnl.volumes import Volume
from mpfnl.volumes.grid import Box

ORGANS = ("liver", "spleen", "pancreas", "kidney_left", "kidney_right", "stomach", "gallbladder", "duodenum")
"""What the kept box must hold."""


def organ_box(volume: Volume, margin_mm: float) -> Box:
    """The box around the upper abdominal organs as TotalSegmentator's 3 mm model finds them.

    Args:
        volume: The portal venous scan in HU.
        margin_mm: Kept around them.

    Raises:
        InputError: Its weights are not there, it broke off, or it found none of the organs.
        MissingExtraError: TotalSegmentator is not installed.
    """
    try:
        with TotalSegmentatorSegmenter(ORGANS, fast=True) as segmenter:
            masks = segmenter.segment(volume)
    except SegmentationError as error:
        raise InputError(str(error)) from error
    return box_around(np.any(list(masks.values()), axis=0), volume, margin_mm)


def box_around(mask: NDArray[np.bool_], volume: Volume, margin_mm: float) -> Box:
    """The box of voxels around a mask, with a margin, within the scan.

    Raises:
        InputError: The mask is empty.
    """
    if not mask.any():
        raise InputError(f"{volume.name}: none of {', '.join(ORGANS)} was found; use --crop body")
    box = []
    for axis in range(3):
        filled = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
        extra = int(np.ceil(margin_mm / volume.spacing[axis]))
        box.append(slice(max(0, int(filled[0]) - extra), min(mask.shape[axis], int(filled[-1]) + 1 + extra)))
    return box[0], box[1], box[2]
