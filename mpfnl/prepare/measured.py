"""What the quality of a registration is measured on: both phases on one coarse grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mpfnl.prepare.images import Image, coarse, resample, to_voxels

Scan = NDArray[np.float32]
Mask = NDArray[np.bool_]

GRID_MM = 4.0
"""Voxel size on which quality is measured; its thresholds were chosen at this size."""


@dataclass(frozen=True)
class Measured:
    """One moving phase and the portal venous one, on a grid with axes to the right, front and top (RAS).

    Args:
        fixed: HU of the portal venous scan, (x, y, z).
        before: HU of the phase where the scanner's coordinates put it; -1024 outside its field of view.
        after: HU of the phase where the registration put it.
        covered_before: Where the phase's field of view reaches, before.
        covered_after: Where it reaches after.
        displacement: How far each point was moved in all, T(x) - x in mm, (3, x, y, z), RAS.
        spacing: Voxel size in mm.
    """

    fixed: Scan
    before: Scan
    after: Scan
    covered_before: Mask
    covered_after: Mask
    displacement: Scan
    spacing: tuple[float, float, float]


def observe(fixed: Image, moving: Image, transform: sitk.Transform, grid_mm: float = GRID_MM) -> Measured:
    """Brings a registered phase and its reference onto one coarse grid.

    Args:
        fixed: The portal venous scan in HU, its axes along right, front and top (see `Volume.canonical`).
        moving: The other phase in HU.
        transform: From points of `fixed` to points of `moving` (LPS, mm), as `register` finds it.
        grid_mm: Voxel size.
    """
    reference, phase = coarse(fixed, grid_mm), coarse(moving, grid_mm)
    reach = sitk.Image(phase.GetSize(), sitk.sitkUInt8) + 1
    reach.CopyInformation(phase)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    before, after = (_scan(resample(phase, reference, t)) for t in (identity, transform))
    covered = [
        to_voxels(resample(reach, reference, t, sitk.sitkNearestNeighbor, 0)) > 0
        for t in (identity, transform)
    ]
    field = sitk.TransformToDisplacementField(
        transform,
        sitk.sitkVectorFloat32,
        reference.GetSize(),
        reference.GetOrigin(),
        reference.GetSpacing(),
        reference.GetDirection(),
    )
    displacement = to_voxels(field) * np.array([-1, -1, 1], dtype=np.float32)[:, None, None, None]
    x, y, z = reference.GetSpacing()
    return Measured(_scan(reference), before, after, covered[0], covered[1], displacement, (x, y, z))


def _scan(image: Image) -> Scan:
    return np.ascontiguousarray(to_voxels(image), dtype=np.float32)
