"""Convolutions along the axes of volumes, and memory for their results.

Every convolution is a sum of shifted copies: an addition and a multiplication at a time, never a fused
one. The result is therefore the same bit by bit for any number of threads, alone or in a batch, whatever
precision the caller has set for matrix products and convolutions. On the CPU the sums run in NumPy, block by
block: they are so short that PyTorch's overhead for starting an operation would dominate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))
"""The full width at half maximum of a Gaussian of standard deviation 1."""

TRUNCATION = 4.0
"""A Gaussian kernel ends after this many standard deviations (6e-5 of its mass is left out)."""

BLOCK_ELEMENTS = 2**16
"""A block of this size and its intermediates stay in the cache of one CPU core."""

Kernel: TypeAlias = tuple[float, ...]
"""The right half of a symmetric kernel: the weights at offsets 0, 1, ..., r."""


def empty(shape: Sequence[int], device: torch.device | str) -> Tensor:
    """An uninitialised float32 tensor; on the CPU in memory that NumPy allocates.

    PyTorch's allocations are aligned, and glibc before 2.38 seldom reuses aligned memory: a volume's pages
    would be fresh each time, and a fresh page takes longer than all computations on it.
    """
    if torch.device(device).type == "cpu":
        return torch.from_numpy(np.empty(tuple(shape), np.float32))
    return torch.empty(tuple(shape), device=device)


class Border(Enum):
    """Continuation of a volume beyond its border."""

    NEAREST = auto()
    """The nearest voxel continues."""
    WRAP = auto()
    """The opposite border follows: what is stationary stays so up to the border."""


def gaussian_kernel(sigma: float) -> Kernel:
    """The right half of a normalised, sampled Gaussian.

    Args:
        sigma: Standard deviation in voxels, 0 or more.

    Returns:
        The weights at offsets 0, 1, ..., r with r = int(4 sigma + 1/2); `(1.0,)` for sigma 0.
    """
    radius = int(TRUNCATION * sigma + 0.5)
    if radius == 0:
        return (1.0,)
    raw = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(radius + 1)]
    total = raw[0] + 2 * sum(raw[1:])
    return tuple(weight / total for weight in raw)


def convolve_separable(
    volumes: Tensor,
    kernels: Sequence[Sequence[Kernel]],
    border: Border = Border.NEAREST,
    out: Tensor | None = None,
) -> Tensor:
    """Convolves each volume of a batch with even kernels of its own along x, y and z.

    Args:
        volumes: `(batch, x, y, z)`.
        kernels: Kernels of each volume along x, y, z.
        border: Continuation beyond the border.
        out: Tensor for the result; may be `volumes` itself.

    Returns:
        Volumes of the same shape; the input itself where all kernels are `(1.0,)` and there is no `out`.
    """
    for axis in range(3):
        along = [each[axis] for each in kernels]
        if any(kernel != (1.0,) for kernel in along):
            volumes = out = convolve(volumes, axis, along, border, out=out)
    return volumes


def convolve(
    volumes: Tensor,
    axis: int,
    kernels: Sequence[Kernel],
    border: Border = Border.NEAREST,
    out: Tensor | None = None,
) -> Tensor:
    """Convolves each volume of a batch along one axis with an even kernel of its own.

    Args:
        volumes: `(batch, x, y, z)`; not changed.
        axis: 0, 1 or 2 for x, y, z.
        kernels: Kernel of each volume.
        border: Continuation beyond the border.
        out: Contiguous tensor for the result; may be `volumes` itself.

    Returns:
        Volumes of the same shape.
    """
    batch, *shape = volumes.shape
    result = empty(volumes.shape, volumes.device) if out is None else out
    lines = (batch, math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    flat, written = volumes.reshape(lines), result.view(lines)
    if volumes.device.type == "cpu":
        for volume, kernel, target in zip(flat.numpy(), kernels, written.numpy(), strict=True):
            _convolve_on_cpu(volume, kernel, border, target)
    else:
        _convolve_together(flat, _stacked(kernels, flat), border, written)
    return result


def blocks(lines: NDArray[np.float32]) -> Iterator[tuple[slice, slice, slice]]:
    """Cuts `(before, length, after)` into parts that fit the cache; the length stays whole."""
    before, length, after = lines.shape
    whole = slice(None)
    if length * after > BLOCK_ELEMENTS:
        step = max(1, BLOCK_ELEMENTS // length)
        for line in range(before):
            for first in range(0, after, step):
                yield slice(line, line + 1), whole, slice(first, first + step)
        return
    step = BLOCK_ELEMENTS // (length * after)
    for first in range(0, before, step):
        yield slice(first, first + step), whole, whole


def _convolve_on_cpu(
    lines: NDArray[np.float32], kernel: Kernel, border: Border, out: NDArray[np.float32]
) -> None:
    """Convolves `(before, length, after)` along the length; `out` may be `lines`."""
    radius = len(kernel) - 1
    weights = [np.float32(weight) for weight in kernel]
    for block in blocks(lines):
        padded = _padded(lines[block], radius, border)
        length, after = padded.shape[1] - 2 * radius, padded.shape[2]
        # Seen as one row, a step along the axis is a shift by `after`; what runs over the end of a line lands
        # in its padding, which is left out at the end.
        row = padded.reshape(-1)
        kept = row.size - 2 * radius * after
        total = np.empty_like(row)
        sums, pair = total[:kept], np.empty(kept, np.float32)
        np.multiply(row[radius * after : radius * after + kept], weights[0], out=sums)
        for offset in range(1, radius + 1):
            left, right = (radius - offset) * after, (radius + offset) * after
            np.add(row[right : right + kept], row[left : left + kept], out=pair)
            np.multiply(pair, weights[offset], out=pair)
            np.add(sums, pair, out=sums)
        out[block] = total.reshape(padded.shape)[:, :length]


def _padded(block: NDArray[np.float32], radius: int, border: Border) -> NDArray[np.float32]:
    before, length, after = block.shape
    padded = np.empty((before, length + 2 * radius, after), np.float32)
    padded[:, radius : radius + length] = block
    if border is Border.NEAREST:
        padded[:, :radius] = block[:, :1]
        padded[:, radius + length :] = block[:, -1:]
    else:
        padded[:, :radius] = block[:, np.arange(-radius, 0) % length]
        padded[:, radius + length :] = block[:, np.arange(radius) % length]
    return padded


def _convolve_together(lines: Tensor, kernel: Sequence[Tensor], border: Border, out: Tensor) -> None:
    """The same for a batch `(batch, before, length, after)`, all at once."""
    length, radius = lines.shape[2], len(kernel) - 1
    around = torch.arange(-radius, length + radius, device=lines.device)
    around = around.clamp(0, length - 1) if border is Border.NEAREST else around % length
    padded = lines.index_select(2, around)
    total = padded.narrow(2, radius, length) * kernel[0]
    for offset in range(1, radius + 1):
        left, right = padded.narrow(2, radius - offset, length), padded.narrow(2, radius + offset, length)
        total += (right + left).mul_(kernel[offset])
    out.copy_(total)


def _stacked(kernels: Sequence[Kernel], like: Tensor) -> list[Tensor]:
    """The weights by offset, each `(batch, 1, 1, 1)`; short kernels end in zeros."""
    longest = max(map(len, kernels))
    padded = [list(kernel) + [0.0] * (longest - len(kernel)) for kernel in kernels]
    return list(torch.tensor(padded, dtype=like.dtype).to(like.device).t()[:, :, None, None, None])
