"""The networks against naive float64 ports of the published architectures."""

from __future__ import annotations

import pytest
import torch
from naive_ports import NaivePFNL3D, NaiveRCAN3D
from torch import nn

from mpfnl.networks import NonLocalBlock3D, PFNL3DNet, RCAN3DNet


def randomise(network: nn.Module) -> nn.Module:
    """Draws all weights, also those that start at zero, in float64."""
    generator = torch.Generator().manual_seed(3)
    for parameter in network.double().parameters():
        nn.init.normal_(parameter, std=0.08, generator=generator)
    return network


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).norm() / b.norm()).detach())


@pytest.mark.parametrize("mode", ["gaussian", "embedded_gaussian", "dot_product"])
@pytest.mark.parametrize(("phases", "target"), [(3, 2), (2, 0), (1, 0)])
def test_pfnl3d_equals_the_naive_port(mode: str, phases: int, target: int) -> None:
    network = randomise(PFNL3DNet(phases, target, features=12, blocks=3, nonlocal_mode=mode))
    naive = NaivePFNL3D(phases, target, features=12, blocks=3, mode=mode).double()
    naive.load_state_dict(network.state_dict())
    x = torch.rand(2, phases, 8, 6, 10, dtype=torch.float64)
    assert relative_difference(network(x), naive(x)) < 1e-6
    assert relative_difference(network(x), x[:, target : target + 1]) > 1e-3  # it does something


def test_pfnl3d_gradients_equal_the_naive_ports() -> None:
    network = randomise(PFNL3DNet(features=8, blocks=2))
    naive = NaivePFNL3D(features=8, blocks=2).double()
    naive.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 6, 6, 6, dtype=torch.float64)
    for model in (network, naive):
        model(x).square().sum().backward()
    for (name, ours), (_, theirs) in zip(network.named_parameters(), naive.named_parameters(), strict=True):
        assert relative_difference(ours.grad, theirs.grad) < 1e-6, name


def test_full_pfnl3d_equals_the_naive_port() -> None:
    network = randomise(PFNL3DNet())
    naive = NaivePFNL3D().double()
    naive.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 8, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        assert relative_difference(network(x), naive(x)) < 1e-6


@pytest.mark.parametrize("phases", [1, 3])
def test_rcan3d_equals_the_naive_port(phases: int) -> None:
    network = randomise(RCAN3DNet(phases))
    naive = NaiveRCAN3D(phases).double()
    naive.load_state_dict(network.state_dict())
    x = torch.rand(2, phases, 8, 7, 9, dtype=torch.float64)
    assert relative_difference(network(x), naive(x)) < 1e-6


def test_default_sizes() -> None:
    def parameters(network: nn.Module) -> int:
        return sum(parameter.numel() for parameter in network.parameters())

    assert parameters(PFNL3DNet()) == pytest.approx(7.2e6, rel=0.01)
    assert parameters(RCAN3DNet()) == parameters(NaiveRCAN3D())


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("sides", [(8, 8, 8), (7, 9, 5)])
def test_scales_and_odd_sizes(scale: int, sides: tuple[int, int, int]) -> None:
    finer = tuple(scale * side for side in sides)
    assert PFNL3DNet(features=8, blocks=1, scale=scale)(torch.rand(2, 3, *sides)).shape == (2, 1, *finer)
    small = RCAN3DNet(channels=8, groups=1, blocks=1, scale=scale)
    assert small(torch.rand(2, 1, *sides)).shape == (2, 1, *finer)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_new_pfnl3d_returns_the_interpolated_target_phase(scale: int) -> None:
    x = torch.rand(1, 3, 6, 6, 6)
    skip = x[:, 2:3]
    if scale > 1:
        skip = nn.functional.interpolate(skip, scale_factor=scale, mode="trilinear")
    torch.testing.assert_close(PFNL3DNet(features=8, blocks=1, scale=scale)(x), skip)


def test_nonlocal_block_of_odd_sides_equals_padding_by_hand() -> None:
    block = randomise(NonLocalBlock3D(2))
    x = torch.rand(1, 2, 5, 6, 7, dtype=torch.float64)
    padded = nn.functional.pad(x, (0, 1, 0, 0, 0, 1), mode="replicate")
    torch.testing.assert_close(block(x), block(padded)[..., :5, :6, :7])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PFNL3DNet(phases=2, target=2), "target 2"),
        (lambda: PFNL3DNet(scale=3), "scale is 3"),
        (lambda: RCAN3DNet(scale=0), "scale is 0"),
        (lambda: PFNL3DNet(scale=4, features=12), "8 divides"),
        (lambda: PFNL3DNet(features=8, blocks=1)(torch.rand(1, 2, 4, 4, 4)), "fuses 3 phases, not 2"),
        (lambda: RCAN3DNet()(torch.rand(1, 3, 4, 4, 4)), "takes 1 phases, not 3"),
        (lambda: PFNL3DNet(nonlocal_mode="nearest"), "nearest"),
    ],
)
def test_wrong_arguments_are_refused(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises((ValueError, TypeError), match=message):  # TypeError where types are checked
        make()


@pytest.mark.parametrize(
    "network", [PFNL3DNet(features=8, blocks=2), RCAN3DNet(channels=16, groups=1, blocks=2)]
)
def test_bf16_in_channels_last_is_close_to_float32(network: nn.Module) -> None:
    phases = network.phases
    x = torch.rand(1, phases, 16, 16, 16)
    network = randomise(network).float()
    with torch.no_grad():
        reference = network(x)
        network = network.to(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            assert relative_difference(network(x).float(), reference) < 2e-2
