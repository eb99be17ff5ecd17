"""Motion during the acquisition: blur and double contours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.base import MOST_MM, Degradation, Triple, by, check, triple
from mpfnl.transforms.degradation.convolution import BLOCK_ELEMENTS
from mpfnl.transforms.degradation.stage import (
    Range,
    Stage,
    chance,
    check_probabilities,
    check_ranges,
    uniform,
)
from mpfnl.transforms.seeds import Draws

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
        amplitude_mm: Path from end to end in mm along x, y, z. Only the signs' relation to each other counts.
        double_exposure: Share of the time at the two ends, from 0 to 1.

    Returns:
        The blurred volume, on its own grid; the input itself where the amplitude is 0.

    Raises:
        ValueError: An amplitude is beyond 100 mm or not a number, or the share does not lie between 0 and 1.
    """
    if len(amplitude_mm) != 3 or not all(abs(way) <= MOST_MM for way in amplitude_mm):
        raise ValueError(f"amplitude_mm takes three numbers up to {MOST_MM:g}, got {amplitude_mm}")
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
        way: Path from end to end in voxels along x, y, z.
        double_exposure: Share of the time at the two ends.
        shape: Shape of the volume; a longer shift shows only the border, as one by the whole shape does.

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


@dataclass(frozen=True)
class MotionBlur(Degradation):
    """Motion of the patient during the acquisition.

    Args:
        amplitude_mm: Path from end to end in mm along x, y, z.
        double_exposure: Share of the time at the two ends of the path: 0 blurs, 1 doubles the contours.
    """

    kind = "motion_blur"
    margin = 8
    amplitude_mm: Triple
    double_exposure: float = 0.0

    def __post_init__(self) -> None:
        check("a motion's double_exposure", self.double_exposure, 0, 1)
        path = triple("a motion's amplitude_mm", self.amplitude_mm, -MOST_MM, MOST_MM)
        object.__setattr__(self, "amplitude_mm", path)

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        """Averages along the path; see `motion_blur`."""
        return motion_blur(hu, spacing, self.amplitude_mm, self.double_exposure)

    def describe(self) -> str:
        """For example "motion 0 x 2 x 8 mm"."""
        share = self.double_exposure
        doubled = f" with {100 * share:.3g} % double exposure" if share else ""
        return f"motion {by(self.amplitude_mm)} mm{doubled}"


@dataclass(frozen=True)
class MotionStage(Stage):
    """Motion during the acquisition.

    Args:
        inplane_mm: Range of the path along x and along y in mm.
        slice_mm: Range of the path along z in mm; breathing moves organs mostly along z.
        double_exposure: Range of the share of the time at the ends of the path.
        probability: Probability of the stage.
    """

    degradations = (MotionBlur,)
    inplane_mm: Range
    slice_mm: Range
    double_exposure: Range = (0.0, 0.0)
    probability: float = 1.0

    def __post_init__(self) -> None:
        check_probabilities(self.probability, *self.double_exposure)
        check_ranges(self.inplane_mm, self.slice_mm, self.double_exposure)

    def sample(self, draws: Draws) -> list[Degradation]:
        """Draws the path, which belongs to this acquisition alone."""
        rng = draws.own
        if not chance(self.probability, rng):
            return []
        x, y, z = (uniform(length, rng) for length in (self.inplane_mm, self.inplane_mm, self.slice_mm))
        signed = (x, y if chance(0.5, rng) else -y, z if chance(0.5, rng) else -z)
        return [MotionBlur(signed, uniform(self.double_exposure, rng))]
