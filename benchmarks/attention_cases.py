"""Inputs of benchmarks/nonlocal_attention.py, and their correct results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

SEED = 0
SAMPLED_ROWS = 256
REFERENCE_ELEMENTS = 1 << 24  # scores of the reference that are in memory at a time


class Mode(StrEnum):
    GAUSSIAN = "gaussian"
    EMBEDDED = "embedded"


class Task(StrEnum):
    FORWARD = "forward"
    BOTH = "forward and backward"


class Precision(StrEnum):
    """The format of the inputs and of the products' operands; tf32: float32 inputs, rounded operands."""

    FLOAT32 = "float32"
    TF32 = "tf32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"

    @property
    def dtype(self) -> torch.dtype:
        narrow = {Precision.BFLOAT16: torch.bfloat16, Precision.FLOAT16: torch.float16}
        return narrow.get(self, torch.float32)


LIMITS = {Precision.FLOAT32: 1e-5, Precision.TF32: 1e-3, Precision.FLOAT16: 2e-3, Precision.BFLOAT16: 1e-2}
"""The library's largest allowed relative error of the output, |out - reference| / |reference|."""

GRADIENT_FACTOR = 3.0  # the gradients may have so many times the output's error


@dataclass(frozen=True)
class Case:
    """One thing to compute.

    Args:
        positions: N.
        mode: `gaussian`: query and key are one tensor. `embedded`: they differ.
        task: Computation, with gradients of all inputs or without any.
        precision: Format of the inputs.
        device: "cpu" or "cuda".
        channels: C of query, key and value.
    """

    positions: int
    mode: Mode
    task: Task
    precision: Precision
    device: str = "cpu"
    channels: int = 24

    def inputs(self) -> Inputs:
        """As they come in the network: windowed voxels in [0, 1], or what convolutions make of them."""
        generator = torch.Generator().manual_seed(SEED)
        shape = (1, self.positions, self.channels)

        def made(draw: Callable[..., Tensor]) -> Tensor:
            return draw(shape, generator=generator).to(self.device, self.precision.dtype)

        gaussian = self.mode is Mode.GAUSSIAN
        query = made(torch.rand if gaussian else torch.randn)
        key = query if gaussian else made(torch.randn)
        value = made(torch.randn)
        rows = torch.randperm(self.positions, generator=generator)[:SAMPLED_ROWS].sort().values
        grad = made(torch.randn).detach()
        checked_grad = torch.zeros_like(grad)
        checked_grad[:, rows] = grad[:, rows]
        for tensor in {id(tensor): tensor for tensor in (query, key, value)}.values():
            tensor.requires_grad_(self.task is Task.BOTH)
        return Inputs(query, key, value, grad, checked_grad, rows.to(self.device))


@dataclass(frozen=True)
class Inputs:
    """The tensors of a case.

    The results are checked with an output gradient that is zero but for some rows: the reference then needs
    these rows of the matrix only, and is exact for all gradients.

    Args:
        query: `(1, N, C)`.
        key: The query itself in mode `gaussian`.
        value: `(1, N, C)`.
        grad: Gradient of the output, `(1, N, C)`.
        checked_grad: The same, zero but for the rows that are checked.
        rows: Checked rows of the output.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    grad: Tensor
    checked_grad: Tensor
    rows: Tensor

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """What gradients are taken of."""
        return (self.query, self.value) if self.query is self.key else (self.query, self.key, self.value)


@contextmanager
def at_precision(precision: Precision) -> Iterator[None]:
    """Within the block float32 products round their operands to tf32 only if that is the precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision is Precision.TF32 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def reference(inputs: Inputs) -> tuple[Tensor, ...]:
    """The checked rows of the output, and the gradients, in float64; a few rows of the matrix at a time."""
    exact = [tensor.detach().double() for tensor in inputs.leaves]
    leaves = [tensor.requires_grad_(inputs.value.requires_grad) for tensor in exact]
    query, key, value = leaves[0], leaves[-2], leaves[-1]
    outs, grads = [], [torch.zeros_like(leaf) for leaf in leaves]
    for rows in inputs.rows.split(max(1, REFERENCE_ELEMENTS // key.shape[1])):
        out = torch.softmax(query[:, rows] @ key.transpose(1, 2), dim=-1) @ value
        outs.append(out.detach())
        if value.requires_grad:
            for total, part in zip(
                grads, torch.autograd.grad(out, leaves, inputs.checked_grad[:, rows].double()), strict=True
            ):
                total += part
    return (torch.cat(outs, dim=1), *(grads if value.requires_grad else ()))


def errors(results: tuple[Tensor, ...], inputs: Inputs) -> tuple[float, float]:
    """The relative errors of the output and of the worst gradient (0 if there is none); NaN stays NaN."""
    found = [results[0].detach()[:, inputs.rows], *results[1:]]
    each = [
        float((result.double() - exact).norm() / exact.norm())
        for result, exact in zip(found, reference(inputs), strict=True)
    ]
    return each[0], float(torch.tensor([0.0, *each[1:]]).max())
