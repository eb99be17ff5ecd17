"""Cropping of the portal venous scan to the abdomen: from HU alone, or from TotalSegmentator's organs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.errors import InputError, IntensityError, SegmentationError
from mpfnl.prepare.settings import PrepareSettings
from mpfnl.segmentation import TotalSegmentatorSegmenter
from mpfnl.volumes import Volume
from mpfnl.volumes.grid import Box
from mpfnl.volumes.hu_check import hu_fault
from mpfnl.volumes.intensity import Voxels
from mpfnl.window import BODY_HU

LUNG_HU = -500.0  # upper bound of lung and bowel gas
OPENING_MM = 6.0  # radius of the opening: thinner objects are the table, clothes and tubes
LUNG_SLICE_CM2 = 30.0  # least connected dark area of a slice that shows the lungs
ABOVE_LUNG_BASE_MM = 90.0  # the dome of the liver lies below this height above the lung base
BELOW_LUNG_BASE_MM = 260.0  # distance from the lung base to the pelvic inlet
COARSE_MM = 3.0  # voxel size on which the abdomen is located
ORGANS = ("liver", "spleen", "pancreas", "kidney_left", "kidney_right", "stomach", "gallbladder", "duodenum")
"""Organs inside the box of `crop="segmentation"`."""


def find_box(target: Volume, settings: PrepareSettings) -> Box:
    """The box of the portal venous scan that a preparation keeps.

    Args:
        target: Portal venous scan, its axes towards right, anterior and superior.
        settings: Crop method and margin.

    Raises:
        InputError: The scan shows no body, or its organs were not found.
        MissingExtraError: TotalSegmentator is needed and not installed.
    """
    body = scan_body(target)
    if settings.crop == "none":
        x, y, z = (slice(0, size) for size in target.shape)
        return x, y, z
    if settings.crop == "segmentation":
        return organ_box(target, settings.margin_mm)
    hu, spacing, steps = _subsampled(target)
    x, y, z = (
        slice(side.start * step, min(side.stop * step, size))
        for side, step, size in zip(
            abdomen_box(hu, body, spacing, settings.margin_mm), steps, target.shape, strict=True
        )
    )
    return x, y, z


def scan_body(scan: Volume) -> NDArray[np.bool_]:
    """The body in a scan, on its voxels thinned to about 3 mm.

    Raises:
        IntensityError: The scan shows no body in HU; the message names its file and phase.
    """
    hu, spacing, _ = _subsampled(scan)
    try:
        return find_body(hu, spacing)
    except IntensityError as error:
        raise IntensityError(f"{scan.name}: {error}") from None


def _subsampled(scan: Volume) -> tuple[Voxels, list[float], list[int]]:
    """Every few voxels of a scan, their spacing, and the step along each axis."""
    steps = [max(1, round(COARSE_MM / spacing)) for spacing in scan.spacing]
    spacing = [step * size for step, size in zip(steps, scan.spacing, strict=True)]
    return scan.data[:: steps[0], :: steps[1], :: steps[2]], spacing, steps


def body_mask(hu: Voxels, spacing: Sequence[float]) -> NDArray[np.bool_]:
    """The body without the table: bright voxels, opened, largest component, holes filled slice by slice.

    Args:
        hu: `(x, y, z)`, axes towards right, anterior and superior.
        spacing: Voxel spacing in mm.

    Returns:
        Mask inside the skin, lungs and bowel gas included; empty if no voxel is brighter than -300 HU.
    """
    bright = np.asarray(hu > BODY_HU)
    if max(spacing[:2]) <= OPENING_MM:
        reach = [max(1, round(OPENING_MM / 2 / step)) for step in spacing[:2]]
        bright = ndimage.binary_opening(bright, np.ones((2 * reach[0] + 1, 2 * reach[1] + 1, 1), bool))
    components, count = ndimage.label(bright)
    if count == 0:
        return np.zeros(hu.shape, bool)
    body = components == int(np.argmax(np.bincount(components.ravel())[1:])) + 1
    for z in range(body.shape[2]):
        body[:, :, z] = ndimage.binary_fill_holes(body[:, :, z])
    return np.asarray(body)


def find_body(hu: Voxels, spacing: Sequence[float]) -> NDArray[np.bool_]:
    """The body of a CT scan, as `body_mask`.

    Raises:
        IntensityError: The voxels are not HU of a body. The message holds the reason only, not the file.
    """
    if fault := hu_fault(hu):
        raise IntensityError(fault)
    body = body_mask(hu, spacing)
    if not body.any():
        raise IntensityError(
            "shows no body: no voxel is brighter than -300 HU; check that it is a CT scan in HU"
        )
    return body


def abdomen_box(hu: Voxels, body: NDArray[np.bool_], spacing: Sequence[float], margin_mm: float) -> Box:
    """The box of the abdomen: the body in plane with a margin, and the slices around the abdomen.

    The slices reach from 90 mm above the lung base (above the dome of the liver) to 260 mm below it (the
    pelvic inlet); see `lung_base`. Without lungs in view all slices are kept.

    Args:
        hu: `(x, y, z)`, axes towards right, anterior and superior.
        body: Mask of the body; not empty.
        spacing: Voxel spacing in mm.
        margin_mm: Margin around the body in plane, in mm.
    """
    return (
        _extent(body, 0, spacing, margin_mm),
        _extent(body, 1, spacing, margin_mm),
        _abdomen_slices(hu, body, spacing),
    )


def _extent(mask: NDArray[np.bool_], axis: int, spacing: Sequence[float], margin_mm: float) -> slice:
    """The extent of a mask along an axis, with a margin, within the grid."""
    occupied = np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))
    margin = int(np.ceil(margin_mm / spacing[axis]))
    return slice(max(0, int(occupied[0]) - margin), min(mask.shape[axis], int(occupied[-1]) + 1 + margin))


def _abdomen_slices(hu: Voxels, body: NDArray[np.bool_], spacing: Sequence[float]) -> slice:
    base = lung_base(hu, body, spacing)
    count = body.shape[2]
    if base is None:
        return slice(0, count)
    top = min(count, base + int(np.ceil(ABOVE_LUNG_BASE_MM / spacing[2])) + 1)
    bottom = max(0, base - int(np.ceil(BELOW_LUNG_BASE_MM / spacing[2])))
    return slice(bottom, top)


def lung_base(hu: Voxels, body: NDArray[np.bool_], spacing: Sequence[float]) -> int | None:
    """The lowest slice with lung (at least 10 cm2), or None.

    Lungs are the dark components of the body that fill more than 30 cm2 of some slice and either touch the
    top of the scan or exceed the volume of any bowel gas (1 litre).
    """
    dark = body & np.asarray(hu < LUNG_HU)
    components, _ = ndimage.label(dark)
    area_cm2 = spacing[0] * spacing[1] / 100
    lowest: list[int] = []
    for number, region in enumerate(ndimage.find_objects(components), 1):
        if region is None:
            continue
        slices = (components[region] == number).sum(axis=(0, 1)) * area_cm2
        litres = slices.sum() * spacing[2] / 10 / 1000
        touches_top = region[2].stop == body.shape[2]
        if slices.max() > LUNG_SLICE_CM2 and (touches_top or litres > 1):
            lowest.append(int(region[2].start + np.flatnonzero(slices > LUNG_SLICE_CM2 / 3)[0]))
    return min(lowest, default=None)


def organ_box(volume: Volume, margin_mm: float) -> Box:
    """The box around the upper abdominal organs as segmented by TotalSegmentator's 3 mm model.

    Args:
        volume: Portal venous scan in HU.
        margin_mm: Margin around the organs in mm.

    Raises:
        InputError: TotalSegmentator's weights are missing, it failed, or it found none of the organs.
        MissingExtraError: TotalSegmentator is not installed.
    """
    try:
        with TotalSegmentatorSegmenter(ORGANS, fast=True) as segmenter:
            masks = segmenter.segment(volume)
    except SegmentationError as error:
        raise InputError(str(error)) from error
    return box_around(np.any(list(masks.values()), axis=0), volume, margin_mm)


def box_around(mask: NDArray[np.bool_], volume: Volume, margin_mm: float) -> Box:
    """The box of voxels around a mask of organs, with a margin, within the scan.

    Raises:
        IntensityError: The mask is empty.
    """
    if not mask.any():
        raise IntensityError(f"{volume.name}: none of {', '.join(ORGANS)} was found; use --crop body")
    x, y, z = (_extent(mask, axis, volume.spacing, margin_mm) for axis in range(3))
    return x, y, z
