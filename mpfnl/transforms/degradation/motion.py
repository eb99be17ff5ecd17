"""Motion during the acquisition: smear and double contours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import pad

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.filters import BLOCK_ELEMENTS

LARGEST_AMPLITUDE_MM = 100.0
"""The longest way along an axis that is taken for motion."""

_GAUSS_NODES = np.array([0.5 - math.sqrt(1 / 12), 0.5 + math.sqrt(1 / 12)])
_CORNERS = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)
_NEGLIGIBLE = 1e-9  # smaller weights are rounding errors


class Shift(NamedTuple):
    """A shift by whole voxels and its opposite, both of one weight."""

    offset: tuple[int, int, int]
    weight: float


def motion_blur(
    hu: SpatialVolume, spacing: Sequence[float], amplitude_mm: Sequence[float], double_exposure: float
) -> SpatialVolume:
    """Averages a volume over a straight motion centred on where the volume is.

    The body moves from one end of a line to the other, `amplitude_mm` apart. With `double_exposure` = 0 it
    dwells everywhere alike: edges across the motion are smeared. With 1 it is at either end for half of the
    time, as where a breath is let go: contours double. Between, the two are mixed. Nothing is displaced on
    average.

    A position between voxels is reached by trilinear interpolation. The mean over all positions is exact, not
    a sum over some, see `motion_shifts`.

    Here every ray sees every position. In a real scan each direction of rays sees the body at another
    moment, which also gives streaks and crescents, and slices taken at different moments are displaced
    against each other; neither is modelled. All of the body moves alike, while a breath moves the liver and
    not the spine.

    Args:
        hu: Volume `(x, y, z)`; beyond the border the nearest voxel continues.
        spacing: Voxel spacing in mm along x, y, z.
        amplitude_mm: The way from end to end in mm along x, y, z. Signs count against each other only.
        double_exposure: The share of the two ends, from 0 to 1.

    Returns:
        The blurred volume, on its own grid; the input itself where the amplitude is 0.

    Raises:
        ValueError: An amplitude is beyond 100 mm or not a number, or the share does not lie between 0 and 1.
    """
    if len(amplitude_mm) != 3 or not all(abs(way) <= LARGEST_AMPLITUDE_MM for way in amplitude_mm):
        raise ValueError(
            f"amplitude_mm takes three numbers up to {LARGEST_AMPLITUDE_MM:g}, got {amplitude_mm}"
        )
    if not 0 <= double_exposure <= 1:
        raise ValueError(f"double_exposure is a share from 0 to 1, got {double_exposure}")
    way = np.array([length / step for length, step in zip(amplitude_mm, spacing, strict=True)])
    if not way.any():
        return hu
    return _mean_of_shifts(hu, motion_shifts(way, double_exposure, hu.shape))


def motion_shifts(way: NDArray[np.float64], double_exposure: float, shape: Sequence[int]) -> list[Shift]:
    """A motion as shifts by whole voxels.

    Between two crossings of planes through voxel centres, the trilinear weights are polynomials of the third
    degree or less in the position on the line; two Gauss-Legendre nodes integrate these without error.

    Args:
        way: From end to end in voxels along x, y, z.
        double_exposure: The share of the two ends.
        shape: Of the volume; a longer shift shows nothing but its border, as one by the whole shape does.

    Returns:
        Shifts in a fixed order, the first being none; the weights of all and of their opposites add up to 1.
    """
    crossings = [np.arange(-(n := int(abs(length) / 2)), n + 1) / length for length in way if length]
    ends = np.unique(np.concatenate([*crossings, [-0.5, 0.5]]))
    times = np.diff(ends)
    nodes = (ends[:-1, None] + times[:, None] * _GAUSS_NODES).ravel()
    dwell = np.repeat(times / 2, 2) * (1 - double_exposure)
    positions = np.concatenate([nodes, [-0.5, 0.5]])[:, None] * way
    shares = np.concatenate([dwell, [double_exposure / 2] * 2])

    first = np.floor(positions)
    parts = np.where(_CORNERS, (positions - first)[:, None], (first + 1 - positions)[:, None]).prod(-1)
    offsets = (first[:, None] + _CORNERS).astype(np.int64).reshape(-1, 3)
    limits = np.array(shape) - 1
    both_ways = np.concatenate([offsets, -offsets]).clip(-limits, limits)
    offsets, which = np.unique(both_ways, axis=0, return_inverse=True)
    weights = np.bincount(which.ravel(), np.tile((shares[:, None] * parts).ravel() / 2, 2))
    middle = len(offsets) // 2  # lexicographic order: the opposites stand before it
    pairs = zip(offsets[middle:].tolist(), weights[middle:].tolist(), strict=True)
    return [
        Shift((x, y, z), weight) for (x, y, z), weight in pairs if weight > _NEGLIGIBLE or x == y == z == 0
    ]


def _mean_of_shifts(hu: SpatialVolume, shifts: Sequence[Shift]) -> SpatialVolume:
    margins = [max(abs(shift.offset[axis]) for shift in shifts) for axis in range(3)]
    around = [margin for margin in reversed(margins) for _ in range(2)]
    padded = pad(hu[None, None], around, mode="replicate")[0, 0]
    # Seen as one row, a shift is a step along it; what is summed in the margins is left out at the end.
    row, strides = padded.view(-1), padded.stride()
    steps = [sum(o * s for o, s in zip(shift.offset, strides, strict=True)) for shift in shifts]
    border = sum(margin * stride for margin, stride in zip(margins, strides, strict=True))
    block = BLOCK_ELEMENTS if hu.device.type == "cpu" else len(row)
    total = torch.empty_like(row)
    for start in range(border, len(row) - border, block):
        size = min(block, len(row) - border - start)
        sums = torch.mul(row[start : start + size], shifts[0].weight, out=total[start : start + size])
        scratch = torch.empty_like(sums)
        for step, shift in zip(steps[1:], shifts[1:], strict=True):
            ahead, behind = (row[start + way : start + way + size] for way in (step, -step))
            sums.add_(torch.add(ahead, behind, out=scratch).mul_(shift.weight))
    inner = tuple(slice(margin, size - margin) for margin, size in zip(margins, padded.shape, strict=True))
    return total.view(padded.shape)[inner].contiguous()
