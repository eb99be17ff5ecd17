"""The choice of the non-local operator's implementation: by device, dtype and size, or by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import cache
from importlib.util import find_spec
from typing import Literal, TypeAlias

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

VARIABLE = "MPFNL_NONLOCAL_ATTENTION"
"""Environment variable with the implementation for a whole process; read on import."""


class Implementation(StrEnum):
    """Implementations of the operator; they agree within the rounding of their formats.

    - `reference`: the definition, with the N x N matrix in memory.
    - `sdpa`: PyTorch's scaled dot-product attention.
    - `blockwise`: tiles in float32 or float64 on the CPU; half of the work where query and key are one.
    - `triton`: CUDA kernels in float16, bfloat16 or tf32 with float32 sums.
    """

    REFERENCE = "reference"
    SDPA = "sdpa"
    BLOCKWISE = "blockwise"
    TRITON = "triton"


ImplementationName: TypeAlias = Implementation | Literal["reference", "sdpa", "blockwise", "triton"]
"""An implementation, or its name."""

WIDEST = 64
"""Largest number of channels of the Triton kernels."""

FEWEST_BLOCKWISE = 4096
"""Smallest number of positions at which tiles outrun SDPA on the CPU (benchmarks/nonlocal_attention.py)."""

FEWEST_TRITON = 2048
"""Smallest number of positions at which a kernel's work outweighs its launch; an estimate, not measured."""

_AMX = torch.cpu._is_amx_tile_supported()
_TRITON = find_spec("triton") is not None

_override: Implementation | None = None
_logged: set[tuple[object, ...]] = set()


def choose_implementation(query: Tensor, key: Tensor, value: Tensor) -> Implementation:
    """The implementation that runs for these inputs unless one is named.

    - CUDA, compute capability 8.0 or more, at most 64 channels, 2,048 positions or more, operands in float16,
      bfloat16 or tf32: `triton`. Float32 inputs count as tf32 where `torch.set_float32_matmul_precision` is
      "high" or "medium".
    - CPU, query and key the same tensor, gradients needed, 4,096 positions or more: `blockwise`; but not for
      bfloat16 on processors with AMX.
    - Everything else: `sdpa`.

    Args:
        query: Query of `nonlocal_attention`.
        key: Key of `nonlocal_attention`.
        value: Value of `nonlocal_attention`.

    >>> x = torch.zeros(1, 300, 24)
    >>> str(choose_implementation(x, x, x))
    'sdpa'
    """
    positions, widest = key.shape[1], max(query.shape[2], value.shape[2])
    if query.device.type == "cuda":
        kernels = positions >= FEWEST_TRITON and widest <= WIDEST and _kernels_run_on(query.device.index)
        return Implementation.TRITON if kernels and operand_dtype(query) is not None else Implementation.SDPA
    if query.device.type == "cpu":
        trained = torch.is_grad_enabled() and (query.requires_grad or value.requires_grad)
        amx = _AMX and operand_dtype(query) is torch.bfloat16
        if trained and query is key and positions >= FEWEST_BLOCKWISE and not amx:
            return Implementation.BLOCKWISE
    return Implementation.SDPA


def operand_dtype(tensor: Tensor) -> torch.dtype | None:
    """The format of the matrix products' operands: the input's, or autocast's.

    float32 stands for tf32. None: the operands must not be rounded (float32 unless
    `torch.set_float32_matmul_precision` allows tf32, and float64).
    """
    dtype = result_dtype(tensor)
    if dtype in (torch.float16, torch.bfloat16):
        return dtype
    return torch.float32 if dtype is torch.float32 and _tf32_is_allowed() else None


def result_dtype(tensor: Tensor) -> torch.dtype:
    """Autocast's dtype where it is on, else the tensor's; autocast leaves float64 alone."""
    device = tensor.device.type
    if device == "meta" or tensor.dtype is torch.float64 or not torch.is_autocast_enabled(device):
        return tensor.dtype
    return torch.get_autocast_dtype(device)


@contextmanager
def use_implementation(implementation: ImplementationName) -> Iterator[None]:
    """Sets the implementation of `nonlocal_attention` within a `with` block; a call's argument overrides it.

    Args:
        implementation: Implementation or its name.

    >>> from mpfnl.ops import nonlocal_attention
    >>> x = torch.zeros(1, 5, 2)
    >>> with use_implementation("reference"):
    ...     nonlocal_attention(x, x, x + 1).unique()
    tensor([1.])
    """
    global _override
    before, _override = _override, Implementation(implementation)
    try:
        yield
    finally:
        _override = before


def resolve(
    query: Tensor, key: Tensor, value: Tensor, implementation: ImplementationName | None
) -> Implementation:
    """The named implementation, else that of the context or the environment, else the choice by inputs."""
    named = _override if implementation is None else Implementation(implementation)
    chosen = named or choose_implementation(query, key, value)
    if not torch.compiler.is_compiling():
        _log_once(chosen, query, named is not None)
    return chosen


def _log_once(chosen: Implementation, query: Tensor, named: bool) -> None:
    case = (chosen, query.device.type, query.dtype, named)
    if case not in _logged:
        _logged.add(case)
        why = "as named" if named else "by device, type and size"
        shape = "x".join(map(str, query.shape))
        logger.info("non-local attention on %s, %s, %s: %s (%s)", *case[1:3], shape, chosen, why)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _tf32_is_allowed() -> bool:
    return torch.get_float32_matmul_precision() != "highest"


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
@cache
def _kernels_run_on(device: int | None) -> bool:
    return _TRITON and torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)


def _named_by_the_environment() -> Implementation | None:
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    try:
        return Implementation(name)
    except ValueError:
        known = ", ".join(Implementation)
        raise ValueError(f"{VARIABLE}={name}: it must be one of {known}, or unset") from None


_override = _named_by_the_environment()
