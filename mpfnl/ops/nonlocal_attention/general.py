"""Any query and key on the CPU, tile by tile: first the bound of the scores, then, if need be, their maximum.

README.md, "The bound", says why the sum of a row tells afterwards whether its bound was good enough.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mpfnl.ops.nonlocal_attention.operands import LOG2E, cut, tile_of, with_columns

# A row's weights are exp2(score - bound). While their sum is above this, none that matters was flushed to 0.
SMALLEST_SUM = {torch.float32: 2.0**-80, torch.float64: 2.0**-900}


def forward(query: Tensor, key: Tensor, value: Tensor, block: int) -> tuple[Tensor, Tensor]:
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


def backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, lse: Tensor, block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `forward`.

    Args:
        grad: Of the output, `(N, C_v)`.
        query: As in `forward`.
        key: As in `forward`.
        value: As in `forward`.
        out: What `forward` returned.
        lse: What `forward` returned.
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
