"""The non-local operator on the CPU: tile by tile, in float32 or float64, with O(N) memory.

Every tile of scores passes through three or four matrix products and one exp2 while it lies in the cache.
Base 2, because PyTorch's exp2 takes about a third of the time of its exp on the CPU. Operands narrower than
float32 are widened: it costs O(N), and is faster than half precision on processors without AMX.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mpfnl.ops.nonlocal_attention import general, symmetric

BLOCK_FOR_TWO_THREADS = 512  # tiles of 1 MB in float32; measured, see benchmarks/nonlocal_attention.py


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
        if key is None and symmetric.spread_is_small(q):
            out[index], lse[index] = symmetric.forward(q, v, block)
        else:
            out[index], lse[index] = general.forward(q, k, v, block)
    return out, lse


def backward(
    grad: Tensor, query: Tensor, key: Tensor | None, value: Tensor, out: Tensor, lse: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The gradients of `forward`.

    Args:
        grad: Of the output, `(batch, N, C_v)`.
        query: As in `forward`.
        key: As in `forward`.
        value: As in `forward`.
        out: What `forward` returned.
        lse: What `forward` returned.

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
        if key is None and symmetric.spread_is_small(q):
            grad_query[index], grad_value[index] = symmetric.backward(g, q, v, out[index], lse[index], block)
            continue
        dq, dk, grad_value[index] = general.backward(g, q, k, v, out[index], lse[index], block)
        if grad_key is None:
            grad_query[index] = dq + dk
        else:
            grad_query[index], grad_key[index] = dq, dk
    return grad_query, grad_key, grad_value
