"""Implementations that benchmarks/nonlocal_attention.py compares, and one trial of each."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias, TypeVar

import torch
from attention_cases import GRADIENT_FACTOR, LIMITS, Case, Inputs, at_precision, errors
from timing import peak_above
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from mpfnl.ops import nonlocal_attention
from mpfnl.ops.nonlocal_attention import Implementation

WARM_UP = 64  # positions
WRONG = 0.1  # an alternative's error from which on it computes something else

T = TypeVar("T")
Attention: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Method:
    """A way to compute the operator.

    Args:
        name: In the table.
        run: From query, key and value to the output.
        ours: Held to the library's limits.
        sdpa: One of PyTorch's backends for attention.
        quadratic: Stores the N x N matrix.
        compiled: Must be compiled for each case anew.
    """

    name: str
    run: Attention
    ours: bool = False
    sdpa: bool = False
    quadratic: bool = False
    compiled: bool = False


def materialised(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value


@cache
def _compiled() -> Attention:
    """Made when it is needed: the compiler takes long to import."""
    return torch.compile(materialised, dynamic=False)


def by_backend(backend: SDPBackend) -> Attention:
    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        q, k, v = (tensor.unsqueeze(1) for tensor in (query, key, value))
        with sdpa_kernel(backend):
            return functional.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)

    return run


def by_implementation(implementation: Implementation | None) -> Attention:
    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return nonlocal_attention(query, key, value, implementation=implementation)

    return run


MATERIALISED = "materialised"
BACKENDS = {
    "cpu": {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH},
    "cuda": {
        "flash": SDPBackend.FLASH_ATTENTION,
        "cuDNN": SDPBackend.CUDNN_ATTENTION,
        "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
        "math": SDPBackend.MATH,
    },
}
KERNELS = {"cpu": Implementation.BLOCKWISE, "cuda": Implementation.TRITON}


def methods(device: str) -> list[Method]:
    """All ways on a device, ours last: the dispatched one, and the library's own code by name."""
    kernel = KERNELS[device]
    return [
        Method(MATERIALISED, materialised, quadratic=True),
        Method(
            "materialised, torch.compile",
            lambda query, key, value: _compiled()(query, key, value),
            quadratic=True,
            compiled=True,
        ),
        *(
            Method(f"SDPA {name}", by_backend(backend), sdpa=True, quadratic=backend is SDPBackend.MATH)
            for name, backend in BACKENDS[device].items()
        ),
        Method(f"ours, {kernel}", by_implementation(kernel), ours=True),
        Method("ours, dispatched", by_implementation(None), ours=True),
    ]


def task_on(method: Method, inputs: Inputs, dense: bool = False) -> Callable[[], tuple[Tensor, ...]]:
    """Gives the output, and the gradients of the inputs where they need any.

    Args:
        method: Implementation of the operator.
        inputs: On what.
        dense: Whether the gradient of the output has all its rows, as in training, or those to check.
    """
    grad = inputs.grad if dense else inputs.checked_grad

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (method.run(inputs.query, inputs.key, inputs.value),)

    def both() -> tuple[Tensor, ...]:
        out = method.run(inputs.query, inputs.key, inputs.value)
        return (out, *torch.autograd.grad(out, inputs.leaves, grad))

    return both if inputs.value.requires_grad else forward


@dataclass(frozen=True)
class Trial:
    """What one run showed.

    Args:
        status: "ok", or why the method is not to be timed.
        error: Relative error of the output.
        gradient_error: Error of the worst gradient; 0 without gradients.
        peak: Bytes above the inputs.
        seconds: Time of that run, the first of its size if nothing was compiled.
    """

    status: str
    error: float = math.nan
    gradient_error: float = math.nan
    peak: int = 0
    seconds: float = math.nan


OK = "ok"


def trial(case: Case, method: Method) -> Trial:
    """Runs a method once, after a warm-up, and checks what comes out. On the CPU: in a process of its own."""
    with at_precision(case.precision):
        whole = method.compiled or case.device == "cuda"
        warm = case if whole else replace(case, positions=min(case.positions, WARM_UP))
        _, failure = attempt(task_on(method, warm.inputs()))
        if failure:
            return Trial(failure)
        inputs = case.inputs()
        run = task_on(method, inputs)
        kept: list[tuple[Tensor, ...]] = []
        seconds: list[float] = []

        def once() -> None:
            start = time.perf_counter()
            kept.append(run())
            seconds.append(time.perf_counter() - start)

        peak, failure = attempt(lambda: peak_above(once, case.device))
        if peak is None:
            return Trial(failure)
        found = errors(kept[0], inputs)
        return Trial(complaint(method, case, *found) or OK, *found, peak, seconds[0])


def trial_by_name(case: Case, name: str, threads: int) -> Trial:
    """`trial`, for another process."""
    torch.set_num_threads(threads)
    (method,) = (method for method in methods(case.device) if method.name == name)
    return trial(case, method)


def complaint(method: Method, case: Case, error: float, gradient_error: float) -> str:
    """Why a result is not to be timed; empty if it is right."""
    limit = LIMITS[case.precision] if method.ours else WRONG
    factor = GRADIENT_FACTOR if method.ours else 1.0
    if error <= limit and gradient_error <= factor * limit:
        return ""
    return f"wrong: error {error:.1e}, of gradients {gradient_error:.1e}, allowed {limit:.0e}"


def attempt(run: Callable[[], T]) -> tuple[T | None, str]:
    """What the run returns; or None, and why there is nothing: a refusal, or no memory."""
    with warnings.catch_warnings(record=True) as reasons:
        warnings.simplefilter("always")
        try:
            return run(), ""
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None, "out of memory"
        except Exception as error:  # a row of the table, whatever it is
            if "can't allocate memory" in str(error):
                return None, "out of memory"
            told = [str(reason.message) for reason in reasons] or [str(error) or type(error).__name__]
            return None, f"refused: {told[-1].splitlines()[0][:120]}"
