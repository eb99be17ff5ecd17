"""How far networks see: against NaN, which a convolution hands on as far as it reaches, and gradients."""

from __future__ import annotations

import pytest
import torch
from drawn_networks import drawn, without_attention
from torch import nn

from mpfnl.inference.tiling import (
    Tiling,
    network_tiling,
    receptive_radius,
    sees_whole_tile,
    smaller_tilings,
    useful_halo,
)
from mpfnl.networks import PFNL3DNet, RCAN3DNet

NETWORKS = {
    "RCAN3D": lambda: without_attention(RCAN3DNet(1, 8, groups=2, blocks=1)),
    "PFNL3D": lambda: PFNL3DNet(1, 0, features=4, blocks=2, nonlocal_mode=None),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_radius_is_how_far_nan_spreads(name: str) -> None:
    network = drawn(NETWORKS[name]())
    side = 31
    volume = torch.rand(1, 1, side, 9, 9)
    volume[0, 0, side // 2, 4, 4] = torch.nan
    with torch.no_grad():
        reached = network(volume).isnan().nonzero()[:, 2]
    radius = receptive_radius(network)
    assert 2 < radius < side // 2
    assert int(reached.max()) - side // 2 == side // 2 - int(reached.min()) == radius


@pytest.mark.parametrize(
    "network",
    [
        RCAN3DNet(1, 8, groups=5, blocks=3),  # the depths of the defaults
        PFNL3DNet(3, 2, features=8, blocks=20, nonlocal_mode=None),
        RCAN3DNet(1, 8, groups=2, blocks=2),
    ],
)
def test_beyond_the_useful_halo_lies_at_most_a_twentieth_of_the_gradient(network: nn.Module) -> None:
    network = drawn(network)
    side, halo = 2 * 17, useful_halo(network)
    assert halo < receptive_radius(network)
    phases = torch.rand(1, network.phases, side, side, side, generator=torch.Generator().manual_seed(1))
    phases.requires_grad_()
    centre = side // 2
    (gradient,) = torch.autograd.grad(network(phases)[0, 0, centre, centre, centre], phases)
    inside = slice(centre - halo, centre + halo + 1)
    within = gradient[..., inside, inside, inside].abs().sum() / gradient.abs().sum()
    assert within >= 0.95


def test_who_sees_the_whole_tile() -> None:
    assert sees_whole_tile(PFNL3DNet(features=4, blocks=1))
    assert sees_whole_tile(RCAN3DNet(channels=8, groups=1, blocks=1))
    assert not sees_whole_tile(PFNL3DNet(features=4, blocks=1, nonlocal_mode=None))
    assert not sees_whole_tile(without_attention(RCAN3DNet(channels=8, groups=1, blocks=1)))


@pytest.mark.parametrize("tile", [4, 16, 32, 64, 128])
def test_the_networks_tiling(tile: int) -> None:
    network = RCAN3DNet(channels=8, groups=2, blocks=2)
    tiling = network_tiling(network, tile)
    assert tiling.tile == tile
    assert tiling.overlap <= tile // 2
    assert tiling.cut == useful_halo(network) or tiling.blended <= 3  # as much as fits
    assert network_tiling(network).tile == Tiling().tile
    assert network_tiling(network, tile, 3).overlap == 3
    assert all(smaller.tile < tile for smaller in smaller_tilings(network, tiling))
