"""What only a GPU shows of the non-local operator; the kernels' own tests run on it too, if there is one."""

from __future__ import annotations

import pytest
import torch
from nonlocal_cases import LIMITS, Case, check, relative_error

from mpfnl.ops import nonlocal_attention
from mpfnl.ops.nonlocal_attention import Implementation, choose_implementation

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("n", [4096, 8191])
def test_default_choice_is_triton_and_exact(n: int, symmetric: bool, dtype: torch.dtype) -> None:
    case = Case(n, symmetric=symmetric, dtype=dtype, device="cuda", batch=1)
    key = case.query if symmetric else case.key
    assert choose_implementation(case.query, key, case.value) is Implementation.TRITON
    check(case, None)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_whole_patch_against_rows_in_float64(dtype: torch.dtype) -> None:
    case = Case(110_592, symmetric=True, dtype=dtype, device="cuda", batch=1)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    out = nonlocal_attention(case.query, case.query, case.value)
    assert torch.cuda.max_memory_allocated() - before < 100e6  # the matrix would take 24 GB
    rows = torch.randperm(case.n, device="cuda")[:256]
    exact = torch.softmax(case.query[:, rows].double() @ case.query.double().transpose(1, 2), dim=-1)
    assert relative_error(out[:, rows], exact @ case.value.double()) < LIMITS[dtype]


def test_float32_is_exact_unless_tf32_is_allowed() -> None:
    case = Case(4096, symmetric=True, device="cuda", batch=1)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert choose_implementation(case.query, case.query, case.value) is Implementation.SDPA
        check(case, None, 1e-5)
        torch.set_float32_matmul_precision("high")
        assert choose_implementation(case.query, case.query, case.value) is Implementation.TRITON
        check(case, None, LIMITS[torch.float32])
    finally:
        torch.set_float32_matmul_precision(before)


def test_compiles_with_inductor() -> None:
    case = Case(4096, symmetric=True, dtype=torch.float16, device="cuda", batch=1)
    x, v = case.leaves()
    compiled = torch.compile(lambda x, v: nonlocal_attention(x, x, v.sin()), fullgraph=True)
    result = torch.autograd.grad(compiled(x, v), (x, v), case.grad)
    expected = torch.autograd.grad(nonlocal_attention(x, x, v.sin()), (x, v), case.grad)
    for ours, plain in zip(result, expected, strict=True):
        assert relative_error(ours, plain.double()) < LIMITS[torch.float16]


def test_runs_in_a_cuda_graph() -> None:
    case = Case(4096, symmetric=True, dtype=torch.float16, device="cuda", batch=1)
    static = case.query.clone()
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            nonlocal_attention(static, static, case.value)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = nonlocal_attention(static, static, case.value)
        static.copy_(case.query.flip(1))
        graph.replay()
        flipped = case.query.flip(1)
        assert torch.equal(out, nonlocal_attention(flipped, flipped, case.value))
