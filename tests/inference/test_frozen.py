"""Weights that are cast once: the same results, and a network that nobody touched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mpfnl.inference.runner import frozen_copy
from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling
from mpfnl.networks import PFNL3DNet, RCAN3DNet

LAYOUT = torch.channels_last_3d


def drawn(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return network.eval()


def networks() -> list[nn.Module]:
    mode = "embedded_gaussian"
    return [
        drawn(PFNL3DNet(features=8, blocks=2, nonlocal_mode=mode)),
        drawn(RCAN3DNet(3, 8, groups=1, blocks=1)),
    ]


def fingerprint(network: nn.Module) -> list[tuple[object, ...]]:
    return [
        (
            name,
            id(tensor),
            tensor.dtype,
            tensor.stride(),
            tensor._version,
            tensor.requires_grad,
            float(tensor.detach().sum()),
        )
        for name, tensor in network.state_dict(keep_vars=True).items()
    ]


@pytest.mark.parametrize("network", networks())
def test_under_autocast_the_copy_computes_what_the_network_does(network: nn.Module) -> None:
    network = network.to(memory_format=LAYOUT)
    frozen = frozen_copy(network, torch.bfloat16)
    x = torch.rand(1, 3, 9, 8, 7)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(frozen(x), network(x))
    assert {weight.dtype for weight in frozen.parameters()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in frozen.parameters())


@pytest.mark.parametrize("network", networks())
def test_the_network_stays_as_it_is_also_where_a_tile_fails(network: nn.Module) -> None:
    before = fingerprint(network)
    tiled_forward(network, torch.rand(3, 12, 8, 8), Tiling(8, 2), torch.bfloat16)
    assert fingerprint(network) == before

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    handle = network.first.register_forward_pre_hook(fail)
    inside = next(module for name, module in network.named_modules() if name.endswith(".conv2"))
    inside.register_forward_pre_hook(fail)
    for module in network.modules():
        module.register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        tiled_forward(network, torch.rand(3, 12, 8, 8), Tiling(8, 2), torch.bfloat16)
    handle.remove()
    assert fingerprint(network) == before


class Mixed(nn.Module):
    """Weights of several kinds, one module in two places, one attribute that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(2, 2, 3, padding=1)
        self.again = self.convolution
        self.norm = nn.BatchNorm3d(2)
        self.last = nn.Conv3d(2, 1, 1)
        self.scale = nn.Parameter(torch.ones(1))
        self.generator = (number for number in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.last(self.norm(self.again(self.convolution(x))))


def test_only_weights_that_autocast_would_cast_are_cast() -> None:
    network = Mixed().eval()
    frozen = frozen_copy(network, torch.bfloat16)
    assert frozen.convolution is frozen.again is not network.convolution
    assert frozen.norm.weight is network.norm.weight
    assert frozen.norm.running_mean is network.norm.running_mean
    assert frozen.scale is network.scale
    assert frozen.last.weight.dtype is torch.bfloat16
    x = torch.rand(1, 2, 5, 5, 5)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(frozen(x), network(x), rtol=2e-2, atol=1e-2)


def test_other_networks_come_through() -> None:
    # A network without annotations: torch.compile cannot trace the tests' checks of a sequence.
    network = drawn(nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 1, 3, padding=1)))
    x = torch.rand(1, 10, 8, 8)
    expected = tiled_forward(network, x, precision=torch.bfloat16)
    compiled = torch.compile(network, backend="eager")
    for other in (compiled, nn.Sequential(network), nn.DataParallel(network)):
        before = fingerprint(other)
        torch.testing.assert_close(tiled_forward(other, x, precision=torch.bfloat16), expected)
        assert fingerprint(other) == before
    assert frozen_copy(network, torch.float32) is network
