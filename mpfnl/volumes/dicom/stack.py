"""Slices on each other: their order, gaps between them, and a tilted gantry straightened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import GridError
from mpfnl.volumes.dicom.rounding import (
    distances_from_others,
    fit_line,
    last_unit,
    rounded_line,
    rounded_steps,
)
from mpfnl.volumes.dicom.slices import COSINE_UNIT, LENGTH_TOLERANCE, Slice, straightened
from mpfnl.volumes.fileio import numbers
from mpfnl.volumes.grid import Affine, affine_from_lps
from mpfnl.window import AIR_HU

LENGTHWISE_TOLERANCE_MM = 0.05
"""Largest distance of a slice from its regular place along the stack, where the table stops inexactly: what a
rounding to 0.1 mm does, too. Slices closer than this are at one position."""

LENGTHWISE_TOLERANCE = 0.01
"""The same as a fraction of the slice spacing; the larger of the two counts."""

SIDEWAYS_TOLERANCE = 0.1
"""Largest sideways distance of a slice from its regular place, in pixels; rounding of the positions comes on
top."""

STEEPEST_TILT_DEG = 45.0
"""A stack that leans further than this is no tilted gantry (30 degrees at most) but a wrong header."""

FEWEST_ODD_GAPS = 4
"""Gaps a unit longer (or, where slices share a position, shorter) than the others from which on their even
spread is no accident."""

_TINY = 1e-6


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices at equal distances, in the order of the normal.

    Args:
        slices: The slices.
        origin: The centre of the first slice's first pixel in mm (LPS+), by all slices' positions, (3,).
        axes: The directions in which columns and rows are counted (LPS+), orthonormal, (2, 3).
        step: The distance between neighbours along the normal in mm.
        lean: Sideways distance of each slice from the one before, in mm along columns and rows; (0, 0)
            where the gantry was not tilted.
    """

    slices: tuple[Slice, ...]
    origin: NDArray[np.float64]
    axes: NDArray[np.float64]
    step: float
    lean: tuple[float, float]

    @property
    def tilt_deg(self) -> float:
        """The angle between the stack and the slices' normal."""
        return float(np.degrees(np.arctan2(np.hypot(*self.lean), self.step)))

    @property
    def rounding(self) -> tuple[float, float, float]:
        """The largest distance of a slice's position from its place in the stack along each patient axis.

        This is in mm, for a stack that does not lean.
        """
        normal = np.cross(*self.axes)
        places = self.origin + self.step * np.arange(len(self.slices))[:, None] * normal
        positions = np.array([each.position for each in self.slices])
        x, y, z = np.abs(positions - places).max(axis=0)
        return float(x), float(y), float(z)

    def affine(self, first: tuple[float, float] = (0.0, 0.0)) -> Affine:
        """The affine at right angles, RAS+.

        Args:
            first: The column and row of the first slice at which the grid begins.
        """
        columns = np.stack([*self.axes, np.cross(*self.axes)], axis=1)
        spacing = np.array([*self.slices[0].spacing, self.step])
        origin = self.origin + (columns * spacing)[:, :2] @ np.array(first)
        return affine_from_lps(origin, columns, spacing)


def order(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices in the order of the normal; those at one depth together, by file name.

    Slices that lie at one depth only because their positions were rounded are put in the order of their
    numbers.

    Args:
        slices: Slices of one orientation, in any order.
    """
    depths = _depths(slices)
    ranked = sorted(range(len(slices)), key=lambda index: (depths[index], slices[index].path.name))
    groups: list[list[Slice]] = []
    last = -np.inf
    for index in ranked:
        if depths[index] - last > LENGTHWISE_TOLERANCE_MM:
            groups.append([])
            last = depths[index]
        groups[-1].append(slices[index])
    if len(groups) < len(slices):
        numbered = _rounded_together(groups)
        if numbered is not None:
            return [[each] for each in numbered]
    return groups


def _rounded_together(groups: Sequence[Sequence[Slice]]) -> list[Slice] | None:
    """The slices by their numbers, where these follow the depth and rounding explains all positions."""
    numbered = _by_number([each for group in groups for each in group])
    if numbered is None:
        return None
    depths = _depths(numbered)
    if len({len(group) for group in groups}) == 1:  # as many at each depth: rather two scans
        return numbered if _fits_stated(numbered, depths, ("SpacingBetweenSlices",)) else None
    return numbered if _explained_by_rounding(numbered, depths) else None


def _by_number(slices: Sequence[Slice]) -> list[Slice] | None:
    """The slices by their InstanceNumbers, upwards; None where these do not follow the depth."""
    counted = {each.header.number("InstanceNumber"): each for each in slices}
    if None in counted or len(counted) < len(slices):
        return None
    numbered = [each for _, each in sorted(counted.items(), key=lambda item: item[0] or 0.0)]
    depths = _depths(numbered)
    if depths[0] > depths[-1]:
        numbered, depths = numbered[::-1], depths[::-1]
    return numbered if (np.diff(depths) >= 0).all() else None


def coarse_unit(slices: Sequence[Slice]) -> float | None:
    """The unit in mm to which depths may be rounded so coarsely that slices seem to lie at one position.

    Args:
        slices: The slices, of which some lie at one position.

    Returns:
        The unit; None where rounding of equal distances does not give these positions.
    """
    numbered = _by_number(slices)
    if numbered is None and not any(each.header.parts("InstanceNumber") for each in slices):
        numbered = list(slices)
    unit = _depth_unit(slices)
    return None if numbered is None or not _are_rounded(np.sort(_depths(numbered)), unit) else unit


def same_place(a: Slice, b: Slice) -> bool:
    """Whether two slices of one depth also lie at one place sideways."""
    offset = np.abs(a.axes @ (a.position - b.position))
    return bool((offset <= SIDEWAYS_TOLERANCE * np.array(a.spacing)).all())


def is_regular(slices: Sequence[Slice]) -> bool:
    """Whether slices at different positions lie at equal distances; sideways they may lie anywhere.

    Args:
        slices: The slices in the order of the normal.
    """
    return len(slices) > 1 and _is_regular(slices, _depths(slices))


def build_stack(slices: Sequence[Slice], name: str) -> Stack:
    """The stack of slices at different positions.

    Its line is that of least squares through all positions, so that the rounding of a single one matters
    little.

    Args:
        slices: The slices in the order of the normal.
        name: Name of the scan in messages.

    Raises:
        InputError: There is one slice only, slices are missing between others, or they do not lie at equal
            distances along a line.
    """
    if len(slices) < 2:
        raise GridError(
            f"{name}: has one slice only ({slices[0].path.name}); give the whole series in one folder"
        )
    depths = _depths(slices)
    if not _is_regular(slices, depths):
        raise _irregular(slices, depths, name)
    axes = _common_axes(slices)
    normal = np.cross(*axes)
    depth, step = fit_line(depths)
    begin, lean = _lean(slices, axes, step, name)
    origin = slices[0].position + (depth - depths[0]) * normal + begin @ axes
    stack = Stack(tuple(slices), origin, axes, step, lean)
    if stack.tilt_deg > STEEPEST_TILT_DEG:
        raise GridError(
            f"{name}: its slices lie {stack.tilt_deg:.0f} degrees off the line at right angles to them"
            " (ImagePositionPatient against ImageOrientationPatient), too far for a tilted gantry; export the"
            " series again"
        )
    return stack


def _common_axes(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """The directions that the slices share: the median of theirs, which may be rounded."""
    axes = np.median([each.axes for each in slices], axis=0)
    return straightened(axes if np.abs(axes - slices[0].axes).max() <= COSINE_UNIT else slices[0].axes)


def _depths(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """Positions along the common normal in mm."""
    return np.array([each.position for each in slices]) @ np.cross(*_common_axes(slices))


def _is_regular(slices: Sequence[Slice], depths: NDArray[np.float64]) -> bool:
    _, step = fit_line(depths)
    if step <= 0:
        return False
    if distances_from_others(depths).max() <= _lengthwise(step):
        return True
    return _explained_by_rounding(slices, depths)


def _lengthwise(step: float) -> float:
    return max(LENGTHWISE_TOLERANCE_MM, LENGTHWISE_TOLERANCE * step)


def _position_unit(slices: Sequence[Slice]) -> float:
    """The unit in mm to which the positions were rounded."""
    return last_unit([text for each in slices for text in each.header.parts("ImagePositionPatient")])


def _rounding(slices: Sequence[Slice], direction: NDArray[np.float64]) -> float:
    """The largest change of a position along a direction if its numbers are off by half a unit, in mm."""
    return _position_unit(slices) / 2 * float(np.abs(direction).sum())


def _explained_by_rounding(slices: Sequence[Slice], depths: NDArray[np.float64]) -> bool:
    """Whether equal distances, rounded, give these depths, and a missing slice would not.

    Where slices lie less than two units apart, a gap of two may be a missing slice or rounding, and a gap of
    none a copy or rounding. It is rounding if the spacing that the header states gives these depths, or if
    the numbers of the slices have no gap and there are several such gaps, evenly spread. It is none if the
    numbers have gaps, and slices at these numbers have these depths.
    """
    unit = _depth_unit(slices)
    if not _are_rounded(depths, unit):
        return False
    gaps = np.diff(depths)
    counted = _counted(slices)
    apart = np.abs(np.diff(counted))
    evenly = bool((apart == apart[0]).all())
    if not evenly and _follow_numbers(counted, depths, unit):
        return False
    if gaps.max() <= 2 * gaps.min() - unit * (1 - _TINY) or _fits_stated(slices, depths):
        return True  # where a slice is missing, the gap is two distances less one unit at least
    longer = int((gaps > gaps.min() + unit / 2).sum())
    odd = min(longer, len(gaps) - longer) if gaps.min() < unit / 2 else longer
    return odd >= FEWEST_ODD_GAPS and evenly


def _counted(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """The InstanceNumbers, (n,); NaN where a slice has none."""
    counted = [each.header.number("InstanceNumber") for each in slices]
    return np.array([np.nan if number is None else number for number in counted])


def _follow_numbers(counted: NDArray[np.float64], depths: NDArray[np.float64], unit: float) -> bool:
    """Whether slices at equal distances, of which those without a number are missing, have these depths."""
    rising = counted if counted[-1] > counted[0] else -counted
    return bool((np.diff(rising) > 0).all()) and rounded_line(depths, unit, rising)


def _fits_stated(
    slices: Sequence[Slice],
    depths: NDArray[np.float64],
    keywords: Sequence[str] = ("SpacingBetweenSlices", "SliceThickness"),
) -> bool:
    """Whether the distance between slices that the header states gives these depths when it is rounded."""
    stated = filter(None, (slices[0].header.number(each) for each in keywords))
    step = next(stated, None)
    return step is not None and rounded_steps(depths, _depth_unit(slices), abs(step))


def _are_rounded(depths: NDArray[np.float64], unit: float) -> bool:
    """Whether equal distances, rounded, give these depths: then two gaps differ by one unit at most."""
    gaps = np.diff(depths)
    return bool(gaps.max() - gaps.min() <= unit * (1 + _TINY)) and rounded_line(depths, unit)


def _depth_unit(slices: Sequence[Slice]) -> float:
    """The unit to which depths were rounded with their positions, in mm."""
    return 2 * _rounding(slices, slices[0].normal)


def _irregular(slices: Sequence[Slice], depths: NDArray[np.float64], name: str) -> GridError:
    gaps = np.diff(depths)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    widest = int(np.argmax(gaps))
    pair = f"{slices[widest].path.name} and {slices[widest + 1].path.name}"
    unit = _depth_unit(slices)
    apart = np.abs(np.diff(_counted(slices)))
    if _are_rounded(depths, unit) and (apart == apart[0]).all():
        return GridError(
            f"{name}: its positions (ImagePositionPatient) are rounded to {unit:.2g} mm, too coarse to tell"
            f" slices {fit_line(depths)[1]:.2g} mm apart from a series that lacks some; export it again with"
            " full positions"
        )
    multiples = np.rint(gaps / usual)
    missing = int((multiples - 1).sum())
    rounding = (
        unit * (1 + multiples) if usual >= 2 * unit else 0 * multiples
    )  # of a gap, and of the usual one
    forgiven = np.maximum(_lengthwise(usual), rounding)
    if (multiples >= 1).all() and missing and (np.abs(gaps - multiples * usual) <= forgiven).all():
        what = "1 slice is" if missing == 1 else f"{missing} slices are"
        return GridError(
            f"{name}: {what} missing: slices lie {usual:g} mm apart, but {pair} {gaps[widest]:g} mm (at"
            f" {depths[widest]:g} and {depths[widest + 1]:g} mm, ImagePositionPatient); copy the whole series"
        )
    return GridError(
        f"{name}: its slices lie at unequal distances (ImagePositionPatient), from {gaps.min():g} to"
        f" {gaps.max():g} mm (the widest between {pair}); give a series with equal distances"
    )


def _lean(
    slices: Sequence[Slice], axes: NDArray[np.float64], step: float, name: str
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """Where the line through the slices begins and its step, in mm along columns and rows.

    A drift that rounding of positions and cosines explains is no tilt. Refuses slices that do not follow one
    line.
    """
    count = len(slices)
    offsets = (np.array([each.position for each in slices]) - slices[0].position) @ axes.T
    pixels = SIDEWAYS_TOLERANCE * np.array(slices[0].spacing)
    rounding = np.array([_rounding(slices, axis) for axis in axes])
    lines = np.array([fit_line(offsets[:, axis]) for axis in range(2)])
    strays = np.abs(offsets - lines[:, 0] - lines[:, 1] * np.arange(count)[:, None])
    if (strays > pixels + rounding).any():
        worst = int(np.argmax(strays.max(axis=1)))
        stray = max(distances_from_others(offsets[:, axis])[worst] for axis in range(2))
        raise GridError(
            f"{name}: {slices[worst].path.name} lies {stray:.2g} mm sideways of the line through the"
            f" other slices (ImagePositionPatient {numbers(slices[worst].position)}); put the slices of each"
            " field of view in a folder of their own"
        )
    drift = np.abs(lines[:, 1]) * (count - 1)
    if count > 2:
        rounding[strays.max(axis=0) < _TINY] = 0  # positions on a line were not moved by rounding
    if (drift <= pixels + 2 * rounding + LENGTH_TOLERANCE * step * (count - 1)).all():
        return offsets.mean(axis=0), (0.0, 0.0)
    return lines[:, 0], (float(lines[0, 1]), float(lines[1, 1]))


def straighten(hu: NDArray[Any], stack: Stack) -> tuple[NDArray[Any], Affine]:
    """Moves each slice in its own plane so that the stack stands at right angles to it.

    The slices stay where they are in the patient; only the grid on which they are sampled changes. It is
    widened so that no pixel is lost. Pixels in between are interpolated linearly, with -1024 HU around.

    Args:
        hu: The slices in HU (x, y, z).
        stack: Positions of the slices.

    Returns:
        The voxels on the wider grid, in the same number type (whole numbers are rounded), and its affine.
    """
    count = hu.shape[2]
    lean = np.array(stack.lean) / np.array(stack.slices[0].spacing)  # pixels a slice
    first = np.floor(np.minimum(lean * (count - 1), 0.0))
    extra = np.ceil(np.maximum(lean * (count - 1), 0.0) - first).astype(int)
    shape = (hu.shape[0] + int(extra[0]), hu.shape[1] + int(extra[1]), count)
    moved = np.empty(shape, hu.dtype, order="F")
    for index in range(count):
        x, y = lean * index - first
        plane = _moved(hu[:, :, index].astype(np.float64), float(x), shape[0])
        plane = _moved(plane.T, float(y), shape[1]).T
        moved[:, :, index] = np.rint(plane) if hu.dtype.kind == "i" else plane
    return moved, stack.affine((float(first[0]), float(first[1])))


def _moved(plane: NDArray[np.float64], by: float, size: int) -> NDArray[np.float64]:
    """Moves along the first axis by so many pixels (0 or more) into a plane of another size."""
    whole = int(np.floor(by))
    part = by - whole
    near, far = (np.full((size + 1, plane.shape[1]), float(AIR_HU)) for _ in range(2))
    near[whole : whole + len(plane)] = plane
    far[whole + 1 : whole + 1 + len(plane)] = plane[: size - whole]
    return ((1 - part) * near + part * far)[:size]
