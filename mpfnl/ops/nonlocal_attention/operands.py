"""How the operands of the non-local operator are laid out: extra columns that do work for nothing."""

from __future__ import annotations

import math

from torch import Tensor

LOG2E = math.log2(math.e)
"""exp(s) = exp2(s * LOG2E): the exponential that processors compute has base 2."""


def with_columns(matrix: Tensor, *columns: Tensor | float, multiple: int = 1) -> Tensor:
    """A copy of a matrix with columns appended, and zeros up to a multiple of so many columns.

    Args:
        matrix: `(n, c)`.
        columns: `(n,)` each, or a number for a constant column.
        multiple: The number of columns is rounded up to a multiple of this.

    Returns:
        `(n, c + len(columns) + zeros)`, contiguous.
    """
    rows, width = matrix.shape
    total = -(-(width + len(columns)) // multiple) * multiple
    widened = matrix.new_zeros(rows, total)
    widened[:, :width] = matrix
    for index, column in enumerate(columns, start=width):
        widened[:, index] = column
    return widened


def cut(positions: int, block: int) -> list[slice]:
    """Slices of at most `block` positions, in order."""
    return [slice(start, min(start + block, positions)) for start in range(0, positions, block)]


def tile_of(scratch: Tensor, rows: slice, columns: slice) -> Tensor:
    """A contiguous matrix of the tile's size in a flat scratch tensor that is at least as large."""
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return scratch[: height * width].view(height, width)
