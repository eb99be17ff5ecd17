"""Self-ensemble: eight orientations, and a result that turns with its input."""

from __future__ import annotations

import pytest
import torch
from drawn_networks import drawn
from torch import Tensor, nn

from mpfnl.inference.runner import ORIENTATIONS, SelfEnsemble, oriented, oriented_back
from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling
from mpfnl.networks import PFNL3DNet, RCAN3DNet


def test_the_eight_orientations_differ_and_are_undone() -> None:
    volume = torch.rand(1, 2, 4, 4, 3)
    seen = [oriented(volume, *each) for each in ORIENTATIONS]
    assert len(seen) == 8
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
    for one, each in zip(seen, ORIENTATIONS, strict=True):
        assert torch.equal(oriented_back(one, *each), volume)
        assert torch.equal(
            one.flip(-1).sum((-2, -3)), volume.flip(-1).sum((-2, -3)).expand_as(one.sum((-2, -3)))
        ) or (
            torch.allclose(one.sum((-2, -3)), volume.sum((-2, -3)))  # z stays where it is
        )


@pytest.mark.parametrize("network", [RCAN3DNet(3, 8, 1, 1), PFNL3DNet(features=4, blocks=1)])
@torch.no_grad()
def test_what_turns_the_input_turns_the_result(network: nn.Module) -> None:
    network = drawn(network).double()
    ensemble = SelfEnsemble(network)
    phases = torch.rand(1, 3, 6, 8, 4, dtype=torch.float64)
    plain, mean = network(phases), ensemble(phases)
    for each in ORIENTATIONS[1:]:
        turned = oriented(phases, *each)
        assert (network(turned) - oriented(plain, *each)).abs().max() > 1e-3  # alone it is not equivariant
        torch.testing.assert_close(ensemble(turned), oriented(mean, *each), rtol=1e-5, atol=1e-5)


class Corner(nn.Module):
    """Marks the first voxel of a tile."""

    def forward(self, phases: Tensor) -> Tensor:
        marked = torch.zeros_like(phases[:, :1])
        marked[..., 0, 0, :] = 1.0
        return marked


def test_it_is_the_mean() -> None:
    """Each of the four corners of the plane is first in two of the eight orientations."""
    mean = SelfEnsemble(Corner())(torch.rand(1, 3, 5, 5, 2))[0, 0]
    for x in (0, -1):
        for y in (0, -1):
            assert (mean[x, y] == 0.25).all()
    assert mean.sum() == 2


def test_tiles_go_through_the_ensemble() -> None:
    network, volume = drawn(RCAN3DNet(1, 8, 1, 1)), torch.rand(1, 10, 12, 6)
    whole = tiled_forward(network, volume, Tiling(16, 0), torch.float32, self_ensemble=True)
    with torch.no_grad():
        expected = SelfEnsemble(network)(volume[None])[0, 0].clamp(0, 1)
    torch.testing.assert_close(whole, expected)
    assert (whole - tiled_forward(network, volume, Tiling(16, 0), torch.float32)).abs().max() > 1e-3
