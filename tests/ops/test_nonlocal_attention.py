"""The non-local operator against its definition in float64."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from mpfnl.ops import dot_product_attention, nonlocal_attention
from mpfnl.ops.nonlocal_attention.reference import (
    dot_product_attention_reference,
    nonlocal_attention_reference,
)

SIZES = [1, 7, 63, 64, 65, 1000]


def relative_error(result: torch.Tensor, reference: torch.Tensor) -> float:
    return float((result.double() - reference).norm() / reference.norm())


def operands(n: int, channels: int = 24, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    return [torch.rand(2, n, channels, generator=generator).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_softmax_form_equals_the_definition(n: int, dtype: torch.dtype, limit: float) -> None:
    q, k, v = operands(n, dtype=dtype)
    reference = nonlocal_attention_reference(q.double(), k.double(), v.double())
    assert relative_error(nonlocal_attention(q, k, v), reference) < limit


@pytest.mark.parametrize("n", SIZES)
def test_dot_product_form_equals_the_definition(n: int) -> None:
    q, k, v = operands(n)
    reference = dot_product_attention_reference(q.double(), k.double(), v.double())
    assert relative_error(dot_product_attention(q, k, v), reference) < 1e-5


def test_any_memory_layout_gives_the_same() -> None:
    q, k, v = operands(130)
    strided = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in (q, k, v)]
    torch.testing.assert_close(nonlocal_attention(*strided), nonlocal_attention(q, k, v))


@pytest.mark.parametrize(
    "values", [torch.zeros(1, 9, 4), torch.full((1, 9, 4), 3.0), torch.eye(9, 4).unsqueeze(0) * 40]
)
def test_extreme_scores_stay_finite_and_exact(values: torch.Tensor) -> None:
    v = torch.arange(36.0).reshape(1, 9, 4)
    reference = nonlocal_attention_reference(values.double(), values.double(), v.double())
    assert relative_error(nonlocal_attention(values, values, v), reference) < 1e-5


@pytest.mark.parametrize("operator", [nonlocal_attention, dot_product_attention])
def test_gradients(operator) -> None:  # type: ignore[no-untyped-def]
    tensors = [tensor.double().requires_grad_() for tensor in operands(6, channels=3)]
    assert gradcheck(operator, tensors)


def test_memory_does_not_grow_with_the_square_of_n() -> None:
    """At N = 40,000 the matrix of one batch element would take 6.4 GB."""
    import resource

    q, _, _ = operands(40_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.no_grad():
        nonlocal_attention(q[:1], q[:1], q[:1])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000  # kB
