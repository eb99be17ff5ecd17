"""Conversion between volumes (RAS, x first) and SimpleITK images (LPS, z first), and resampling."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mpfnl.volumes.grid import Affine, Grid, affine_to_lps
from mpfnl.volumes.intensity import Voxels
from mpfnl.window import AIR_HU

Image: TypeAlias = sitk.Image


def to_image(voxels: Voxels, affine: Affine) -> Image:
    """A SimpleITK image of voxels (x, y, z) and a RAS affine.

    Axes that rounding took off right angles are put at right angles: ITK's files hold no others.
    """
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    x, y, z = voxels.shape
    origin, directions, spacing = affine_to_lps(Grid((x, y, z), affine).right_angled().affine)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection(directions.ravel().tolist())
    return image


def to_voxels(image: Image) -> NDArray[Any]:
    """The voxels (x, y, z) of an image; those of a vector image as (component, x, y, z)."""
    array = sitk.GetArrayFromImage(image)
    return array.transpose(2, 1, 0) if array.ndim == 3 else array.transpose(3, 2, 1, 0)


def isotropic_grid(image: Image, spacing_mm: float) -> Image:
    """An empty grid over the same field of view with voxels of about this size."""
    old_size, old_spacing = np.array(image.GetSize()), np.array(image.GetSpacing())
    size = np.maximum(np.rint(old_size * old_spacing / spacing_mm), 1).astype(int)
    spacing = old_size * old_spacing / size
    grid = sitk.Image(size.tolist(), sitk.sitkUInt8)
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection(image.GetDirection())
    grid.SetOrigin(
        image.TransformContinuousIndexToPhysicalPoint(((spacing - old_spacing) / 2 / old_spacing).tolist())
    )
    return grid


def coarse(image: Image, spacing_mm: float) -> Image:
    """The image on an isotropic grid, smoothed as far as the grid is coarser; float32, air outside."""
    grid = isotropic_grid(image, spacing_mm)
    smooth = sitk.Cast(image, sitk.sitkFloat32)
    for axis, (new, old) in enumerate(zip(grid.GetSpacing(), image.GetSpacing(), strict=True)):
        if new > 1.2 * old and image.GetSize()[axis] >= 4:
            smooth = sitk.RecursiveGaussian(smooth, sigma=0.4 * new, direction=axis)
    return resample(smooth, grid)


def resample(
    image: Image,
    grid: Image,
    transform: sitk.Transform | None = None,
    interpolator: int = sitk.sitkLinear,
    outside: float = AIR_HU,
) -> Image:
    """The image on another grid.

    Args:
        image: Image to interpolate.
        grid: Image with the grid of the result.
        transform: Transform from points of the grid to points of the image; the identity if None.
        interpolator: SimpleITK's interpolator.
        outside: Value outside the image's field of view.

    Returns:
        The image on the grid, in its own number type.
    """
    return sitk.Resample(
        image, grid, transform or sitk.Transform(3, sitk.sitkIdentity), interpolator, outside
    )
