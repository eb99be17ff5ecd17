"""The non-local operator on the CPU against its definition in float64."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import PeakMemory, tree_memory
from nonlocal_cases import EXACT_FLOAT32, LIMITS, Case, check, relative_error
from torch.autograd import gradcheck

from mpfnl.ops import nonlocal_attention
from mpfnl.ops.nonlocal_attention import (
    Implementation,
    blockwise,
    choose_implementation,
    dispatch,
    dot_product_attention,
    use_implementation,
)
from mpfnl.ops.nonlocal_attention.reference import dot_product_attention_reference

SIZES = [1, 7, 63, 64, 65, 1000]
ON_CPU = ["reference", "sdpa", "blockwise"]


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that nobody has written is NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blockwise, "block_size", lambda: 64)


@pytest.mark.usefixtures("poisoned", "small_blocks")
@pytest.mark.parametrize("implementation", ON_CPU)
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, EXACT_FLOAT32), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)]
)
def test_output_equals_the_definition(
    n: int, dtype: torch.dtype, limit: float, same: bool, implementation: str
) -> None:
    case = Case(n, symmetric=same, dtype=dtype)
    out = nonlocal_attention(
        case.query, case.query if same else case.key, case.value, implementation=implementation
    )
    assert out.dtype is dtype
    assert relative_error(out, case.reference()[0]) < limit


@pytest.mark.usefixtures("poisoned", "small_blocks")
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_blockwise_gradients_equal_the_definition(n: int, dtype: torch.dtype, same: bool) -> None:
    limits = {**LIMITS, torch.float32: EXACT_FLOAT32}
    # Of embedded mode on unrelated inputs the gradient of the query nearly cancels: 1e-5 of what is summed
    # is not 1e-5 of the sum. In float32 the definition itself is at 1.6e-5 for N = 4000, this one at 2.3e-5.
    limit = limits[dtype] if same or dtype is not torch.float32 else 1e-4
    check(Case(n, symmetric=same, dtype=dtype), "blockwise", limit)


@pytest.mark.parametrize("same", [True, False])
def test_large_n(same: bool) -> None:
    check(Case(4096, symmetric=same, batch=1), "blockwise", EXACT_FLOAT32 if same else 1e-4)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 150),
    m=st.integers(1, 150),
    c=st.integers(1, 64),
    cv=st.integers(1, 64),
    same=st.booleans(),
    block=st.sampled_from([16, 64]),
)
def test_any_shape(n: int, m: int, c: int, cv: int, same: bool, block: int) -> None:
    case = Case(n, n if same else m, c, cv, symmetric=same, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "block_size", lambda: block)
        check(case, "blockwise", 1e-9)
    reference, _ = case.reference()
    key = case.query if same else case.key
    assert relative_error(nonlocal_attention(case.query, key, case.value), reference) < 1e-9


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("implementation", ["sdpa", "blockwise"])
@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_lengths_that_differ_too_much_for_the_bound(scale: float, implementation: str) -> None:
    """With the longest 100 the symmetric form and the bound both fail, and the running maximum takes over."""
    case = Case(130, symmetric=True, dtype=torch.float64)
    case.query = case.query * torch.linspace(0.01, scale, 130)[None, :, None]
    spread = blockwise.spread_is_small(case.query[0].float())
    assert spread == (scale == 1.0)
    check(case, implementation, 1e-9)
    single = case.query.float()
    case.query = single.double()
    out = nonlocal_attention(single, single, case.value.float(), implementation=implementation)
    assert relative_error(out, case.reference()[0]) < 3e-7 * max(scale**2, 30)  # of the scores' own rounding


def test_running_maximum_takes_over_where_the_bound_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    slow = blockwise._with_running_maximum
    monkeypatch.setattr(blockwise, "_with_running_maximum", lambda *a: used.append(1) or slow(*a))
    for scale, expected in ((1.0, False), (30.0, True)):
        case = Case(100, dtype=torch.float32)
        used.clear()
        out = nonlocal_attention(case.query * scale, -case.key, case.value, implementation="blockwise")
        assert bool(used) is expected
        case.query, case.key = case.query * scale, -case.key
        assert relative_error(out, case.reference()[0]) < 1e-4


@pytest.mark.parametrize("implementation", ON_CPU)
@pytest.mark.parametrize(
    "values", [torch.zeros(1, 9, 4), torch.full((1, 9, 4), 3.0), torch.eye(9, 4).unsqueeze(0) * 40]
)
def test_extreme_scores_stay_finite_and_exact(values: torch.Tensor, implementation: str) -> None:
    case = Case(9, channels=4, value_channels=4, symmetric=True, batch=1)
    case.query = values
    check(case, implementation, EXACT_FLOAT32)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_what_is_not_finite_stays_so(implementation: str) -> None:
    case = Case(40, symmetric=True)
    case.query[0, 3, 5] = torch.nan
    out = nonlocal_attention(case.query, case.query, case.value, implementation=implementation)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("implementation", ON_CPU)
def test_any_memory_layout_gives_the_same(implementation: str) -> None:
    case = Case(130)
    tensors = (case.query, case.key, case.value)
    strided = [tensor.transpose(1, 2).contiguous().transpose(1, 2) for tensor in tensors]
    with use_implementation(implementation):
        torch.testing.assert_close(nonlocal_attention(*strided), nonlocal_attention(*tensors))


@pytest.mark.parametrize("n", SIZES)
def test_dot_product_form_equals_the_definition(n: int) -> None:
    case = Case(n)
    operands = [tensor.double() for tensor in (case.query, case.key, case.value)]
    reference = dot_product_attention_reference(*operands)
    result = dot_product_attention(case.query, case.key, case.value)
    assert relative_error(result, reference) < EXACT_FLOAT32


def test_dot_product_form_in_float16_does_not_overflow() -> None:
    ones = torch.ones(1, 200_000, 2, dtype=torch.float16)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(dot_product_attention(ones, ones, ones), 2 * ones)


@pytest.mark.parametrize("implementation", ON_CPU)
def test_gradients_by_finite_differences(implementation: str) -> None:
    case = Case(6, channels=3, value_channels=2, dtype=torch.float64)
    leaves = case.leaves()
    with use_implementation(implementation):
        assert gradcheck(nonlocal_attention, leaves)
        assert gradcheck(lambda x, v: nonlocal_attention(x, x, v), [leaves[0], leaves[2]])
    assert gradcheck(dot_product_attention, leaves)


def test_one_tensor_in_all_three_places() -> None:
    x = torch.rand(1, 70, 5, dtype=torch.float64, requires_grad=True)
    for implementation in ON_CPU:
        out = nonlocal_attention(x, x, x, implementation=implementation)
        (grad,) = torch.autograd.grad(out.square().sum(), x)
        exact = torch.softmax(x @ x.transpose(1, 2), dim=-1) @ x
        torch.testing.assert_close(grad, torch.autograd.grad(exact.square().sum(), x)[0])


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of opcheck's own, for the log-sums
def test_operator_is_registered_as_it_should_be() -> None:
    case = Case(20)
    query, value = case.query.requires_grad_(), case.value.requires_grad_()
    for key in (None, case.key.requires_grad_()):
        torch.library.opcheck(torch.ops.mpfnl.attention_blockwise.default, (query, key, value, torch.float32))


@pytest.mark.parametrize("implementation", ON_CPU)
def test_autocast_decides_the_dtype(implementation: str) -> None:
    case = Case(100, symmetric=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = nonlocal_attention(case.query, case.query, case.value, implementation=implementation)
    assert out.dtype is torch.bfloat16
    assert relative_error(out, case.reference()[0]) < LIMITS[torch.bfloat16]


def test_choice_by_size_and_gradient() -> None:
    many = torch.rand(1, dispatch.FEWEST_BLOCKWISE, 24)
    trained = many.clone().requires_grad_()
    amx = dispatch._AMX
    assert choose_implementation(trained, trained, many) is Implementation.BLOCKWISE
    assert choose_implementation(many, many, many) is Implementation.SDPA
    assert choose_implementation(trained, many, many) is Implementation.SDPA
    few = trained[:, 1:]
    assert choose_implementation(few, few, few) is Implementation.SDPA
    with torch.no_grad():
        assert choose_implementation(trained, trained, many) is Implementation.SDPA
    with torch.autocast("cpu", torch.bfloat16):
        expected = Implementation.SDPA if amx else Implementation.BLOCKWISE
        assert choose_implementation(trained, trained, many) is expected


def test_what_is_named_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(10)
    ran: list[str] = []
    names = ["attention_sdpa", "attention_blockwise", "nonlocal_attention_reference"]
    for name in names:
        module = sys.modules["mpfnl.ops.nonlocal_attention.attention"]
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, f=original: ran.append(n) or f(*a))
    nonlocal_attention(case.query, case.key, case.value, implementation="blockwise")
    with use_implementation("reference"):
        nonlocal_attention(case.query, case.key, case.value)
        nonlocal_attention(case.query, case.key, case.value, implementation="sdpa")
        with use_implementation(Implementation.BLOCKWISE):
            nonlocal_attention(case.query, case.key, case.value)
    nonlocal_attention(case.query, case.key, case.value)
    assert ran == [names[index] for index in (1, 2, 0, 1, 0)]


def test_environment_names_the_implementation() -> None:
    script = "from mpfnl.ops.nonlocal_attention import dispatch; print(dispatch._override)"
    for value, expected in (("reference", "reference"), ("fastest", "must be one of")):
        result = subprocess.run(
            [sys.executable, "-c", script],
            env={"MPFNL_NONLOCAL_ATTENTION": value, "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert expected in (result.stdout + result.stderr)


def test_choice_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "_logged", set())
    case = Case(10)
    with caplog.at_level(logging.INFO, logger="mpfnl"):
        for _ in range(3):
            nonlocal_attention(case.query, case.key, case.value)
    assert [record.getMessage() for record in caplog.records] == [
        "non-local attention on cpu, torch.float32, 2x10x24: sdpa (by device, type and size)"
    ]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2, 5, 3), (1, 5, 3), (1, 5, 3)), "batches differ"),
        (((1, 5, 3), (1, 5, 4), (1, 5, 3)), "differ in channels"),
        (((1, 5, 3), (1, 5, 3), (1, 6, 3)), "each key needs a value"),
        (((1, 5, 3), (1, 0, 3), (1, 0, 3)), "each key needs a value"),
        (((5, 3), (5, 3), (5, 3)), r"\(batch, position, channel\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...], message: str) -> None:
    from mpfnl.ops.nonlocal_attention.attention import _check  # the tests' shape check comes first otherwise

    with pytest.raises(ValueError, match=message):
        _check(*(torch.rand(shape) for shape in shapes))


def test_dtypes_that_differ_are_refused_but_under_autocast() -> None:
    x = torch.rand(1, 9, 4)
    with pytest.raises(ValueError, match=r"the dtypes differ: query torch\.float32"):
        nonlocal_attention(x, x, x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        assert nonlocal_attention(x, x, x.bfloat16()).dtype is torch.bfloat16
        assert nonlocal_attention(x.double(), x.double(), x.double()).dtype is torch.float64


@pytest.mark.usefixtures("small_blocks")
def test_a_bound_that_fails_under_autocast() -> None:
    case = Case(100, symmetric=True)
    case.query = case.query * torch.linspace(0.01, 30, 100)[None, :, None]
    with torch.autocast("cpu", torch.bfloat16):
        leaves = case.leaves()
        out = nonlocal_attention(leaves[0], leaves[0], leaves[1], implementation="blockwise")
    grads = torch.autograd.grad(out, leaves, case.grad.bfloat16())
    reference, _ = case.reference()
    assert relative_error(out, reference) < LIMITS[torch.bfloat16]
    assert all(grad.isfinite().all() for grad in grads)


def test_shapes_alone_on_the_meta_device() -> None:
    x, v = torch.empty(2, 7, 5, device="meta"), torch.empty(2, 7, 3, device="meta")
    assert nonlocal_attention(x, x, v).shape == dot_product_attention(x, x, v).shape == (2, 7, 3)


def test_unknown_implementations_are_refused() -> None:
    x = torch.rand(1, 3, 2)
    with pytest.raises(ValueError, match="fastest"), use_implementation("fastest"):  # type: ignore[arg-type]
        nonlocal_attention(x, x, x)


@pytest.mark.parametrize("same", [True, False])
def test_memory_does_not_grow_with_the_square_of_n(same: bool) -> None:
    """At N = 20,000 the matrix would take 1.6 GB; forward and backward take a fraction of that."""
    case = Case(20_000, symmetric=same, batch=1)
    leaves = case.leaves()
    before = tree_memory()
    with PeakMemory() as memory:
        key = leaves[0] if same else leaves[1]
        out = nonlocal_attention(leaves[0], key, leaves[-1], implementation="blockwise")
        torch.autograd.grad(out, leaves, case.grad)
    assert memory.peak - before < 200e6


def test_compiles_without_graph_breaks() -> None:
    script = """
import importlib.util
import os
import warnings
import torch
from mpfnl.ops import nonlocal_attention

TRITON = importlib.util.find_spec("triton") and os.environ.get("TRITON_INTERPRET") == "1"
torch.set_float32_matmul_precision("high")
torch._dynamo.config.recompile_limit = 64

def f(x, v, implementation):
    return nonlocal_attention(x, x, v, implementation=implementation)

compiled = torch.compile(f, backend="aot_eager", fullgraph=True)
for n in (70, 4200):
    for implementation in (None, "blockwise", "sdpa", "triton"):
        if n > 100 and implementation or implementation == "triton" and not TRITON:
            continue
        x, v = torch.rand(1, n, 5, requires_grad=True), torch.rand(1, n, 5, requires_grad=True)
        out = compiled(x, v, implementation)
        tolerance = {"rtol": 1e-2, "atol": 1e-2} if implementation == "triton" else {}
        torch.testing.assert_close(out, f(x, v, implementation), **tolerance)
        with torch.autocast("cpu", torch.bfloat16):
            assert compiled(x, v, implementation).dtype is torch.bfloat16
        grads = torch.autograd.grad(out.square().sum(), (x, v))
        expected = torch.autograd.grad(f(x, v, "reference").square().sum(), (x, v))
        torch.testing.assert_close(grads, expected, **tolerance)
print("compiled")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "compiled", result.stderr[-3000:]


def test_needs_torch_only() -> None:
    """Nothing but torch is imported, and no kernel before one is called."""
    script = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"lightning", "torchio", "torchmetrics", "nibabel", "scipy", "monai",
                                  "jaxtyping", "SimpleITK", "safetensors", "matplotlib"}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
from mpfnl.ops import nonlocal_attention
assert "mpfnl.ops.nonlocal_attention.kernels" not in sys.modules
x = torch.rand(1, 5000, 24, requires_grad=True)
nonlocal_attention(x, x, x).sum().backward()
print("alone")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "alone", result.stderr[-3000:]
