"""Between volumes (RAS, x first) and SimpleITK images (LPS, z first), and onto other grids."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import SimpleITK as sitk
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

from mpfnl.volumes import Affine, Volume, Voxels
from mpfnl.window import AIR_HU

Image: TypeAlias = sitk.Image
Box: TypeAlias = tuple[slice, slice, slice]

_LPS = np.diag([-1.0, -1.0, 1.0])


def to_image(voxels: Voxels, affine: Affine) -> Image:
    """A SimpleITK image of voxels (x, y, z) and a RAS affine with right angles."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((_LPS @ affine[:3, 3]).tolist())
    image.SetDirection((_LPS @ affine[:3, :3] / spacing).ravel().tolist())
    return image


def to_voxels(image: Image) -> NDArray[Any]:
    """The voxels (x, y, z) of an image; those of a vector image as (component, x, y, z)."""
    array = sitk.GetArrayFromImage(image)
    return array.transpose(2, 1, 0) if array.ndim == 3 else array.transpose(3, 2, 1, 0)


def affine_of(image: Image) -> Affine:
    """The RAS affine of an image."""
    affine = np.eye(4)
    columns = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, :3] = _LPS @ columns
    affine[:3, 3] = _LPS @ np.array(image.GetOrigin())
    return affine


def canonical(volume: Volume) -> Volume:
    """The same scan with its axes nearest to right, anterior and superior: turned, never interpolated."""
    orientation = io_orientation(volume.affine)
    data = np.asarray(apply_orientation(volume.data, orientation))
    affine = volume.affine @ inv_ornt_aff(orientation, volume.shape)
    return Volume(data, affine, volume.path, volume.phase, volume.storage, volume.space)


def crop(volume: Volume, box: Box) -> Volume:
    """The part of a scan in a box of indices."""
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([part.start for part in box], dtype=np.float64)
    return Volume(volume.data[box], affine, volume.path, volume.phase, volume.storage, volume.space)


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
        image: What to look up.
        grid: Where: points of this grid are mapped by the transform to points of the image.
        transform: By default the identity.
        interpolator: SimpleITK's.
        outside: The value where the image does not reach.

    Returns:
        On the grid, in the image's number type.
    """
    return sitk.Resample(
        image, grid, transform or sitk.Transform(3, sitk.sitkIdentity), interpolator, outside
    )
