"""Space-to-depth and depth-to-space in 3D: the pixel shuffle of Shi et al. (CVPR 2016) on three axes."""

from __future__ import annotations

from mpfnl.shapes import Features, Reshaped


def space_to_depth(volume: Features, factor: int) -> Reshaped:
    """Folds each `factor^3` cube of voxels into channels.

    Args:
        volume: `(batch, C, x, y, z)`, each side divisible by `factor`.
        factor: Edge of the cube in voxels.

    Returns:
        `(batch, C * factor^3, x / factor, y / factor, z / factor)`.

    >>> import torch
    >>> space_to_depth(torch.arange(8.0).reshape(1, 1, 2, 2, 2), 2).flatten()
    tensor([0., 1., 2., 3., 4., 5., 6., 7.])
    >>> space_to_depth(torch.zeros(1, 3, 4, 6, 8), 2).shape
    torch.Size([1, 24, 2, 3, 4])
    """
    batch, channels, *sides = volume.shape
    x, y, z = (side // factor for side in sides)
    cubes = volume.reshape(batch, channels, x, factor, y, factor, z, factor)
    return cubes.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels * factor**3, x, y, z)


def depth_to_space(volume: Features, factor: int) -> Reshaped:
    """Unfolds channels into cubes of voxels; the inverse of `space_to_depth`.

    Args:
        volume: `(batch, C * factor^3, x, y, z)`.
        factor: Edge of the cube in voxels.

    Returns:
        `(batch, C, x * factor, y * factor, z * factor)`.

    >>> import torch
    >>> volume = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    >>> bool((depth_to_space(space_to_depth(volume, 2), 2) == volume).all())
    True
    """
    batch, channels, x, y, z = volume.shape
    cubes = volume.reshape(batch, channels // factor**3, factor, factor, factor, x, y, z)
    unfolded = cubes.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return unfolded.reshape(batch, channels // factor**3, x * factor, y * factor, z * factor)
