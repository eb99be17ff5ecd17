"""The Triton kernels against float64: on a GPU, or on the CPU in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nonlocal_cases import LIMITS, Case, check, relative_error

triton = pytest.importorskip("triton")

from mpfnl.ops import nonlocal_attention  # noqa: E402
from mpfnl.ops.nonlocal_attention.kernels import launch  # noqa: E402
from mpfnl.ops.nonlocal_attention.kernels.launch import Tiles, use_tiles  # noqa: E402

# NumPy, which the interpreter computes with, warns where the range test lets an exponential overflow.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Conversion of an array"),  # in Triton before 3.7
]

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = Tiles(rows=32, columns=32, warps=4, stages=2)
FORMATS = [torch.float16, torch.bfloat16, torch.float32]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Memory that no kernel has written is NaN."""
    torch.use_deterministic_algorithms(True)  # fills torch.empty, and nothing here refuses to run
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def tf32() -> Iterator[None]:
    """float32 operands stand for tf32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("n", [1, 7, 63, 64, 65, 131])
def test_results_and_gradients(n: int, symmetric: bool, dtype: torch.dtype) -> None:
    with use_tiles(SMALL, SMALL):
        check(Case(n, symmetric=symmetric, dtype=dtype, device=DEVICE), "triton")


@pytest.mark.parametrize("dtype", FORMATS)
def test_default_tiles(dtype: torch.dtype) -> None:
    check(Case(1000, symmetric=True, dtype=dtype, device=DEVICE, batch=1), "triton")


@pytest.mark.parametrize("dtype", FORMATS)
def test_large_n(dtype: torch.dtype) -> None:
    tiles = None if DEVICE == "cuda" else Tiles(512, 512, warps=4, stages=2)  # fewer steps to interpret
    with use_tiles(tiles, tiles):
        check(Case(4096, symmetric=True, dtype=dtype, device=DEVICE, batch=1), "triton")


def test_large_n_of_embedded_mode() -> None:
    check(Case(1000, symmetric=False, dtype=torch.bfloat16, device=DEVICE, batch=1), "triton")


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize(
    ("c", "cv", "m"), [(1, 1, 40), (14, 15, 50), (30, 24, 33), (31, 40, 70), (64, 64, 35)]
)
def test_any_number_of_channels_and_of_keys(c: int, cv: int, m: int, dtype: torch.dtype) -> None:
    with use_tiles(SMALL, SMALL):
        check(Case(50, keys=m, channels=c, value_channels=cv, dtype=dtype, device=DEVICE), "triton")


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    n=st.integers(1, 90),
    c=st.integers(1, 40),
    rows=st.sampled_from([16, 32, 64]),
    columns=st.sampled_from([16, 32, 64]),
    symmetric=st.booleans(),
)
def test_any_tiles(n: int, c: int, rows: int, columns: int, symmetric: bool) -> None:
    tiles = Tiles(rows, columns, warps=4, stages=2)
    with use_tiles(tiles, tiles):
        case = Case(n, channels=c, value_channels=c, symmetric=symmetric, dtype=torch.float16, device=DEVICE)
        check(case, "triton")


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("longest", [7, 14, 30])
@pytest.mark.parametrize("dtype", FORMATS)
def test_scores_beyond_the_range_of_the_format(dtype: torch.dtype, longest: int, symmetric: bool) -> None:
    """Lengths so different that the bound is too loose, or the factors of the backward pass are too large.

    In base 2 the scores are whole numbers, up to 900, so that no rounding hides what is tested: the range.
    """
    case = Case(90, symmetric=symmetric, device=DEVICE)
    factor = launch._factors(symmetric)[0]
    whole = torch.zeros(2, 90, 24)
    whole[..., 0] = torch.arange(90) % (longest + 1)
    whole[..., 1] = torch.arange(90) % 3 - 1
    case.query = (whole / factor).to(DEVICE)
    case.key = whole.flip(1).to(DEVICE) * -1
    key = None if symmetric else case.key
    with use_tiles(SMALL, SMALL):
        out, lse = launch.forward(case.query, key, case.value, dtype)
        grads = launch.backward(case.grad, case.query, key, case.value, out, lse, dtype)
    reference, expected = case.reference()
    assert relative_error(out, reference) < LIMITS[dtype]
    for grad, target in zip([grad for grad in grads if grad is not None], expected, strict=True):
        assert relative_error(grad, target) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("kind", ["equal", "zero", "one huge"])
def test_extreme_inputs(kind: str, dtype: torch.dtype) -> None:
    case = Case(70, symmetric=True, dtype=dtype, device=DEVICE)
    fill = {"equal": 0.5, "zero": 0.0, "one huge": 0.25}[kind]
    case.query = torch.full((2, 70, 24), fill, dtype=dtype, device=DEVICE)
    if kind == "one huge":
        case.query[:, 11, 3] = 128.0
    with use_tiles(SMALL, SMALL):
        out, lse = launch.forward(case.query, None, case.value, dtype)
        grads = launch.backward(case.grad, case.query, None, case.value, out, lse, dtype)
    reference, expected = case.reference()
    assert relative_error(out, reference) < LIMITS[dtype]
    assert grads[0].isfinite().all()
    assert relative_error(grads[2], expected[-1]) < LIMITS[dtype]


@pytest.mark.parametrize("kind", ["ones", "random"])
@pytest.mark.parametrize("dark", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("dtype", FORMATS)
def test_air_and_bone_with_a_gradient_of_one_sign(dtype: torch.dtype, dark: float, kind: str) -> None:
    """Half of the positions at the window's bottom, half at its top: log-sums spread by up to 35 bits."""
    case = Case(512, symmetric=True, dtype=dtype, device=DEVICE, batch=1)
    levels = torch.where(torch.arange(512) < 256, dark, 1.0)[None, :, None]
    noise = 0.02 * torch.randn(1, 512, 24, generator=torch.Generator().manual_seed(0))
    case.query = (levels + noise).clamp(0, 1).to(dtype).to(DEVICE)
    case.grad = torch.ones_like(case.grad) if kind == "ones" else case.grad.abs()
    tiles = Tiles(128, 128, warps=8, stages=2)
    with use_tiles(tiles, tiles):
        out, lse = launch.forward(case.query, None, case.value, dtype)
        grad_query, _, grad_value = launch.backward(case.grad, case.query, None, case.value, out, lse, dtype)
    reference, expected = case.reference()
    assert relative_error(out, reference) < LIMITS[dtype]
    assert relative_error(grad_value, expected[-1]) < LIMITS[dtype]
    assert relative_error(grad_query, expected[0]) < 5 * LIMITS[dtype]  # scores of 24 nats in this format


@pytest.mark.parametrize("dtype", FORMATS)
def test_rows_whose_gradients_differ_by_orders(dtype: torch.dtype) -> None:
    case = Case(512, symmetric=True, dtype=dtype, device=DEVICE, batch=1)
    levels = torch.where(torch.arange(512) < 256, 0.1, 0.7)[None, :, None]
    noise = torch.randn(1, 512, 25, generator=torch.Generator().manual_seed(0))
    case.query = (levels + 0.05 * noise[..., :24]).clamp(0, 1).to(dtype).to(DEVICE)
    case.grad = case.grad * torch.exp(1.5 * noise[..., 24:]).to(dtype).to(DEVICE)
    tiles = Tiles(128, 128, warps=8, stages=2)
    with use_tiles(tiles, tiles):
        check(case, "triton")


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("keys", [40, 64])
def test_scores_far_below_zero(keys: int, dtype: torch.dtype) -> None:
    """The rows of zeros behind the last key would have by far the highest scores."""
    case = Case(50, keys=keys, device=DEVICE)
    factor = launch._factors(False)[0]
    whole = torch.randint(1, 4, (2, 50 + keys, 24), generator=torch.Generator().manual_seed(0)).float()
    case.query = (whole[:, :50] / factor).to(DEVICE)
    case.key = -2 * whole[:, 50:].to(DEVICE)
    with use_tiles(SMALL, SMALL):
        out, lse = launch.forward(case.query, case.key, case.value, dtype)
        assert float(lse.max()) < -100
        grads = launch.backward(case.grad, case.query, case.key, case.value, out, lse, dtype)
    reference, expected = case.reference()
    assert relative_error(out, reference) < LIMITS[dtype]
    for grad, target in zip(grads, expected, strict=True):
        assert relative_error(grad, target) < 5 * LIMITS[dtype]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", FORMATS)
def test_log_sums_at_the_limit(dtype: torch.dtype, symmetric: bool) -> None:
    case = Case(70, symmetric=symmetric, device=DEVICE)
    query = torch.zeros(2, 70, 24)
    query[..., 0] = 15.8  # of base-2 scores of 249.6: with 70 keys the log-sums are 255.8
    case.query = (query / launch._factors(symmetric)[0]).to(DEVICE)
    case.key = query.to(DEVICE)
    key = None if symmetric else case.key
    with use_tiles(SMALL, SMALL):
        out, lse = launch.forward(case.query, key, case.value, dtype)
        assert 253 < float(lse.max()) < 258
        grads = launch.backward(case.grad, case.query, key, case.value, out, lse, dtype)
    assert all(grad is None or grad.isfinite().all() for grad in grads)
    assert relative_error(grads[2], case.reference()[1][-1]) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF])
def test_what_is_not_finite_stays_so(bits: int, dtype: torch.dtype) -> None:
    """Both NaN of the CPU and of the GPU."""
    case = Case(40, symmetric=True, device=DEVICE)
    nan = torch.tensor(bits, dtype=torch.int32).view(torch.float32)
    assert nan.isnan()
    with use_tiles(SMALL, SMALL):
        out, lse = launch.forward(case.query, None, case.value, dtype)
        case.grad[0, 3, 5] = nan
        grads = launch.backward(case.grad, case.query, None, case.value, out, lse, dtype)
        assert all(not grad[0].isfinite().any() for grad in grads if grad is not None)
        assert all(grad[1].isfinite().all() for grad in grads if grad is not None)
        case.query[0, 3, 5] = nan
        out, _ = launch.forward(case.query, None, case.value, dtype)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


def test_forward_and_backward_are_deterministic() -> None:
    results = []
    for _ in range(2):
        case = Case(200, symmetric=True, dtype=torch.float16, device=DEVICE)
        with use_tiles(SMALL, SMALL):
            out, lse = launch.forward(case.query, None, case.value, torch.float16)
            grads = launch.backward(case.grad, case.query, None, case.value, out, lse, torch.float16)
        results.append((out, lse, grads[0], grads[2]))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


def test_strides_do_not_matter() -> None:
    case = Case(65, symmetric=True, dtype=torch.float16, device=DEVICE)
    with use_tiles(SMALL, SMALL):
        plain = nonlocal_attention(case.query, case.query, case.value, implementation="triton")
        turned = case.query.transpose(1, 2).contiguous().transpose(1, 2)
        every_other = torch.stack([case.value, case.value], dim=2).flatten(1, 2)[:, ::2]
        strided = nonlocal_attention(turned, turned, every_other, implementation="triton")
    assert torch.equal(plain, strided)


def test_small_gradients_of_float16_are_not_lost() -> None:
    """A mean over many voxels has gradients far below float16's range; the output in float32 keeps them."""
    case = Case(60, symmetric=True, dtype=torch.float32, device=DEVICE)
    case.grad = case.grad * 1e-9
    with use_tiles(SMALL, SMALL):
        out, lse = launch.forward(case.query, None, case.value, torch.float16)
        grad_query, _, grad_value = launch.backward(
            case.grad, case.query, None, case.value, out, lse, torch.float16
        )
    _, expected = case.reference()
    assert relative_error(grad_query, expected[0]) < LIMITS[torch.float16]
    assert relative_error(grad_value, expected[-1]) < LIMITS[torch.float16]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_chooses_the_operands(dtype: torch.dtype) -> None:
    case = Case(64, symmetric=True, dtype=torch.float32, device=DEVICE)
    with use_tiles(SMALL, SMALL), torch.autocast(DEVICE, dtype):
        out = nonlocal_attention(case.query, case.query, case.value, implementation="triton")
    assert out.dtype is dtype
    assert relative_error(out, case.reference()[0]) < LIMITS[dtype]


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of opcheck's own, for the log-sums
def test_operator_is_registered_as_it_should_be() -> None:
    case = Case(20, symmetric=True, dtype=torch.float16, device=DEVICE)
    query, value = case.query.requires_grad_(), case.value.requires_grad_()
    with use_tiles(SMALL, SMALL):
        for key in (None, case.key):
            arguments = (query, key, value, torch.float16)
            torch.library.opcheck(torch.ops.mpfnl.attention_triton.default, arguments)


def test_too_many_channels_and_wrong_formats_are_refused() -> None:
    wide = torch.rand(1, 5, 65, device=DEVICE)
    with pytest.raises(ValueError, match="64 channels at most, not 65"):
        launch.forward(wide, None, wide, torch.float16)
    with pytest.raises(ValueError, match=r"not torch\.float64"):
        launch.forward(wide[..., :9], None, wide[..., :9], torch.float64)


def test_other_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "INTERPRETED", triton.language.constexpr(False))
    x = torch.rand(1, 5, 3)
    with pytest.raises(ValueError, match="need a CUDA device; these tensors are on cpu"):
        nonlocal_attention(x, x, x, implementation="triton")


COMPILE = r"""
import re
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton.language as tl
from mpfnl.ops.nonlocal_attention.kernels import backward, forward, launch

SINGLE = {"largest", "lowest", "highest", "lse", "out", "largest_grad", "largest_value"}
FLOATS = {"least", "factor", "half_range", "query_factor", "key_factor"}
SHARED = {80: 166_912, 86: 101_376, 90: 232_448}  # bytes a program may have

def argument(name, operand):
    if name in FLOATS:
        return "fp32"
    if name in {"n", "m", "length"} or re.search("_(batch|row|column)$", name):
        return "i32"
    return "*fp32" if name in SINGLE else operand

def compiled(function, dtype, shape, constants, tiles, capability=90):
    form = launch.FORMATS[dtype]
    operand = {tl.float16: "*fp16", tl.bfloat16: "*bf16", tl.float32: "*fp32"}[form.operand]
    constants = {**shape.constants(), **form.constants(), "PRECISION": "tf32", **constants}
    constants |= {"ROWS": tiles.rows, "COLUMNS": tiles.columns}
    names = function.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    signature = {name: "constexpr" if name in constants else argument(name, operand) for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if signature[name].startswith("*") or name == "length"
    }
    source = ASTSource(function, signature, constexprs=values, attrs=aligned)
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert made.metadata.shared <= SHARED[capability], (function, dtype, shape, made.metadata.shared)
    return made.asm["ptx"]

for dtype in launch.FORMATS:
    shape = launch._Shape(1, 1000, 1000, 24, 24)
    packing = launch.Tiles(launch.PACKING_ROWS, 0, 4, 2)
    for symmetric in (True, False):
        for function in (forward.pack_forward, backward.pack_backward):
            compiled(function, dtype, shape, {"SYMMETRIC": symmetric}, packing)
    ptx = compiled(forward.attention_forward, dtype, shape, {}, shape.forward_tiles(dtype))
    assert "wgmma" in ptx and "ex2.approx.ftz" in ptx
    for symmetric, value in ((True, True), (False, True), (False, False)):
        flags = {"SYMMETRIC": symmetric, "VALUE": value}
        ptx = compiled(backward.attention_backward, dtype, shape, flags, shape.backward_tiles(dtype))
        assert "mma" in ptx
        assert not re.search(r"\b(atom|red)\.", ptx)  # sums in any order
for dtype in (torch.float16, torch.float32):
    flags = {"SYMMETRIC": True, "VALUE": True}
    for channels in (24, 62, 64):
        for capability in (86, 80, 90):
            shape = launch._Shape(1, 1000, 1000, channels, channels)
            compiled(forward.attention_forward, dtype, shape, {}, shape.forward_tiles(dtype), capability)
            tiles = shape.backward_tiles(dtype)
            compiled(backward.attention_backward, dtype, shape, flags, tiles, capability)
print("compiled")
"""


@pytest.mark.slow
def test_kernels_compile_for_hopper_without_a_gpu(tmp_path: Path) -> None:
    """Tensor cores, the hardware's exponential, no atomic additions: read off the code for sm_90."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = tmp_path / "compile.py"
    script.write_text(COMPILE)
    command = [sys.executable, str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.stdout.strip() == "compiled", result.stderr[-3000:]
