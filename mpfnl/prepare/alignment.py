"""Alignment of a registered phase with the portal venous scan, and measures of their agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.prepare.resampling import Image, coarse, resample, to_voxels

HuArray: TypeAlias = NDArray[np.float32]
Mask: TypeAlias = NDArray[np.bool_]

GRID_MM = 4.0
"""Voxel size on which quality is measured; its thresholds were calibrated at this size."""

SOFT_TISSUE_HU = (-200.0, 300.0)
"""Range of HU that is registered and compared: soft tissue; air and dense bone are clipped."""

BINS = 64
"""Histogram bins of each scan, 7.8 HU each."""

STRUCTURE_HU = 20.0
"""Least standard deviation of a neighbourhood with structure; noise on voxels of 4 mm stays below 8."""

MATCHING = 0.5
"""Least squared correlation of two neighbourhoods with the same structure."""


@dataclass(frozen=True)
class Alignment:
    """A registered phase and the portal venous scan on one grid, axes towards right, anterior and superior.

    Args:
        fixed: Portal venous scan in HU, (x, y, z).
        before: The phase in HU at the scanner's coordinates; -1024 outside its field of view.
        after: The phase in HU after registration.
        covered_before: Voxels that the phase covers at the scanner's coordinates.
        covered_after: Voxels that the phase covers after registration.
        displacement: Total displacement T(x) - x in mm, (3, x, y, z), RAS.
        spacing: Voxel spacing in mm.
    """

    fixed: HuArray
    before: HuArray
    after: HuArray
    covered_before: Mask
    covered_after: Mask
    displacement: NDArray[np.float32]
    spacing: tuple[float, float, float]

    @classmethod
    def on_grid(
        cls,
        fixed: Image,
        moving: Image,
        transform: sitk.Transform,
        grid_mm: float = GRID_MM,
        view: Image | None = None,
    ) -> Self:
        """Resamples a registered phase and the portal venous scan onto one isotropic grid.

        Args:
            fixed: Portal venous scan in HU, its axes towards right, anterior and superior.
            moving: The phase in HU.
            transform: Transform from points of `fixed` to points of `moving` (LPS, mm), as of `register`.
            grid_mm: Voxel size of the grid in mm.
            view: Voxels that the phase covers, 1 of 0 and 1; its whole field of view if None.
        """
        reference, phase = coarse(fixed, grid_mm), coarse(moving, grid_mm)
        if view is None or to_voxels(view).all():
            view = sitk.Image(phase.GetSize(), sitk.sitkUInt8) + 1
            view.CopyInformation(phase)
        transforms = (sitk.Transform(3, sitk.sitkIdentity), transform)
        before, after = (_hu(resample(phase, reference, each)) for each in transforms)
        covered_before, covered_after = (
            to_voxels(resample(view, reference, each, sitk.sitkNearestNeighbor, 0)) > 0 for each in transforms
        )
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
        return cls(_hu(reference), before, after, covered_before, covered_after, displacement, (x, y, z))


def _hu(image: Image) -> HuArray:
    return np.ascontiguousarray(to_voxels(image), dtype=np.float32)


def normalized_mutual_information(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Studholme's (Pattern Recognition, 1999): (H(A) + H(B)) / H(A, B), from 1 (none) to 2 (all).

    Args:
        first: HU, any shape.
        second: HU of the same voxels.

    Returns:
        The index, 1 to 2; NaN without voxels, or where all voxels have one value.
    """
    a, b = (np.clip(np.ravel(scan), *SOFT_TISSUE_HU) for scan in (first, second))
    counts = np.histogram2d(a, b, bins=BINS, range=[SOFT_TISSUE_HU, SOFT_TISSUE_HU])[0]
    joint = _entropy(counts.ravel())
    if joint == 0:
        return float("nan")
    return (_entropy(counts.sum(axis=0)) + _entropy(counts.sum(axis=1))) / joint


def mismatch(first: HuArray, second: HuArray, region: Mask) -> float:
    """Share of the neighbourhoods with structure whose structure differs between the scans.

    A neighbourhood is a voxel with its 26 neighbours. It shows structure where HU vary by 20 or more
    (standard deviation) in either scan. The structure is the same where the squared correlation of the two
    scans is at least 0.5: contrast medium may brighten or darken a tissue, but its borders stay in place.

    Args:
        first: HU, (x, y, z).
        second: HU on the same grid.
        region: Voxels that are compared.

    Returns:
        Share from 0 to 1; NaN without structure.
    """
    a, b = (np.clip(scan, *SOFT_TISSUE_HU).astype(np.float64) for scan in (first, second))
    mean_a, mean_b = _local_mean(a), _local_mean(b)
    variance_a = np.maximum(_local_mean(a * a) - mean_a**2, 0)
    variance_b = np.maximum(_local_mean(b * b) - mean_b**2, 0)
    covariance = _local_mean(a * b) - mean_a * mean_b
    structured = region & (np.maximum(variance_a, variance_b) >= STRUCTURE_HU**2)
    if not structured.any():
        return float("nan")
    # One HU squared is added: the correlation with a constant neighbourhood is 0, and no divisor is 0.
    squared = covariance**2 / ((variance_a + 1) * (variance_b + 1))
    return float(np.mean(squared[structured] < MATCHING))


def jacobian_determinant(displacement: NDArray[np.float32], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Local volume change: the determinant of the Jacobian matrix of x + u(x); negative where space folds.

    Args:
        displacement: Displacement u in mm, (3, x, y, z).
        spacing: Voxel spacing in mm; the derivative along an axis of one voxel is 0.
    """
    u = displacement.astype(np.float64)
    slopes = [[_gradient(u[i], j, spacing[j]) for j in range(3)] for i in range(3)]
    matrices = np.moveaxis(np.array(slopes), (0, 1), (-2, -1)) + np.eye(3)
    return np.asarray(np.linalg.det(matrices))


def interior(mask: Mask, depth_mm: float, spacing: Sequence[float], beyond: bool) -> Mask:
    """The voxels of a mask that lie deeper than a distance below its surface.

    Args:
        mask: (x, y, z).
        depth_mm: Distance in mm.
        spacing: Voxel spacing in mm.
        beyond: Whether the mask is assumed to continue beyond the grid.
    """
    padded = mask if beyond else np.pad(mask, 1)
    if padded.all():
        return padded
    deep = ndimage.distance_transform_edt(padded, sampling=spacing) > depth_mm
    return np.asarray(deep if beyond else deep[1:-1, 1:-1, 1:-1])


def _entropy(counts: NDArray[np.float64]) -> float:
    occupied = counts[counts > 0]
    if len(occupied) < 2:
        return 0.0
    shares = occupied / occupied.sum()
    return float(-(shares * np.log(shares)).sum())


def _local_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(ndimage.uniform_filter(values, 3))


def _gradient(values: NDArray[np.float64], axis: int, step: float) -> NDArray[np.float64]:
    if values.shape[axis] < 2:
        return np.zeros_like(values)
    return np.asarray(np.gradient(values, step, axis=axis))
