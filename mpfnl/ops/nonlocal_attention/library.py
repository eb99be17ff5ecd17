"""The `torch.library` operators with their fake kernels and gradients.

`torch.ops.mpfnl.attention_blockwise` and `torch.ops.mpfnl.attention_triton` have one schema:

    (Tensor query, Tensor? key, Tensor value, ScalarType operands) -> (Tensor out, Tensor lse)

`key` is None where it is the query. `out` and `lse` are float32 at least, whatever the inputs are, because
the backward pass needs them exactly; `lse` is the logarithm to base 2 of each row's sum of exp(score).
`operands` is the format of the matrix products' operands, which the blockwise form ignores.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.library import custom_op

from mpfnl.ops.nonlocal_attention import blockwise

_FORWARD = "(Tensor query, Tensor? key, Tensor value, ScalarType operands) -> (Tensor, Tensor)"
_BACKWARD = (
    "(Tensor grad, Tensor query, Tensor? key, Tensor value, Tensor out, Tensor lse, ScalarType operands)"
    " -> (Tensor, Tensor, Tensor)"
)

Gradients: TypeAlias = tuple[Tensor, Tensor, Tensor]


@custom_op("mpfnl::attention_blockwise", mutates_args=(), schema=_FORWARD)
def attention_blockwise(
    query: Tensor, key: Tensor | None, value: Tensor, operands: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See `blockwise.forward`."""
    with torch.autocast(query.device.type, enabled=False):  # it would narrow the products
        return blockwise.forward(query, key, value)


@custom_op("mpfnl::attention_blockwise_backward", mutates_args=(), schema=_BACKWARD)
def attention_blockwise_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    operands: torch.dtype,
) -> Gradients:
    """See `blockwise.backward`; an empty tensor for the gradient of a key that is the query."""
    with torch.autocast(query.device.type, enabled=False):
        grad_query, grad_key, grad_value = blockwise.backward(grad, query, key, value, out, lse)
    return grad_query, query.new_empty(0) if grad_key is None else grad_key, grad_value


@custom_op("mpfnl::attention_triton", mutates_args=(), schema=_FORWARD)
def attention_triton(
    query: Tensor, key: Tensor | None, value: Tensor, operands: torch.dtype
) -> tuple[Tensor, Tensor]:
    """See `kernels.launch.forward`."""
    from mpfnl.ops.nonlocal_attention.kernels import launch  # needs Triton

    return launch.forward(query, key, value, operands)


@custom_op("mpfnl::attention_triton_backward", mutates_args=(), schema=_BACKWARD)
def attention_triton_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    operands: torch.dtype,
) -> Gradients:
    """See `kernels.launch.backward`; an empty tensor for the gradient of a key that is the query."""
    from mpfnl.ops.nonlocal_attention.kernels import launch  # needs Triton

    grad_query, grad_key, grad_value = launch.backward(grad, query, key, value, out, lse, operands)
    return grad_query, query.new_empty(0) if grad_key is None else grad_key, grad_value


def _fake_forward(
    query: Tensor, key: Tensor | None, value: Tensor, operands: torch.dtype
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(value.dtype, torch.float32)
    batch, positions, _ = query.shape
    out = value.new_empty((batch, positions, value.shape[2]), dtype=dtype)
    return out, value.new_empty((batch, positions), dtype=dtype)


def _fake_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor | None,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    operands: torch.dtype,
) -> Gradients:
    grad_key = query.new_empty(0) if key is None else key.new_empty(key.shape)
    return query.new_empty(query.shape), grad_key, value.new_empty(value.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, operands = inputs
    ctx.save_for_backward(query, key, value, *output)
    ctx.operands = operands
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad: Tensor | None, backward: Any) -> tuple[Any, ...]:
    if grad is None:
        return None, None, None, None
    query, key, value, out, lse = ctx.saved_tensors
    grad_query, grad_key, grad_value = backward(grad, query, key, value, out, lse, ctx.operands)
    return grad_query, None if key is None else grad_key, grad_value, None


def _register(forward: Any, backward: Any) -> None:
    forward.register_fake(_fake_forward)
    backward.register_fake(_fake_backward)
    forward.register_autograd(
        lambda ctx, grad, grad_lse: _gradients(ctx, grad, backward), setup_context=_remember
    )


_register(attention_blockwise, attention_blockwise_backward)
_register(attention_triton, attention_triton_backward)
