"""How slices lie on each other: their order, what is missing, and how far they are sheared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.volumes.dicom.headers import Tag
from mpfnl.volumes.dicom.slices import Slice
from mpfnl.volumes.grid import Affine

LENGTHWISE_TOLERANCE_MM = 0.05
"""How far along the stack a slice may lie from its regular place: half of a position's last digit where
positions are rounded to 0.1 mm. Slices closer than this are at one position."""

LENGTHWISE_TOLERANCE = 0.01
"""The same as a fraction of the slice spacing; the larger of the two counts."""

SIDEWAYS_TOLERANCE = 0.1
"""How far sideways a slice may lie from its regular place, in pixels."""

STEEPEST_TILT_DEG = 45.0
"""A stack that leans further than this is no tilted gantry (30 degrees at most) but a wrong header."""

_SEPARATORS = {
    Tag.ACQUISITION_NUMBER: "AcquisitionNumber",
    Tag.TEMPORAL_POSITION: "TemporalPositionIdentifier",
    Tag.IMAGE_TYPE: "ImageType",
    Tag.CONVOLUTION_KERNEL: "ConvolutionKernel",
    Tag.ACQUISITION_TIME: "AcquisitionTime",
    Tag.CONTENT_TIME: "ContentTime",
}

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices at equal distances, in the order of the normal.

    Args:
        slices: The slices.
        step: The distance between neighbours along the normal in mm.
        lean: How far each slice lies sideways of the one before, in mm along columns and rows; (0, 0) where
            the gantry was not tilted.
    """

    slices: tuple[Slice, ...]
    step: float
    lean: tuple[float, float]

    @property
    def tilt_deg(self) -> float:
        """The angle between the stack and the slices' normal."""
        return float(np.degrees(np.arctan2(np.hypot(*self.lean), self.step)))

    def affine(self, first: tuple[float, float] = (0.0, 0.0)) -> Affine:
        """The affine at right angles, RAS+.

        Args:
            first: The column and row of the first slice at which the grid begins.
        """
        corner = self.slices[0]
        columns = np.stack([corner.axes[0], corner.axes[1], corner.normal], axis=1)
        spacing = np.array([*corner.spacing, self.step])
        affine = np.eye(4)
        affine[:3, :3] = columns * spacing
        affine[:3, 3] = corner.position + affine[:3, :2] @ np.array(first)
        return np.asarray(_LPS_TO_RAS @ affine, dtype=np.float64)


def order(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices in the order of the normal; those at one depth together, by file name.

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
    return groups


def same_place(a: Slice, b: Slice) -> bool:
    """Whether two slices of one depth also lie at one place sideways."""
    offset = np.abs(a.axes @ (a.position - b.position))
    return bool((offset <= SIDEWAYS_TOLERANCE * np.array(a.spacing)).all())


def overlapping(groups: Sequence[Sequence[Slice]], a: Slice, b: Slice, name: str) -> InputError:
    """The error for a series in which two different slices lie at one position.

    Args:
        groups: All slices, those of one position together.
        a: One of the two.
        b: The other.
        name: How messages name the scan.
    """
    double = sum(len(group) > 1 for group in groups)
    found = [words for tag, words in _SEPARATORS.items() if _separates(groups, tag)]
    advice = f"{found[0]} tells them apart: " if found else ""
    return InputError(
        f"{name}: two different slices lie at one position ({a.path.name} and {b.path.name}; {double}"
        f" position{'s' if double > 1 else ''} in all), so the series holds several acquisitions; {advice}put"
        " each in a folder of its own"
    )


def _separates(groups: Sequence[Sequence[Slice]], tag: Tag) -> bool:
    """Whether an element has as many values as there are acquisitions, each once at most at a position."""
    values = [[each.header.text(tag) for each in group] for group in groups]
    distinct = {value for group in values for value in group}
    alone = all(len(set(group)) == len(group) for group in values)
    return alone and len(distinct) == max(len(group) for group in groups)


def build_stack(slices: Sequence[Slice], name: str) -> Stack:
    """The stack of slices at different positions.

    Args:
        slices: The slices in the order of the normal.
        name: How messages name the scan.

    Raises:
        InputError: There is one slice only, slices are missing between others, or they do not lie at equal
            distances along a line.
    """
    if len(slices) < 2:
        raise InputError(
            f"{name}: has one slice only ({slices[0].path.name}); give the whole series in one folder"
        )
    depths = _depths(slices)
    step = float(depths[-1] - depths[0]) / (len(slices) - 1)
    regular = depths[0] + step * np.arange(len(slices))
    if np.abs(depths - regular).max() > _lengthwise(step):
        raise _irregular(slices, depths, name)
    lean = _lean(slices, name)
    stack = Stack(tuple(slices), step, lean)
    if stack.tilt_deg > STEEPEST_TILT_DEG:
        raise InputError(
            f"{name}: its slices lie {stack.tilt_deg:.0f} degrees off the line at right angles to them, too"
            " far for a tilted gantry; export the series again"
        )
    return stack


def _depths(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """Positions along the normal of the first slice in mm."""
    return np.array([each.position for each in slices]) @ slices[0].normal


def _lengthwise(step: float) -> float:
    return max(LENGTHWISE_TOLERANCE_MM, LENGTHWISE_TOLERANCE * step)


def _irregular(slices: Sequence[Slice], depths: NDArray[np.float64], name: str) -> InputError:
    gaps = np.diff(depths)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    multiples = np.rint(gaps / usual)
    widest = int(np.argmax(gaps))
    pair = f"{slices[widest].path.name} and {slices[widest + 1].path.name}"
    missing = int((multiples - 1).sum())
    if (multiples >= 1).all() and missing and (np.abs(gaps - multiples * usual) <= _lengthwise(usual)).all():
        what = "1 slice is" if missing == 1 else f"{missing} slices are"
        return InputError(
            f"{name}: {what} missing: slices lie {usual:g} mm apart, but {pair} {gaps[widest]:g} mm (at"
            f" {depths[widest]:g} and {depths[widest + 1]:g} mm); copy the whole series"
        )
    return InputError(
        f"{name}: its slices lie at unequal distances, from {gaps.min():g} to {gaps.max():g} mm (the widest"
        f" between {pair}); give a series with equal distances"
    )


def _lean(slices: Sequence[Slice], name: str) -> tuple[float, float]:
    """The sideways step from slice to slice in mm; refuses slices that do not follow one line."""
    first = slices[0]
    offsets = (np.array([each.position for each in slices]) - first.position) @ first.axes.T
    allowed = SIDEWAYS_TOLERANCE * np.array(first.spacing)
    if (np.abs(offsets) <= allowed).all():
        return 0.0, 0.0
    step = offsets[-1] / (len(slices) - 1)
    strays = np.abs(offsets - step * np.arange(len(slices))[:, None]).max(axis=1)
    off = (np.abs(offsets - step * np.arange(len(slices))[:, None]) > allowed).any(axis=1)
    if off.any():
        worst = int(np.argmax(strays))
        raise InputError(
            f"{name}: {slices[worst].path.name} lies {strays[worst]:.2g} mm sideways of the line through the"
            " other slices; put the slices of each field of view in a folder of their own"
        )
    return float(step[0]), float(step[1])
