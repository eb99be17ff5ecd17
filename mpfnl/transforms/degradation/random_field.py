"""White normal noise from a seed, voxel by voxel: the same on every device, for any number of threads.

The generators of PyTorch differ between the CPU and CUDA. Here a voxel's value is a function of the seed and
the voxel's place in the field alone: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) hashes a counter, and
the Box-Muller transform turns 32-bit halves of the hashes into normal values. Whole numbers agree bit by bit
everywhere, logarithm, sine and cosine to the last digits: between a CPU and a GPU, or processors of different
kinds, values may differ by about 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mpfnl.transforms.degradation.convolution import empty

MAX_SEED = 2**63 - 1

_GOLDEN = 0x9E3779B97F4A7C15
# Shifts and factors; SplitMix64 ends with a shift by 31, the factor 1 stands for its end.
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))
_HALF, _MINUS_TWO = np.float32(0.5), np.float32(-2.0)
_TO_UNIT, _TO_ANGLE = np.float32(2.0**-31), np.float32(math.pi * 2.0**-31)
_CHUNK = 1024  # hashes whose first halves give radii and whose second halves angles; part of the definition
_BLOCK_CHUNKS = 32  # a block of chunks and its intermediates stay in the cache of one core


def normal_field(shape: Sequence[int], seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Independent normal values of mean 0 and standard deviation 1.

    Args:
        shape: The size of the field.
        seed: Seed from 0 to 2^63 - 1.
        device: Device of the result.

    Returns:
        A float32 tensor of that shape; on two devices the same to about 1e-6.

    Raises:
        ValueError: The seed is out of range.
    """
    return normal_fields(shape, [seed], device)[0]


def normal_fields(shape: Sequence[int], seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """A field for each seed at once: `normal_field` of each, stacked.

    Args:
        shape: The size of a field.
        seeds: Seeds from 0 to 2^63 - 1.
        device: Device of the result.

    Returns:
        A float32 tensor `(seeds, *shape)`.

    Raises:
        ValueError: A seed is out of range.
    """
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"the seed of a noise lies between 0 and 2^63 - 1, got {seed}")
    size = math.prod(shape)
    chunks = math.ceil(size / (2 * _CHUNK))
    values = empty((len(seeds), chunks, 2, _CHUNK), device)
    if values.device.type == "cpu":
        scratch = _Scratch()
        for seed, field in zip(seeds, values.numpy(), strict=True):
            for first in range(0, chunks, _BLOCK_CHUNKS):
                _fill_on_cpu(_start(seed, first), field[first : first + _BLOCK_CHUNKS], scratch)
    else:
        _fill_together([_start(seed, 0) for seed in seeds], values)
    return values.view(len(seeds), -1)[:, :size].reshape(len(seeds), *shape)


class _Scratch:
    """Memory for the intermediates of a block: one page that is used again is much faster than fresh ones."""

    def __init__(self) -> None:
        hashes = _BLOCK_CHUNKS * _CHUNK
        self.state, self.shifted = np.empty(hashes, np.uint64), np.empty(hashes, np.uint64)
        self.radius, self.angle, self.wave = np.empty((3, _BLOCK_CHUNKS, _CHUNK), np.float32)


def _fill_on_cpu(start: int, out: NDArray[np.float32], scratch: _Scratch) -> None:
    """Fills `(chunks, 2, n)` from SplitMix64's state `start` on."""
    chunks = len(out)
    state, shifted = (memory[: chunks * _CHUNK] for memory in (scratch.state, scratch.shifted))
    np.add(_counters()[: len(state)], np.uint64(start), out=state)
    for shift, factor in _ROUNDS:
        np.right_shift(state, np.uint64(shift), out=shifted)
        np.bitwise_xor(state, shifted, out=state)
        np.multiply(state, np.uint64(factor), out=state)
    words = state.view(np.int32).reshape(out.shape)
    radius, angle, wave = (memory[:chunks] for memory in (scratch.radius, scratch.angle, scratch.wave))
    radius[...], angle[...] = words[:, 0], words[:, 1]
    # |word + 1/2| / 2^31 lies in (0, 1] and is finest near 0, where the large radii come from.
    np.add(radius, _HALF, out=radius)
    np.abs(radius, out=radius)
    np.multiply(radius, _TO_UNIT, out=radius)
    np.log(radius, out=radius)
    np.multiply(radius, _MINUS_TWO, out=radius)
    np.sqrt(radius, out=radius)
    np.multiply(angle, _TO_ANGLE, out=angle)
    np.multiply(np.cos(angle, out=wave), radius, out=out[:, 0])
    np.multiply(np.sin(angle, out=wave), radius, out=out[:, 1])


def _fill_together(starts: Sequence[int], out: Tensor) -> None:
    """The same for a batch `(seeds, chunks, 2, n)`, all at once."""
    count = out[0].numel() // 2
    counters = torch.arange(1, count + 1, device=out.device).mul_(_signed(_GOLDEN))
    state = counters + torch.tensor([_signed(start) for start in starts], device=out.device)[:, None]
    for shift, factor in _ROUNDS:
        # A shift to the right keeps the sign in PyTorch; the mask takes the copies of it away.
        state ^= (state >> shift) & (2 ** (64 - shift) - 1)
        state *= _signed(factor)
    radius, angle = state.view(torch.int32).view(out.shape).to(torch.float32).unbind(2)
    radius.add_(float(_HALF)).abs_().mul_(float(_TO_UNIT)).log_().mul_(float(_MINUS_TWO)).sqrt_()
    angle.mul_(float(_TO_ANGLE))
    torch.mul(torch.cos(angle), radius, out=out[:, :, 0])
    torch.mul(torch.sin(angle), radius, out=out[:, :, 1])


@cache
def _counters() -> NDArray[np.uint64]:
    """SplitMix64's states of the seed 0, a block: 1, 2, ... times the golden ratio, modulo 2^64."""
    return np.arange(1, _BLOCK_CHUNKS * _CHUNK + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def _start(seed: int, first_chunk: int) -> int:
    return (_mixed(seed) + first_chunk * _CHUNK * _GOLDEN) % 2**64


def _mixed(seed: int) -> int:
    """A start far from those of the neighbouring seeds."""
    state = (seed + _GOLDEN) % 2**64
    for shift, factor in _ROUNDS:
        state = (state ^ (state >> shift)) * factor % 2**64
    return state


def _signed(number: int) -> int:
    """The 64-bit two's complement of an unsigned number."""
    return number - 2**64 if number >= 2**63 else number
