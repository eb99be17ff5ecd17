"""The non-local operator on the CPU: tile by tile, in float32 or float64, with O(N) memory.

Every tile of scores passes through three or four matrix products and one exp2 while it lies in the cache. The
base is 2, because PyTorch's exp2 takes about a third of the time of its exp on the CPU. Operands narrower
than float32 are widened: this costs O(N), and is faster than half precision on processors without AMX.

There are two forms. The general form takes any query and key; it subtracts a bound of the scores, and their
running maximum if the bound fails (README.md, "The bound"). The symmetric form is for mode `gaussian`, in
which query and key are the same matrix x: the exponentials of a tile (i, j) are those of the tile (j, i),
transposed, so that half of the scores and exponentials are not computed (README.md, "Symmetry").
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

LOG2E = math.log2(math.e)  # exp(s) = exp2(s * LOG2E)

BLOCK_FOR_TWO_THREADS = 512  # tiles of 1 MB in float32; measured, see benchmarks/nonlocal_attention.py

# A row's weights are exp2(score - bound). While their sum is above this, none that matters was flushed to 0.
SMALLEST_SUM = {torch.float32: 2.0**-80, torch.float64: 2.0**-900}

# The spread of |x|^2 / 2, in bits, up to which no weight that matters leaves the range of the format.
SPREAD_LIMIT = {torch.float32: 100.0, torch.float64: 900.0}


def block_size() -> int:
    """Edge of a tile: each thread's share of it keeps the size that was measured for two threads."""
    block = BLOCK_FOR_TWO_THREADS * math.sqrt(torch.get_num_threads() / 2)
    return min(max(64 * round(block / 64), 256), 2048)


def forward(query: Tensor, key: Tensor | None, value: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax attention over all positions.

    Args:
        query: `(batch, N, C)`, any floating dtype.
        key: `(batch, M, C)`; None if it is the query.
        value: `(batch, M, C_v)`.

    Returns:
        `(batch, N, C_v)`, and the logarithm to base 2 of each row's sum of exp(score), `(batch, N)`; both
        in float32 at least.
    """
    dtype = torch.promote_types(value.dtype, torch.float32)
    block = block_size()
    out = value.new_empty(*query.shape[:2], value.shape[2], dtype=dtype)
    lse = value.new_empty(query.shape[:2], dtype=dtype)
    for index in range(len(query)):
        q, v = query[index].to(dtype), value[index].to(dtype)
        k = q if key is None else key[index].to(dtype)
        if key is None and spread_is_small(q):
            out[index], lse[index] = _symmetric_forward(q, v, block)
        else:
            out[index], lse[index] = _general_forward(q, k, v, block)
    return out, lse


def backward(
    grad: Tensor, query: Tensor, key: Tensor | None, value: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The gradients of `forward`.

    Args:
        grad: Gradient of the output, `(batch, N, C_v)`.
        query: Query of `forward`.
        key: Key of `forward`.
        value: Value of `forward`.
        out: Result of `forward`.
        lse: Result of `forward`.

    Returns:
        The gradients of the query, the key (None if it is the query, whose gradient then holds both) and the
        value, in their dtypes.
    """
    dtype = out.dtype
    block = block_size()
    grad_query = query.new_empty(query.shape)
    grad_key = None if key is None else key.new_empty(key.shape)
    grad_value = value.new_empty(value.shape)
    for index in range(len(query)):
        g, q, v = grad[index].to(dtype), query[index].to(dtype), value[index].to(dtype)
        k = q if key is None else key[index].to(dtype)
        if key is None and spread_is_small(q):
            grad_query[index], grad_value[index] = _symmetric_backward(g, q, v, out[index], lse[index], block)
            continue
        dq, dk, grad_value[index] = _general_backward(g, q, k, v, out[index], lse[index], block)
        if grad_key is None:
            grad_query[index] = dq + dk
        else:
            grad_query[index], grad_key[index] = dq, dk
    return grad_query, grad_key, grad_value


def _general_forward(query: Tensor, key: Tensor, value: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Softmax attention.

    Args:
        query: `(N, C)`, float32 or float64.
        key: `(M, C)`.
        value: `(M, C_v)`.
        block: Rows and columns of a tile of scores.

    Returns:
        `(N, C_v)`, and the logarithm to base 2 of each row's sum of exp(score), `(N,)`.
    """
    query = query * LOG2E
    bound = query.norm(dim=1) * key.norm(dim=1).max()  # Cauchy and Schwarz
    rows = with_columns(query, -bound)
    columns = with_columns(key, 1.0).t()
    values = with_columns(value, 1.0, multiple=8)
    sums = value.new_zeros(len(query), values.shape[1])
    lse = torch.empty_like(bound)
    channels = value.shape[1]
    scratch = value.new_empty(block * block)
    bounded = True  # until it fails once
    for i in cut(len(query), block):
        if bounded:
            for j in cut(len(key), block):
                weights = tile_of(scratch, i, j)
                torch.mm(rows[i], columns[:, j], out=weights).exp2_()
                sums[i].addmm_(weights, values[j])
            total = sums[i, channels]
            lse[i] = torch.log2(total) + bound[i]
            bounded = bool((total >= SMALLEST_SUM[value.dtype]).all())
        if not bounded:
            sums[i], lse[i] = _with_running_maximum(query[i], key, values, channels, block)
    return sums[:, :channels] / sums[:, channels, None], lse


def _with_running_maximum(
    query: Tensor, key: Tensor, values: Tensor, channels: int, block: int
) -> tuple[Tensor, Tensor]:
    """The weighted sums of a block of rows, relative to each row's maximum, and the log-sum."""
    sums = values.new_zeros(len(query), values.shape[1])
    maximum = values.new_full((len(query), 1), -torch.inf)
    for j in cut(len(key), block):
        scores = query @ key[j].t()
        larger = torch.maximum(maximum, scores.amax(dim=1, keepdim=True))
        sums *= torch.exp2(maximum - larger)
        sums.addmm_(scores.sub_(larger).exp2_(), values[j])
        maximum = larger
    return sums, torch.log2(sums[:, channels]) + maximum[:, 0]


def _general_backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `_general_forward`.

    Args:
        grad: Gradient of the output, `(N, C_v)`.
        query: Query of `_general_forward`.
        key: Key of `_general_forward`.
        value: Value of `_general_forward`.
        out: Result of `_general_forward`.
        lse: Result of `_general_forward`.
        block: Rows and columns of a tile of scores.

    Returns:
        The gradients of the query, the key and the value.
    """
    rows = with_columns(query * LOG2E, -lse)
    columns = with_columns(key, 1.0).t()
    left = with_columns(grad, -(grad * out).sum(dim=1))
    right = with_columns(value, 1.0).t()
    query_turned, grad_turned = query.t().contiguous(), grad.t().contiguous()
    grad_query = torch.zeros_like(query)
    grad_key_turned = query.new_zeros(key.shape[1], key.shape[0])
    grad_value_turned = query.new_zeros(value.shape[1], value.shape[0])
    scratch, scratch_scores = value.new_empty(block * block), value.new_empty(block * block)
    for i in cut(len(query), block):
        for j in cut(len(key), block):
            weights, scores = tile_of(scratch, i, j), tile_of(scratch_scores, i, j)
            torch.mm(rows[i], columns[:, j], out=weights).exp2_()
            torch.mm(left[i], right[:, j], out=scores).mul_(weights)
            grad_query[i].addmm_(scores, key[j])
            grad_key_turned[:, j].addmm_(query_turned[:, i], scores)
            grad_value_turned[:, j].addmm_(grad_turned[:, i], weights)
    return grad_query, grad_key_turned.t(), grad_value_turned.t()


def spread_is_small(x: Tensor) -> bool:
    """Whether the symmetric form is exact for these positions; False also where x is not finite.

    Args:
        x: `(N, C)`, float32 or float64.
    """
    norms = x.square().sum(dim=1)
    spread = (norms.max() - norms.min()) * (LOG2E / 2)
    return bool(spread <= SPREAD_LIMIT[x.dtype])


def _symmetric_forward(x: Tensor, value: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Softmax attention with query = key = x.

    With a_i = |x_i|^2 / 2 the weight is exp(x_i . x_j - a_i - a_j) = exp(-|x_i - x_j|^2 / 2), at most 1,
    times exp(a_j), which is folded into row j of the value.

    Args:
        x: `(N, C)`, float32 or float64, such that `spread_is_small`.
        value: `(N, C_v)`.
        block: Rows and columns of a tile of scores.

    Returns:
        `(N, C_v)`, and the logarithm to base 2 of each row's sum of exp(score), `(N,)`.
    """
    x = x * math.sqrt(LOG2E)
    half = x.square().sum(dim=1) / 2
    top = half.max()
    factor = torch.exp2(half - top)
    rows = with_columns(x, -half, 1.0)
    columns = with_columns(x, 1.0, -half).t()
    values = with_columns(value * factor[:, None], factor, multiple=8)
    turned = values.t().contiguous()
    # Products with a transposed tile are slow; the transposed product is not.
    sums, sums_turned = torch.zeros_like(values), torch.zeros_like(turned)
    scratch = x.new_empty(block * block)
    for i, j in _upper_tiles(len(x), block):
        weights = tile_of(scratch, i, j)
        torch.mm(rows[i], columns[:, j], out=weights).exp2_()
        sums[i].addmm_(weights, values[j])
        if i != j:
            sums_turned[:, j].addmm_(turned[:, i], weights)
    sums += sums_turned.t()
    channels = value.shape[1]
    total = sums[:, channels]
    return sums[:, :channels] / total[:, None], torch.log2(total) + half + top


def _symmetric_backward(
    grad: Tensor, x: Tensor, value: Tensor, out: Tensor, lse: Tensor, block: int
) -> tuple[Tensor, Tensor]:
    """The gradients of `_symmetric_forward`, in one pass over half of the scores.

    With h = lse / 2 the exponential E_ij = exp2(s_ij - h_i - h_j) is the geometric mean of the
    probabilities p_ij and p_ji, at most 1 and symmetric; p_ij = E_ij r_j / r_i with r = exp2(h).

    Args:
        grad: Gradient of the output, `(N, C_v)`.
        x: Positions of `_symmetric_forward`.
        value: Value of `_symmetric_forward`.
        out: Result of `_symmetric_forward`.
        lse: Result of `_symmetric_forward`.
        block: Rows and columns of a tile of scores.

    Returns:
        The gradients of x and of the value.
    """
    h = lse / 2
    r = torch.exp2(h - h.mean())
    scaled_grad = grad / r[:, None]
    delta = (scaled_grad * out).sum(dim=1)
    scaled_value = value * r[:, None]
    scaled_x = x * math.sqrt(LOG2E)
    rows = with_columns(scaled_x, -h, 1.0)
    columns = with_columns(scaled_x, 1.0, -h).t()
    # One product gives dp_ij - delta_i and dp_ji - delta_j, weighted and summed.
    left = with_columns(torch.cat([scaled_grad, scaled_value], dim=1), -delta, r)
    right = with_columns(torch.cat([scaled_value, scaled_grad], dim=1), r, -delta).t()
    x_turned, grad_turned = x.t().contiguous(), scaled_grad.t().contiguous()
    grad_x, grad_x_turned = torch.zeros_like(x), torch.zeros_like(x_turned)
    grad_value, grad_value_turned = torch.zeros_like(value), torch.zeros_like(grad_turned)
    scratch, scratch_scores = x.new_empty(block * block), x.new_empty(block * block)
    for i, j in _upper_tiles(len(x), block):
        weights, scores = tile_of(scratch, i, j), tile_of(scratch_scores, i, j)
        torch.mm(rows[i], columns[:, j], out=weights).exp2_()
        torch.mm(left[i], right[:, j], out=scores).mul_(weights)
        grad_value[i].addmm_(weights, scaled_grad[j])
        grad_x[i].addmm_(scores, x[j])
        if i != j:
            grad_value_turned[:, j].addmm_(grad_turned[:, i], weights)
            grad_x_turned[:, j].addmm_(x_turned[:, i], scores)
    grad_x += grad_x_turned.t()
    grad_value += grad_value_turned.t()
    return grad_x, grad_value * r[:, None]


def _upper_tiles(positions: int, block: int) -> Iterator[tuple[slice, slice]]:
    """The tiles on and above the diagonal, row by row."""
    slices = cut(positions, block)
    for index, row in enumerate(slices):
        for column in slices[index:]:
            yield row, column


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
