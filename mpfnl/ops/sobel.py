"""The 3D Sobel operator as additions of shifted volumes, differentiable on every device."""

from __future__ import annotations

import torch
from torch import Tensor

from mpfnl.shapes import Features, Reshaped


def sobel_gradient(volume: Features) -> Reshaped:
    """The three Sobel gradient components, on the interior voxels.

    Component `a` is the difference [-1, 0, 1] along axis `a`, summed with [1, 2, 1] along the two others: the
    usual unnormalised weights (those of `scipy.ndimage.sobel`).

    Args:
        volume: `(batch, C, x, y, z)` with at least 3 voxels a side.

    Returns:
        `(batch, 3 * C, x - 2, y - 2, z - 2)`: all x gradients, then y, then z.

    Raises:
        ValueError: If a side has fewer than 3 voxels.

    >>> ramp = torch.arange(3.0)[:, None, None].expand(1, 1, 3, 3, 3)  # a difference of 2, 16 times
    >>> sobel_gradient(ramp).flatten()
    tensor([32.,  0.,  0.])
    """
    if min(volume.shape[-3:]) < 3:
        raise ValueError(f"the Sobel operator needs 3 voxels a side, not {tuple(volume.shape[-3:])}")
    components = []
    for along in (2, 3, 4):
        component = _difference(volume, along)
        for across in {2, 3, 4} - {along}:
            component = _smooth(component, across)
        components.append(component)
    return torch.cat(components, dim=1)


def _difference(volume: Tensor, axis: int) -> Tensor:
    interior = volume.shape[axis] - 2
    return volume.narrow(axis, 2, interior) - volume.narrow(axis, 0, interior)


def _smooth(volume: Tensor, axis: int) -> Tensor:
    interior = volume.shape[axis] - 2
    ends = volume.narrow(axis, 0, interior) + volume.narrow(axis, 2, interior)
    return ends + 2 * volume.narrow(axis, 1, interior)
