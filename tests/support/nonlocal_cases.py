"""Inputs of the non-local operator, its float64 reference, and the limits of the error."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mpfnl.ops import nonlocal_attention
from mpfnl.ops.nonlocal_attention.reference import nonlocal_attention_reference

LIMITS = {torch.float32: 1e-3, torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float64: 1e-12}
"""Largest ||result - reference|| / ||reference||; float32 stands for tf32."""

GRADIENT_LIMITS = {**LIMITS, torch.float32: 2e-3}
"""The same of gradients. tf32 rounds as float16 does, and gradients cancel: so it gets float16's limit."""

EXACT_FLOAT32 = 1e-5


def relative_error(result: Tensor, reference: Tensor) -> float:
    """||result - reference|| / ||reference||; infinite where the result is not finite."""
    result = result.detach().double().cpu()
    if not result.isfinite().all():
        return float("inf")
    return float((result - reference.cpu()).norm() / reference.cpu().norm().clamp(min=1e-300))


@dataclass
class Case:
    """Random inputs in [0, 1] and a random gradient, fresh for each size."""

    n: int
    keys: int | None = None
    channels: int = 24
    value_channels: int = 24
    symmetric: bool = False
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    batch: int = 2
    query: Tensor = field(init=False)
    key: Tensor = field(init=False)
    value: Tensor = field(init=False)
    grad: Tensor = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(1000 * self.n + self.channels)
        m = self.n if self.keys is None else self.keys

        def draw(positions: int, channels: int) -> Tensor:
            drawn = torch.rand(self.batch, positions, channels, generator=generator)
            return drawn.to(self.dtype).to(self.device)

        self.query, self.key = draw(self.n, self.channels), draw(m, self.channels)
        self.value = draw(m, self.value_channels)
        grad = torch.randn(self.batch, self.n, self.value_channels, generator=generator)
        self.grad = grad.to(self.dtype).to(self.device)

    def leaves(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Copies to differentiate by: the query, the key unless symmetric, the value."""
        tensors = [self.query, self.value] if self.symmetric else [self.query, self.key, self.value]
        return [tensor.detach().to(dtype or tensor.dtype).clone().requires_grad_() for tensor in tensors]

    def reference(self) -> tuple[Tensor, list[Tensor]]:
        """The output and the gradients in float64, of the inputs as they were rounded."""
        leaves = self.leaves(torch.float64)
        out = nonlocal_attention_reference(leaves[0], leaves[-2 if not self.symmetric else 0], leaves[-1])
        return out.detach(), list(torch.autograd.grad(out, leaves, self.grad.double()))


def check(case: Case, implementation: str | None, limit: float | None = None, factor: float = 1.0) -> None:
    """Asserts that output and gradients are within the limit of the case's dtype."""
    output_limit = factor * (LIMITS[case.dtype] if limit is None else limit)
    gradient_limit = factor * (GRADIENT_LIMITS[case.dtype] if limit is None else limit)
    leaves = case.leaves()
    key = leaves[0] if case.symmetric else leaves[1]
    out = nonlocal_attention(leaves[0], key, leaves[-1], implementation=implementation)
    assert out.dtype is case.dtype
    grads = torch.autograd.grad(out, leaves, case.grad)
    reference, expected = case.reference()
    assert relative_error(out, reference) < output_limit
    for grad, target, leaf in zip(grads, expected, leaves, strict=True):
        assert grad.shape == leaf.shape
        if float(target.norm()) > 1e-6 * float(case.grad.double().norm()):  # of one key the gradient is 0
            assert relative_error(grad, target) < gradient_limit
