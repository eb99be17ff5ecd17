"""Slices on each other: their order, gaps between them, and a tilted gantry straightened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import ConflictError, GridError
from mpfnl.volumes.dicom.slices import Slice
from mpfnl.volumes.grid import Affine, affine_from_lps
from mpfnl.window import AIR_HU

LENGTHWISE_TOLERANCE_MM = 0.05
"""Largest distance of a slice from its regular place along the stack: half of a position's last digit where
positions are rounded to 0.1 mm. Slices closer than this are at one position."""

LENGTHWISE_TOLERANCE = 0.01
"""The same as a fraction of the slice spacing; the larger of the two counts."""

SIDEWAYS_TOLERANCE = 0.1
"""Largest sideways distance of a slice from its regular place, in pixels."""

STEEPEST_TILT_DEG = 45.0
"""A stack that leans further than this is no tilted gantry (30 degrees at most) but a wrong header."""

SEPARATORS = (
    "AcquisitionNumber",
    "TemporalPositionIdentifier",
    "ImageType",
    "ConvolutionKernel",
    "AcquisitionTime",
    "ContentTime",
)
"""Elements that may tell the acquisitions in one series apart."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices at equal distances, in the order of the normal.

    Args:
        slices: The slices.
        step: The distance between neighbours along the normal in mm.
        lean: Sideways distance of each slice from the one before, in mm along columns and rows; (0, 0)
            where the gantry was not tilted.
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
        origin = corner.position + (columns * spacing)[:, :2] @ np.array(first)
        return affine_from_lps(origin, columns, spacing)


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


def overlapping(groups: Sequence[Sequence[Slice]], a: Slice, b: Slice, name: str) -> ConflictError:
    """The error for a series in which two different slices lie at one position.

    Args:
        groups: All slices, those of one position together.
        a: One of the two.
        b: The other.
        name: Name of the scan in messages.
    """
    double = sum(len(group) > 1 for group in groups)
    separators = [keyword for keyword in SEPARATORS if _separates(groups, keyword)]
    advice = f"{separators[0]} tells them apart: " if separators else ""
    return ConflictError(
        f"{name}: two different slices lie at one position ({a.path.name} and {b.path.name}; {double}"
        f" position{'s' if double > 1 else ''} in all), so the series holds several acquisitions; {advice}put"
        " each in a folder of its own"
    )


def _separates(groups: Sequence[Sequence[Slice]], keyword: str) -> bool:
    """Whether an element has as many values as there are acquisitions, each once at most at a position."""
    values = [[each.header.text(keyword) for each in group] for group in groups]
    distinct = {value for group in values for value in group}
    alone = all(len(set(group)) == len(group) for group in values)
    return alone and len(distinct) == max(len(group) for group in groups)


def build_stack(slices: Sequence[Slice], name: str) -> Stack:
    """The stack of slices at different positions.

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
    step = float(depths[-1] - depths[0]) / (len(slices) - 1)
    regular = depths[0] + step * np.arange(len(slices))
    if np.abs(depths - regular).max() > _lengthwise(step):
        raise _irregular(slices, depths, name)
    lean = _lean(slices, name)
    stack = Stack(tuple(slices), step, lean)
    if stack.tilt_deg > STEEPEST_TILT_DEG:
        raise GridError(
            f"{name}: its slices lie {stack.tilt_deg:.0f} degrees off the line at right angles to them, too"
            " far for a tilted gantry; export the series again"
        )
    return stack


def _depths(slices: Sequence[Slice]) -> NDArray[np.float64]:
    """Positions along the normal of the first slice in mm."""
    return np.array([each.position for each in slices]) @ slices[0].normal


def _lengthwise(step: float) -> float:
    return max(LENGTHWISE_TOLERANCE_MM, LENGTHWISE_TOLERANCE * step)


def _irregular(slices: Sequence[Slice], depths: NDArray[np.float64], name: str) -> GridError:
    gaps = np.diff(depths)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    multiples = np.rint(gaps / usual)
    widest = int(np.argmax(gaps))
    pair = f"{slices[widest].path.name} and {slices[widest + 1].path.name}"
    missing = int((multiples - 1).sum())
    if (multiples >= 1).all() and missing and (np.abs(gaps - multiples * usual) <= _lengthwise(usual)).all():
        what = "1 slice is" if missing == 1 else f"{missing} slices are"
        return GridError(
            f"{name}: {what} missing: slices lie {usual:g} mm apart, but {pair} {gaps[widest]:g} mm (at"
            f" {depths[widest]:g} and {depths[widest + 1]:g} mm); copy the whole series"
        )
    return GridError(
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
        raise GridError(
            f"{name}: {slices[worst].path.name} lies {strays[worst]:.2g} mm sideways of the line through the"
            " other slices; put the slices of each field of view in a folder of their own"
        )
    return float(step[0]), float(step[1])


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
