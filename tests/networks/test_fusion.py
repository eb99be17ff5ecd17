"""Convolutions with their activation in one pass, and sums over groups, against the plain forms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from mpfnl.ops import convolution as module
from mpfnl.ops.convolution import convolve_leaky_relu
from mpfnl.ops.groups import add_to_groups, convolve_groups_leaky_relu

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


class Names(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.append(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch.manual_seed(0)
    module._fusion_works.cache_clear()
    yield
    module._fusion_works.cache_clear()


def relative(a: Tensor, b: Tensor) -> float:
    return float(((a.double() - b.double()).norm() / b.double().norm()).detach())


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1), (5, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_fused_form_is_as_exact_as_the_plain_one(
    slope: float, kernel: int, padding: int, bias: bool
) -> None:
    convolution = nn.Conv3d(16, 24, kernel, padding=padding, bias=bias).to(memory_format=LAYOUTS[1])
    x = torch.randn(2, 16, 7, 6, 5).to(torch.bfloat16)
    exact_convolution = nn.Conv3d(16, 24, kernel, padding=padding, bias=bias).double()
    exact_convolution.load_state_dict(
        {name: value.to(torch.bfloat16) for name, value in convolution.state_dict().items()}
    )
    exact = functional.leaky_relu(exact_convolution(x.double()), slope)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad(), Names() as seen:
        fused = convolve_leaky_relu(convolution, x, slope)
    with torch.autocast("cpu", torch.bfloat16):
        plain = convolve_leaky_relu(convolution, x, slope)
    if module._fusion_works(torch.bfloat16):
        assert "_convolution_pointwise" in seen.names
    assert fused.dtype is plain.dtype is torch.bfloat16
    assert relative(fused, exact) < 4e-3
    assert relative(fused, exact) < 1.05 * relative(plain.detach(), exact)


def test_it_is_plain_with_gradients_in_float32_and_where_the_operator_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    convolution, x = nn.Conv3d(8, 8, 3, padding=1), torch.randn(1, 8, 5, 5, 5)
    expected = functional.leaky_relu(convolution(x), 0.2)
    with Names() as seen:
        torch.testing.assert_close(convolve_leaky_relu(convolution, x, 0.2), expected)
        with torch.no_grad():
            torch.testing.assert_close(convolve_leaky_relu(convolution, x, 0.2), expected)
        with torch.autocast("cpu", torch.bfloat16):
            convolve_leaky_relu(convolution, x, 0.2)

        def missing(*_: object) -> Tensor:
            raise RuntimeError("no such operator")

        for broken in (missing, lambda *_: torch.zeros(1, 16, 4, 4, 4)):
            module._fusion_works.cache_clear()
            monkeypatch.setattr(module, "_fused", broken)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                assert relative(convolve_leaky_relu(convolution, x, 0.2), expected.detach()) < 2e-2
    assert "_convolution_pointwise" not in seen.names


def concatenated(features: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    joined = torch.cat(features.chunk(groups), dim=1)
    return functional.leaky_relu(functional.conv3d(joined, weight, bias, padding=weight.shape[-1] // 2), 0.2)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("groups", "batch"), [(3, 1), (3, 2), (1, 2)])
def test_a_convolution_of_groups_is_one_of_their_concatenation(
    groups: int, batch: int, kernel: int, layout: torch.memory_format
) -> None:
    features = torch.randn(groups * batch, 4, 3, 4, 5, dtype=torch.float64).to(memory_format=layout)
    weight = torch.randn(6, groups * 4, *[kernel] * 3, dtype=torch.float64).to(memory_format=layout)
    inputs = [features, weight, torch.randn(6, dtype=torch.float64)]
    gradients = []
    for run in (convolve_groups_leaky_relu, concatenated):
        for tensor in inputs:
            tensor.requires_grad_().grad = None
        arguments = (*inputs, groups, 0.2) if run is convolve_groups_leaky_relu else (*inputs, groups)
        result = run(*arguments)
        result.square().sum().backward()
        gradients.append([result, *(tensor.grad for tensor in inputs)])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("groups", "batch"), [(3, 1), (2, 2), (1, 2)])
def test_gradients_of_sums_over_groups(groups: int, batch: int, layout: torch.memory_format) -> None:
    features = torch.randn(groups * batch, 2, 3, 2, 2, dtype=torch.float64).to(memory_format=layout)
    shared = torch.randn(batch, 2, 3, 2, 2, dtype=torch.float64).to(memory_format=layout)
    expected = features + torch.cat([shared] * groups)
    torch.testing.assert_close(add_to_groups(features.clone(), shared, groups), expected)
    inputs = (features.requires_grad_(), shared.requires_grad_())
    # A copy is given away: the features are overwritten.
    assert torch.autograd.gradcheck(lambda a, b: add_to_groups(a.clone(), b, groups), inputs)
    assert torch.autograd.gradgradcheck(lambda a, b: add_to_groups(a.clone(), b, groups), inputs)
