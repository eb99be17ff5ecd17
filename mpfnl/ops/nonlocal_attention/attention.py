"""The two forms of the non-local operator as functions: checks, autocast, dispatch; PyTorch's attention."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from mpfnl.ops.nonlocal_attention.dispatch import (
    Implementation,
    ImplementationName,
    operand_dtype,
    resolve,
    result_dtype,
)
from mpfnl.ops.nonlocal_attention.library import attention_blockwise, attention_triton
from mpfnl.ops.nonlocal_attention.reference import nonlocal_attention_reference
from mpfnl.shapes import AttendedPositions, KeyPositions, Positions, ValuePositions


def nonlocal_attention(
    query: Positions,
    key: KeyPositions,
    value: ValuePositions,
    *,
    implementation: ImplementationName | None = None,
) -> AttendedPositions:
    """Softmax attention over all positions: one head, no scale, no mask.

    The function is differentiable once with respect to all three tensors. Mode `gaussian` takes the same
    tensor as query and key, which halves the work. Under autocast the operands and the result have autocast's
    dtype. Sums are in float32 at least. The forward pass is deterministic, and so is the backward pass,
    except for some of SDPA's backends. Wang et al., "Non-local neural networks", CVPR 2018, eq. 2 to 4.

    Args:
        query: `(batch, N, C)`, any strides.
        key: `(batch, M, C)`; M is N over the positions of one volume.
        value: `(batch, M, C_v)`.
        implementation: Implementation that runs; None chooses it by device, dtype and size (see
            `choose_implementation` and `use_implementation`).

    Returns:
        `(batch, N, C_v)` in the value's dtype, or in autocast's.

    Raises:
        ValueError: If the shapes do not fit, or the implementation cannot take them.

    >>> query, key = torch.zeros(1, 2, 3), torch.zeros(1, 4, 3)  # equal scores: the mean of the values
    >>> value = torch.tensor([[[1.0], [2.0], [3.0], [6.0]]])
    >>> nonlocal_attention(query, key, value)
    tensor([[[3.],
             [3.]]])
    """
    _check(query, key, value)
    chosen = resolve(query, key, value, implementation)
    dtype = result_dtype(value)
    if chosen is Implementation.SDPA:
        return attention_sdpa(query, key, value).to(dtype)
    if chosen is Implementation.REFERENCE:
        return nonlocal_attention_reference(query, key, value).to(dtype)
    shared = None if query is key else key
    if chosen is Implementation.BLOCKWISE:
        return attention_blockwise(query, shared, value, torch.float32)[0].to(dtype)
    return attention_triton(query, shared, value, operand_dtype(query) or torch.float32)[0].to(dtype)


def dot_product_attention(query: Positions, key: KeyPositions, value: ValuePositions) -> AttendedPositions:
    """Dot-product attention, normalised by the number of positions.

    The product is associative, so the C x C_v matrix `key^T value` is formed instead of the N x N one: time
    and memory are linear in N. That matrix is summed in float32 at least, also under autocast, because in
    float16 the sum over a large volume would overflow. Wang et al., CVPR 2018, eq. 5.

    Args:
        query: `(batch, N, C)`.
        key: `(batch, M, C)`.
        value: `(batch, M, C_v)`.

    Returns:
        `(batch, N, C_v)`.

    Raises:
        ValueError: If the shapes do not fit.

    >>> query, key = torch.ones(1, 1, 2), torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    >>> value = torch.tensor([[[10.0], [20.0]]])
    >>> dot_product_attention(query, key, value)  # (1 * 10 + 2 * 20) / 2
    tensor([[[25.]]])
    """
    _check(query, key, value)
    exact = torch.promote_types(value.dtype, torch.float32)
    with nullcontext() if query.is_meta else torch.autocast(query.device.type, enabled=False):
        summed = key.to(exact).transpose(1, 2) @ value.to(exact) / key.shape[1]
    return query @ summed.to(query.dtype)


def attention_sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention without a scale; shapes as for `nonlocal_attention`.

    PyTorch falls back to a form that stores the N x N matrix unless the operands are contiguous, query and
    value have the same number of channels and, on CUDA, rows are multiples of 16 bytes. The operands are
    therefore padded with columns of zeros, which do not change the result.
    """
    channels = value.shape[2]
    width = max(query.shape[2], channels)
    if query.device.type == "cuda":
        width = -(-width // 8) * 8
    q, k, v = (_widened(tensor, width).contiguous().unsqueeze(1) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)[..., :channels]


def _widened(tensor: Tensor, width: int) -> Tensor:
    # No padding by zero columns: a compiler with dynamic shapes assumes other strides of its result.
    missing = width - tensor.shape[2]
    return functional.pad(tensor, (0, missing)) if missing else tensor


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    shapes = f"query {tuple(query.shape)}, key {tuple(key.shape)}, value {tuple(value.shape)}"
    if not query.ndim == key.ndim == value.ndim == 3:
        raise ValueError(f"three tensors of (batch, position, channel) are needed: {shapes}")
    if not query.shape[0] == key.shape[0] == value.shape[0]:
        raise ValueError(f"the batches differ: {shapes}")
    if query.shape[2] != key.shape[2]:
        raise ValueError(f"query and key differ in channels: {shapes}")
    if key.shape[1] != value.shape[1] or key.shape[1] == 0:
        raise ValueError(f"each key needs a value, and there must be one at least: {shapes}")
    if len({result_dtype(tensor) for tensor in (query, key, value)}) > 1:
        raise ValueError(f"the dtypes differ: query {query.dtype}, key {key.dtype}, value {value.dtype}")
