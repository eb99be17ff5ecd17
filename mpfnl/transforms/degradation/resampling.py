"""Resampling along the axes of volumes; the same bit by bit for any number of threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpfnl.transforms.degradation.convolution import blocks, empty


class Resampling(StrEnum):
    """Resampling to a coarser grid, or back from it."""

    AREA = "area"
    """Mean over the coarse voxel: partial volume, as in the voxels of a scanner."""
    LINEAR = "linear"
    """Linear between the two nearest samples, without smoothing: noise keeps its strength."""
    CUBIC = "cubic"
    """Keys' cubic convolution (a = -1/2) of four samples, without smoothing."""


@dataclass(frozen=True)
class Taps:
    """A linear operator along one axis: output `i` is the sum of `weights[k, i] * input[indices[k, i]]`."""

    indices: Tensor
    weights: Tensor


def apply_taps(volumes: Tensor, axis: int, chains: Sequence[Sequence[Taps]]) -> Tensor:
    """Applies operators along one axis, one after the other, to each volume of a batch its own.

    Args:
        volumes: `(batch, x, y, z)`; not changed.
        axis: 0, 1 or 2 for x, y, z.
        chains: Operators of each volume in their order; the last gives the axis' first length again.

    Returns:
        Volumes of the same shape; the input itself where there are no operators.
    """
    if not any(chains):
        return volumes
    batch, *shape = volumes.shape
    lines = (batch, math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    flat = volumes.reshape(lines)
    if volumes.device.type != "cpu":
        return _apply_together(chains, flat).reshape(volumes.shape)
    result = empty(lines, volumes.device)
    for volume, chain, written in zip(flat.numpy(), chains, result.numpy(), strict=True):
        _apply_on_cpu(chain, volume, written)
    return result.view(volumes.shape)


def _apply_on_cpu(chain: Sequence[Taps], lines: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Applies operators to `(before, length, after)`, block by block in the cache."""
    if lines.shape[2] == 1:  # rows along the last axis: as columns they are gathered faster
        lines, out = lines.transpose(2, 1, 0), out.transpose(2, 1, 0)
    operators = [(taps.indices.numpy(), taps.weights.numpy()[:, :, None]) for taps in chain]
    for block in blocks(lines):
        values = np.ascontiguousarray(lines[block])
        for indices, weights in operators:
            total = values.take(indices[0], axis=1)
            total *= weights[0]
            part = np.empty_like(total)
            for index, weight in zip(indices[1:], weights[1:], strict=True):
                values.take(index, axis=1, out=part, mode="clip")
                part *= weight
                total += part
            values = total
        out[block] = values


def _apply_together(chains: Sequence[Sequence[Taps]], flat: Tensor) -> Tensor:
    """The same for a whole batch, `(batch, before, length, after)`: short chains get identities."""
    for step in range(max(map(len, chains))):
        length = flat.shape[2]
        own = [chain[step] if step < len(chain) else _identity(length) for chain in chains]
        flat = _gather(_merged(own), flat)
    return flat[:, :, : max(map(_out_length, chains))]


def _out_length(chain: Sequence[Taps]) -> int:
    return chain[-1].indices.shape[1] if chain else 0


def _gather(taps: Taps, flat: Tensor) -> Tensor:
    batch, before, _, after = flat.shape
    indices, weights = taps.indices.to(flat.device), taps.weights.to(flat)
    total = torch.zeros((), dtype=flat.dtype, device=flat.device)
    for index, weight in zip(indices, weights, strict=True):
        where = index[:, None, :, None].expand(batch, before, -1, after)
        total = total + flat.gather(2, where).mul_(weight[:, None, :, None])
    return total


def _merged(operators: Sequence[Taps]) -> Taps:
    """Operators of a batch as one: `(taps, batch, outputs)`; what one lacks has the weight 0."""
    count = max(taps.indices.shape[0] for taps in operators)
    outputs = max(taps.indices.shape[1] for taps in operators)
    indices = torch.zeros(count, len(operators), outputs, dtype=torch.int64)
    weights = torch.zeros(count, len(operators), outputs)
    for place, taps in enumerate(operators):
        taken, made = taps.indices.shape
        indices[:taken, place, :made] = taps.indices
        weights[:taken, place, :made] = taps.weights
    return Taps(indices, weights)


def _identity(length: int) -> Taps:
    return Taps(torch.arange(length)[None], torch.ones(1, length))


def coarse_grid(length: int, factor: float, shift: float) -> tuple[int, float]:
    """The number of coarse voxels that cover an axis, and where the first begins, in fine voxels.

    Args:
        length: Length of the axis in fine voxels.
        factor: Coarse voxel over fine voxel.
        shift: Distance of the grid from the middle of the axis, in coarse voxels, from -1/2 to 1/2.
    """
    count = max(1, math.ceil(length / factor - 1e-6)) + (shift != 0)
    return count, (length - count * factor) / 2 + shift * factor


def area_taps(lower_edges: np.ndarray, width: float, length: int) -> Taps:
    """The mean over boxes of `width` voxels that begin at `lower_edges`; the border's voxel continues.

    Args:
        lower_edges: Lower edges of the boxes, in voxels from the volume's edge.
        width: Width of each box in voxels.
        length: Length of the axis in voxels.
    """
    first = np.floor(lower_edges)
    voxels = first + np.arange(math.ceil(width) + 1)[:, None]
    overlap = np.minimum(voxels + 1, lower_edges + width) - np.maximum(voxels, lower_edges)
    return sampled_taps(voxels, overlap.clip(0) / width, length)


def interpolation_taps(positions: np.ndarray, kind: Resampling, length: int) -> Taps:
    """Values between the voxels, linear or cubic; the border's voxel continues.

    Args:
        positions: Positions in voxels; 0 is the centre of the first voxel.
        kind: Linear or cubic.
        length: Length of the axis in voxels.
    """
    first = np.floor(positions)
    t = positions - first
    if kind is Resampling.LINEAR:
        return sampled_taps(np.stack([first, first + 1]), np.stack([1 - t, t]), length)
    weights = [
        ((2 - t) * t - 1) * t / 2,
        ((3 * t - 5) * t * t + 2) / 2,
        ((4 - 3 * t) * t + 1) * t / 2,
        (t - 1) * t * t / 2,
    ]
    return sampled_taps(first + np.arange(-1, 3)[:, None], np.stack(weights), length)


def sampled_taps(voxels: np.ndarray, weights: np.ndarray, length: int) -> Taps:
    """Weights of voxels, both `(taps, outputs)`; beyond the border the nearest voxel continues."""
    indices = voxels.astype(np.int64).clip(0, length - 1)
    return Taps(torch.from_numpy(indices), torch.from_numpy(weights.astype(np.float32)))
