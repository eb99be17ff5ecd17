"""The slices of a case's scans and masks that its figures show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.data.manifest import Study
from mpfnl.errors import InputError
from mpfnl.evaluation.folder import REFERENCE, mask_file, volume_files
from mpfnl.evaluation.overlap import PANCREAS, Truth, reference_mask
from mpfnl.phases import Phase
from mpfnl.plots.panels import Frame
from mpfnl.plots.planes import ACROSS, Mask, Orientation, PlaneName, tissue_middle, view
from mpfnl.volumes import Volume, read_mask, read_volume
from mpfnl.volumes.grid import check_same_grid

PLANES: dict[PlaneName, int] = {"axial": 2, "coronal": 1, "sagittal": 0}
"""The planes in the order of the rows, and the axis (right, front, top) perpendicular to each."""

MARGIN_MM, LEAST_MM, MIDDLE_MM = 15.0, 60.0, 120.0

Slices = Mapping[PlaneName, NDArray[Any]]
"""Slices `(row, column)` by plane: right or front on the left, front or top up."""


@dataclass(frozen=True, eq=False)
class SlicePosition:
    """Position of a case's slices.

    Args:
        orientation: Orientation of its grid.
        voxels: Voxel of each plane's slice, counted along the turned axes.
        frames: Part around the structure, by plane.
        square: Square part of the axial slice that is enlarged.
    """

    orientation: Orientation
    voxels: Mapping[PlaneName, tuple[int, int, int]]
    frames: Mapping[PlaneName, Frame]
    square: Frame

    def label(self, plane: PlaneName) -> str:
        """The slice, numbered as in the file, with its position."""
        return f"{plane} slice {self.orientation.place(PLANES[plane], self.voxels[plane])}"

    def pixel_mm(self, plane: PlaneName) -> tuple[float, float]:
        """Height and width of a slice's pixels."""
        return _pixel_mm(self.orientation, plane)

    def slices(self, voxels: NDArray[Any]) -> Slices:
        """The slices of a volume that is stored on the case's grid."""
        turned = self.orientation.turned(voxels)
        return {plane: view(turned, plane, voxel).copy() for plane, voxel in self.voxels.items()}


@dataclass(frozen=True, eq=False)
class MethodSlices:
    """Slices of one method's scan and predicted mask.

    Args:
        hu: Slices of the scan; None where there is no scan.
        mask: Slices of the predicted mask; None where there is none.
        empty: Whether that mask has no voxel.
    """

    hu: Slices | None
    mask: Slices | None = None
    empty: bool = False


@dataclass(frozen=True, eq=False)
class CaseSlices:
    """Slices of a case.

    Args:
        position: Position of the slices.
        reference: Slices of the clean scan.
        reference_mask: Slices of the reference mask; None where the study has none or it is empty.
        methods: Slices by method.
    """

    position: SlicePosition
    reference: Slices
    reference_mask: Slices | None
    methods: Mapping[str, MethodSlices]


def read_case(
    study: Study,
    methods: Sequence[str],
    target: Phase,
    folder: Path,
    structure: str | None,
    truth: Truth = Truth.MASK,
) -> CaseSlices:
    """Reads the slices of a case, one scan at a time.

    Slices pass where the reference mask's area is largest along each axis (the first of equal ones, from the
    left, back and bottom); without a mask, through the middle of the soft tissue.

    Args:
        study: The study.
        methods: The methods of its rows.
        target: The phase that was restored.
        folder: The evaluation folder.
        structure: The structure that was segmented; None if nothing was: then the mask is the pancreas'.
        truth: Kind of the reference mask.

    Raises:
        InputError: A file cannot be read, or lies on another grid than the reference.
    """
    reference = read_volume(study.file(target), target)
    mask = _truth(study, reference, target, folder, structure, truth)
    mask = mask if mask is not None and mask.any() else None
    position = slice_position(reference, mask)
    clean = position.slices(reference.data)
    files = volume_files(folder, study.study_id, methods, target)
    slices = {}
    for method in methods:
        predicted = None if structure is None else mask_file(folder, study.study_id, method, structure)
        hu = clean if method == REFERENCE else _read_slices(files[method], target, reference, position)
        slices[method] = _method_slices(hu, predicted, reference, position)
    return CaseSlices(position, clean, None if mask is None else position.slices(mask), slices)


def _truth(
    study: Study, reference: Volume, target: Phase, folder: Path, structure: str | None, truth: Truth
) -> Mask | None:
    """The mask that determines the position of the slices; None without a usable one."""
    try:
        if structure is not None and truth is Truth.REFERENCE_SCAN:
            path = mask_file(folder, study.study_id, REFERENCE, structure)
            return read_mask(path, like=reference) if path.exists() else None
        return reference_mask(study, structure or PANCREAS, reference, target)
    except InputError:  # the rows of the segmentation report it
        return None


def slice_position(reference: Volume, mask: Mask | None) -> SlicePosition:
    """The position of a case's slices.

    Args:
        reference: The clean scan.
        mask: The reference mask, not empty; None if there is none.
    """
    orientation = Orientation(reference.affine, reference.shape)
    if mask is None:
        x, y, z = tissue_middle(orientation.turned(reference.data))
        voxels = dict.fromkeys(PLANES, (x, y, z))
        frames = {plane: _middle(orientation, plane, (x, y, z)) for plane in PLANES}
        return SlicePosition(orientation, voxels, frames, frames["axial"])
    turned = orientation.turned(mask)
    voxels, frames = {}, {}
    for plane, axis in PLANES.items():
        voxels[plane] = _largest(turned, axis)
        shadow = _view(np.asarray(turned.any(axis=axis, keepdims=True)), plane, (0, 0, 0))
        frames[plane] = Frame.around(shadow, _pixel_mm(orientation, plane), MARGIN_MM, LEAST_MM)
    width = max(frame.width for frame in frames.values())  # all planes are drawn at one scale
    frames = {
        plane: frame.widened(width).inside(_whole(orientation, plane)) for plane, frame in frames.items()
    }
    slice_ = _view(turned, "axial", voxels["axial"])
    square = Frame.around(slice_, _pixel_mm(orientation, "axial"), MARGIN_MM, LEAST_MM).squared()
    return SlicePosition(orientation, voxels, frames, square.inside(_whole(orientation, "axial")))


def _largest(mask: Mask, axis: int) -> tuple[int, int, int]:
    """The middle of the mask in the slice across an axis in which it is largest."""
    others = tuple(other for other in range(3) if other != axis)
    index = int(mask.sum(axis=others).argmax())
    inside = np.nonzero(mask.take(index, axis=axis))
    middle = [int(np.median(places)) for places in inside]
    middle.insert(axis, index)
    x, y, z = middle
    return x, y, z


def _view(mask: Mask, plane: PlaneName, voxel: tuple[int, int, int]) -> Mask:
    return np.asarray(view(mask, plane, voxel), dtype=np.bool_)


def _middle(orientation: Orientation, plane: PlaneName, voxel: tuple[int, int, int]) -> Frame:
    """A square around a voxel."""
    top, left = (
        (orientation.turned_shape[axis] - voxel[axis] - 0.5) * orientation.spacing[axis] - MIDDLE_MM / 2
        for axis in ACROSS[plane]
    )
    return Frame(left, top, MIDDLE_MM, MIDDLE_MM).inside(_whole(orientation, plane))


def _whole(orientation: Orientation, plane: PlaneName) -> Frame:
    shape = [orientation.turned_shape[axis] for axis in ACROSS[plane]]
    return Frame.whole(shape, _pixel_mm(orientation, plane))


def _pixel_mm(orientation: Orientation, plane: PlaneName) -> tuple[float, float]:
    rows, columns = (orientation.spacing[axis] for axis in ACROSS[plane])
    return rows, columns


def _read_slices(path: Path, target: Phase, reference: Volume, position: SlicePosition) -> Slices | None:
    if not path.exists():
        return None
    scan = read_volume(path, target)
    check_same_grid(reference, [scan])
    return position.slices(scan.data)


def _method_slices(
    hu: Slices | None, path: Path | None, reference: Volume, position: SlicePosition
) -> MethodSlices:
    if path is None or not path.exists():
        return MethodSlices(hu)
    mask = read_mask(path, like=reference)
    return MethodSlices(hu, position.slices(mask), empty=not mask.any())
