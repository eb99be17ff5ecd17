"""The Triton kernels against float64: on a GPU, or on the CPU in Triton's interpreter."""

from __future__ import annotations

import math
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


@settings(max_examples=15, deadline=None)
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


def test_weights_of_a_large_volume_do_not_drown_in_float16() -> None:
    """262,144 positions, half dark and half bright: dark rows give bright keys 2^-18 each, and it adds up.

    Too many to interpret: what is tested is that such weights are not folded where they would round away.
    """
    form = launch.FORMATS[torch.float16]
    spread, positions = 34.6, 2**18
    exponent = form.shift - math.log2(positions) - spread / 2  # of such a pair's weight, were it folded
    assert exponent < form.smallest
    assert spread / 4 > form.half_range(positions)  # so it is not folded
    assert launch.FORMATS[torch.bfloat16].half_range(positions) > spread / 4


def test_what_is_not_finite_stays_so() -> None:
    case = Case(40, symmetric=True, dtype=torch.bfloat16, device=DEVICE)
    case.query[0, 3, 5] = torch.nan
    with use_tiles(SMALL, SMALL):
        out, _ = launch.forward(case.query, None, case.value, torch.bfloat16)
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
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton.language as tl
from mpfnl.ops.nonlocal_attention.kernels import backward, forward, launch

SINGLE = {"largest", "lowest", "highest", "lse", "out", "largest_grad", "largest_value"}
FLOATS = {"least", "factor", "half_range", "query_factor", "key_factor"}
SHAPE = {"C": 24, "CV": 24, "WIDTH": 32, "WIDTH_V": 32}

def argument(name, operand):
    if name in FLOATS:
        return "fp32"
    if name in {"n", "m", "length"} or re.search("_(batch|row|column)$", name):
        return "i32"
    return "*fp32" if name in SINGLE else operand

def compiled(function, form, constants, warps=4, stages=2):
    operand = {tl.float16: "*fp16", tl.bfloat16: "*bf16", tl.float32: "*fp32"}[form.operand]
    constants = {**SHAPE, **constants, "SHIFT": form.shift, "OPERAND": form.operand}
    names = function.arg_names
    constants = {name: value for name, value in constants.items() if name in names}
    signature = {name: "constexpr" if name in constants else argument(name, operand) for name in names}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(function, signature, constexprs=values)
    options = {"num_warps": warps, "num_stages": stages}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]

for form in launch.FORMATS.values():
    rest = {"LIFT": form.lift, "PRECISION": "tf32"}
    for symmetric in (True, False):
        packing = {**rest, "ROWS": launch.PACKING_ROWS, "SYMMETRIC": symmetric}
        for function in (forward.pack_forward, backward.pack_backward):
            compiled(function, form, packing)
    tiles = launch._forward_tiles
    cut = {**rest, "ROWS": tiles.rows, "COLUMNS": tiles.columns}
    ptx = compiled(forward.attention_forward, form, cut, tiles.warps, tiles.stages)
    assert "wgmma" in ptx and "ex2.approx.ftz" in ptx
    tiles = launch._backward_tiles
    cut = {**rest, "ROWS": tiles.rows, "COLUMNS": tiles.columns}
    for symmetric, value in ((True, True), (False, True), (False, False)):
        flags = {**cut, "SYMMETRIC": symmetric, "VALUE": value}
        ptx = compiled(backward.attention_backward, form, flags, tiles.warps, tiles.stages)
        assert "wgmma" in ptx
        assert not re.search(r"\b(atom|red)\.", ptx)  # sums in any order
print("compiled")
"""


def test_kernels_compile_for_hopper_without_a_gpu(tmp_path: Path) -> None:
    """Tensor cores, the hardware's exponential, no atomic additions: read off the code for sm_90."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    script = tmp_path / "compile.py"
    script.write_text(COMPILE)
    command = [sys.executable, str(script)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.stdout.strip() == "compiled", result.stderr[-3000:]
