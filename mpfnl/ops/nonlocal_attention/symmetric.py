"""Mode `gaussian` on the CPU: query and key are the same matrix x, so each score serves two rows.

The exponentials of a tile of scores (i, j) are those of the tile (j, i), transposed. Half of the scores and
of the exponentials are not computed. README.md, "Symmetry", has the derivation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mpfnl.ops.nonlocal_attention.operands import LOG2E, cut, tile_of, with_columns

# The spread of |x|^2 / 2, in bits, up to which no weight that matters leaves the range of the format.
SPREAD_LIMIT = {torch.float32: 100.0, torch.float64: 900.0}


def spread_is_small(x: Tensor) -> bool:
    """Whether the symmetric form is exact for these positions; False also where x is not finite.

    Args:
        x: `(N, C)`, float32 or float64.
    """
    norms = x.square().sum(dim=1)
    spread = (norms.max() - norms.min()) * (LOG2E / 2)
    return bool(spread <= SPREAD_LIMIT[x.dtype])


def forward(x: Tensor, value: Tensor, block: int) -> tuple[Tensor, Tensor]:
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


def backward(
    grad: Tensor, x: Tensor, value: Tensor, out: Tensor, lse: Tensor, block: int
) -> tuple[Tensor, Tensor]:
    """The gradients of `forward`, in one pass over half of the scores.

    With h = lse / 2 the exponential E_ij = exp2(s_ij - h_i - h_j) is the geometric mean of the
    probabilities p_ij and p_ji, at most 1 and symmetric; p_ij = E_ij r_j / r_i with r = exp2(h).

    Args:
        grad: Of the output, `(N, C_v)`.
        x: As in `forward`.
        value: As in `forward`.
        out: What `forward` returned.
        lse: What `forward` returned.
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
