"""Where a scan lies: checks of its affine, and of several scans against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.phases import Phase
from mpfnl.volumes.volume import Affine, Placed, describe, numbers, phase_name

SHEAR_TOLERANCE_DEG = 0.005
"""Axes further than this from a right angle are sheared: 0.04 mm over 500 mm, and just under the angle from
which ITK drops the sform for the qform, so that nibabel and ITK agree on what is let through."""

SPACING_TOLERANCE = 1e-3
"""The largest relative difference between the header's spacing and the spacing in its affine."""

CONVERT = "convert the scan again from its DICOM slices, e.g. with dcm2niix"


def header_affine(header: Any, name: str) -> tuple[Affine, int]:
    """The affine of a NIfTI header, checked, and the code of its space.

    The sform is taken where it is set, else the qform. A file with neither is refused: its voxels have
    no place in the patient, and readers disagree about which one to invent.

    Args:
        header: An unrepaired nibabel header.
        name: How messages name the file.

    Raises:
        InputError: No orientation, not in mm, spacing not positive, not finite, or sheared.
    """
    _check_unit(header, name)
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(pixdim).all() and (pixdim > 0).all()):
        raise InputError(f"{name}: its voxel spacing is {numbers(pixdim)} mm, not positive; {CONVERT}")
    space = int(header["sform_code"]) or int(header["qform_code"])
    if space <= 0:
        raise InputError(f"{name}: has no orientation (neither sform nor qform is set); {CONVERT}")
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{name}: its orientation (qform) is no rotation; {CONVERT}") from error
    check_affine(affine, name)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (np.abs(spacing - pixdim) > SPACING_TOLERANCE * pixdim).any():
        raise InputError(
            f"{name}: its header gives two voxel spacings, {numbers(pixdim)} mm (pixdim) and"
            f" {numbers(spacing)} mm (affine); {CONVERT}"
        )
    return affine, space


def _check_unit(header: Any, name: str) -> None:
    unit = {1: "metres", 3: "micrometres"}.get(int(header["xyzt_units"]) & 7)
    if unit:
        raise InputError(f"{name}: its lengths are in {unit}; give a scan with its spacing in mm")


def check_affine(affine: Affine, name: str) -> None:
    """Refuses an affine that is not finite, has a zero spacing, or is sheared.

    Args:
        affine: Voxel indices to mm, (4, 4).
        name: How messages name the file.

    Raises:
        InputError: As above.
    """
    if not np.isfinite(affine).all():
        raise InputError(f"{name}: its affine has values that are not finite; {CONVERT}")
    columns = affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    if not (spacing > 0).all():
        raise InputError(f"{name}: its voxel spacing is {numbers(spacing)} mm, not positive; {CONVERT}")
    cosines = (columns / spacing).T @ (columns / spacing)
    a, b = max(combinations(range(3), 2), key=lambda pair: abs(cosines[pair]))
    angle = float(np.degrees(np.arccos(np.clip(cosines[a, b], -1.0, 1.0))))
    if abs(angle - 90.0) > SHEAR_TOLERANCE_DEG:
        raise InputError(
            f"{name}: its affine is sheared: {angle:.2f} degrees between {'xyz'[a]} and {'xyz'[b]}"
            " instead of 90 (a tilted gantry?); resample it to a grid with right angles"
        )


@dataclass(frozen=True, eq=False)
class FinerGrid:
    """The grid that divides each voxel of a scan into cubes of smaller ones.

    Args:
        scan: The scan; its file, phase and number type are kept.
        scale: Into how many each edge of a voxel is divided.
    """

    scan: Placed
    scale: int

    @property
    def path(self) -> Path:
        """The scan's file."""
        return self.scan.path

    @property
    def phase(self) -> Phase | None:
        """The scan's contrast phase."""
        return self.scan.phase

    @property
    def shape(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""
        x, y, z = (self.scale * side for side in self.scan.shape)
        return x, y, z

    @property
    def affine(self) -> Affine:
        """Voxel indices to world positions in mm, (4, 4): both grids fill the same box."""
        finer = np.diag([*3 * [1 / self.scale], 1.0])
        finer[:3, 3] = 0.5 / self.scale - 0.5
        placed: Affine = self.scan.affine @ finer
        return placed

    @property
    def space(self) -> int:
        """The NIfTI code of the world's coordinates."""
        return self.scan.space

    @property
    def storage(self) -> np.dtype[Any]:
        """The number type in which the scan is written again."""
        return self.scan.storage

    @property
    def name(self) -> str:
        """The file and the phase, as messages name it."""
        return self.scan.name


def check_same_grid(reference: Placed, others: Sequence[Placed], tolerance_mm: float = 1e-3) -> None:
    """Refuses volumes or scans that do not lie on the reference's grid.

    Two grids are the same when their shapes are equal and each of the eight corner voxels lies at the
    same place in the world.

    Args:
        reference: The volume that the others are compared with.
        others: The other volumes.
        tolerance_mm: How far a corner may lie off.

    Raises:
        InputError: Says which file and phase differs, from which, and by how much.
    """
    for other in others:
        against = _against(reference)
        if not _overlap(reference, other):
            raise InputError(
                f"{other.name}: its field of view does not overlap that of {against};"
                " check that both scans are of the same study and register it"
            )
        if other.shape != reference.shape:
            raise InputError(
                f"{other.name}: its grid has {_by(other)} voxels, that of {against} has {_by(reference)};"
                " register and resample it onto that grid"
            )
        offset = np.linalg.norm(_corners(other) - _corners(reference), axis=1).max()
        if not offset <= tolerance_mm:
            raise InputError(
                f"{other.name}: its grid lies {offset:.4g} mm off that of {against}"
                f" (tolerance {tolerance_mm:g} mm); register and resample it onto that grid"
            )


def _against(reference: Placed) -> str:
    if reference.phase is None:
        return describe(reference.path)
    return f"the {phase_name(reference.phase)} ({reference.path})"


def _by(volume: Placed) -> str:
    return " by ".join(str(size) for size in volume.shape)


def _corners(volume: Placed, margin: float = 0.0) -> NDArray[np.float64]:
    """The world positions in mm of the eight corner voxels (8, 3), moved outwards by a margin in voxels."""
    ends = [(-margin, size - 1 + margin) for size in volume.shape]
    index = np.array(list(product(*ends)), dtype=np.float64)
    return np.asarray(index @ volume.affine[:3, :3].T + volume.affine[:3, 3], dtype=np.float64)


def _overlap(a: Placed, b: Placed) -> bool:
    """Whether two fields of view meet: separating axes along the grid axes of both."""
    return _meets(a, b) and _meets(b, a)


def _meets(box: Placed, other: Placed) -> bool:
    to_index = np.linalg.inv(box.affine)
    index = _corners(other, margin=0.5) @ to_index[:3, :3].T + to_index[:3, 3]
    size = np.array(box.shape)
    return bool(((index.max(axis=0) > -0.5) & (index.min(axis=0) < size - 0.5)).all())
