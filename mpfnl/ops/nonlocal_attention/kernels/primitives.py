"""Functions that the forward and backward kernels share; README.md explains the columns and scales."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# Triton's language has no types.

from __future__ import annotations

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")
"""Whether Triton's interpreter runs them: it cuts bfloat16 off, and multiplies its bits as integers."""

GAIN = tl.constexpr(256.0)
"""The constant column that an offset is multiplied by: float16 then holds offsets up to 16 million."""

HIGH_BITS = tl.constexpr(-65536)
"""Mask of the bits of a float32 that bfloat16 keeps."""


@triton.jit
def load_rows(source, stride_row, stride_column, rows, columns, n, C: tl.constexpr):
    """A tile of a matrix of n rows and C columns in float32, zero outside of it; any strides."""
    inside = (rows < n)[:, None] & (columns < C)[None, :]
    places = rows[:, None].to(tl.int64) * stride_row + columns[None, :].to(tl.int64) * stride_column
    return tl.load(source + places, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def narrowed(values, FORMAT: tl.constexpr):
    """float32 in a format, rounded to nearest, even."""
    if INTERPRETED and tl.bfloat16 == FORMAT:
        bits = values.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & HIGH_BITS
        values = tl.where(values == values, bits.to(tl.float32, bitcast=True), values)
    return values.to(FORMAT)


@triton.jit
def rounded(values, OPERAND: tl.constexpr):
    """In the operands' format; float32 stands for tf32, to which the bits are rounded here."""
    if tl.float32 == OPERAND:
        bits = values.to(tl.int32, bitcast=True)
        nearest = ((bits + 0x1000) & -8192).to(tl.float32, bitcast=True)
        values = tl.where(values == values, nearest, values)  # NaN stays NaN
    return narrowed(values, OPERAND)


@triton.jit
def product(left, right, sums, PRECISION: tl.constexpr):
    """Left @ right + sums, in float32."""
    if INTERPRETED:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, sums, input_precision=PRECISION)


@triton.jit
def upwards(values):
    """The next number not below that bfloat16 holds: exact in every operand format."""
    bits = values.to(tl.int32, bitcast=True)
    bits = tl.where(values > 0, bits + 0xFFFF, bits) & HIGH_BITS
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def put_column(matrix, columns, index, values):
    """The matrix with one column replaced."""
    return tl.where((columns == index)[None, :], values[:, None], matrix)


@triton.jit
def store_rows(target, rows, columns, values, WIDTH: tl.constexpr):
    """Writes a tile of a padded, contiguous buffer of WIDTH columns."""
    tl.store(target + rows[:, None] * WIDTH + columns[None, :], values)


@triton.jit
def in_range(lowest, highest, half_range):
    """Whether the factors that `pack_backward` folds into its operands fit their format, for a batch."""
    small = (tl.maximum(highest, -lowest) <= 256) & ((highest - lowest) / 4 <= half_range)
    return small


@triton.jit
def gradient_scale(largest_grad, CV: tl.constexpr):
    """Brings |grad . value| below 1/4, so that no sum of two differences overflows."""
    largest_grad = tl.maximum(largest_grad, 1e-30, propagate_nan=tl.PropagateNan.ALL)
    return 1.0 / (4.0 * CV * largest_grad)


@triton.jit
def value_scale(largest_value):
    """The power of two that brings the values into [-1, 1]."""
    largest_value = tl.maximum(largest_value, 1e-30, propagate_nan=tl.PropagateNan.ALL)
    return tl.exp2(-tl.ceil(tl.log2(largest_value)))
