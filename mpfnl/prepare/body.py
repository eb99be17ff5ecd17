"""Where the body is, and which slices of it are abdomen, from HU alone: no weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.errors import InputError
from mpfnl.volumes.grid import Box
from mpfnl.volumes.intensity import Voxels
from mpfnl.window import BODY_HU

LUNG_HU = -500.0  # darker inside the body is lung, or gas in the bowel
OPENING_MM = 6.0  # thinner things than twice this are the table, clothes, tubes
LUNG_SLICE_CM2 = 30.0  # a slice with more dark area than this in one piece shows the lungs
ABOVE_LUNG_BASE_MM = 90.0  # how far the dome of the liver reaches above the lowest lung
BELOW_LUNG_BASE_MM = 260.0  # from there down to the pelvis' inlet
CT_DARKEST_HU = -150.0  # every CT of a body holds fat or air darker than this


def body_mask(hu: Voxels, spacing: Sequence[float]) -> NDArray[np.bool_]:
    """The body without the table: bright voxels, opened, the largest piece, holes filled slice by slice.

    Args:
        hu: `(x, y, z)`, axes towards right, anterior and superior.
        spacing: Voxel spacing in mm.

    Returns:
        True inside the skin, lungs and bowel gas included. Empty where nothing is brighter than -300 HU.
    """
    bright = np.asarray(hu > BODY_HU)
    if max(spacing[:2]) <= OPENING_MM:
        reach = [max(1, round(OPENING_MM / 2 / step)) for step in spacing[:2]]
        bright = ndimage.binary_opening(bright, np.ones((2 * reach[0] + 1, 2 * reach[1] + 1, 1), bool))
    parts, count = ndimage.label(bright)
    if count == 0:
        return np.zeros(hu.shape, bool)
    body = parts == int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    for z in range(body.shape[2]):
        body[:, :, z] = ndimage.binary_fill_holes(body[:, :, z])
    return np.asarray(body)


def find_body(hu: Voxels, spacing: Sequence[float]) -> NDArray[np.bool_]:
    """The body, as `body_mask`, of what must be a CT scan of one.

    Raises:
        InputError: It is none. The message is a reason only: the caller names the file.
    """
    if float(hu.min()) > CT_DARKEST_HU:
        raise InputError(
            f"its darkest voxel has {float(hu.min()):g}, so it is no CT in HU (an MR scan, or the intercept"
            " is missing); give HU"
        )
    body = body_mask(hu, spacing)
    if not body.any():
        raise InputError("shows no body: nothing is brighter than -300 HU; check that it is a CT scan in HU")
    return body


def abdomen_box(hu: Voxels, body: NDArray[np.bool_], spacing: Sequence[float], margin_mm: float) -> Box:
    """The box to keep: the body from side to side, and the slices around the abdomen.

    Slices are kept from 90 mm above the base of the lungs (the liver's dome lies below that) to 260 mm below
    it (the inlet of the pelvis). See `lung_base` for the base. Without lungs in view nothing is cut off along
    the body.

    Args:
        hu: `(x, y, z)`, axes towards right, anterior and superior.
        body: Where the body is; not empty.
        spacing: Voxel spacing in mm.
        margin_mm: Kept around the body in plane.
    """
    sides = []
    for axis in (0, 1):
        filled = np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis})))
        extra = int(np.ceil(margin_mm / spacing[axis]))
        low, high = max(0, int(filled[0]) - extra), min(body.shape[axis], int(filled[-1]) + 1 + extra)
        sides.append(slice(low, high))
    return sides[0], sides[1], _abdomen_slices(hu, body, spacing)


def _abdomen_slices(hu: Voxels, body: NDArray[np.bool_], spacing: Sequence[float]) -> slice:
    base = lung_base(hu, body, spacing)
    count = body.shape[2]
    if base is None:
        return slice(0, count)
    top = min(count, base + int(np.ceil(ABOVE_LUNG_BASE_MM / spacing[2])) + 1)
    bottom = max(0, base - int(np.ceil(BELOW_LUNG_BASE_MM / spacing[2])))
    return slice(bottom, top)


def lung_base(hu: Voxels, body: NDArray[np.bool_], spacing: Sequence[float]) -> int | None:
    """The lowest slice that shows lung (10 cm2 of it), or None.

    Lungs are the dark pieces in the body that fill more than 30 cm2 of some slice and touch the top of the
    scan, or are larger than any bowel gas (1 litre).
    """
    dark = body & np.asarray(hu < LUNG_HU)
    parts, _ = ndimage.label(dark)
    area_cm2 = spacing[0] * spacing[1] / 100
    lowest: list[int] = []
    for number, where in enumerate(ndimage.find_objects(parts), 1):
        if where is None:
            continue
        slices = (parts[where] == number).sum(axis=(0, 1)) * area_cm2
        litres = slices.sum() * spacing[2] / 10 / 1000
        touches_top = where[2].stop == body.shape[2]
        if slices.max() > LUNG_SLICE_CM2 and (touches_top or litres > 1):
            lowest.append(int(where[2].start + np.flatnonzero(slices > LUNG_SLICE_CM2 / 3)[0]))
    return min(lowest, default=None)
