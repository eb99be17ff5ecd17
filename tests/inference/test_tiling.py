"""Tiles: every voxel once, no seams, any size."""

from __future__ import annotations

import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling
from mpfnl.networks import RCAN3DNet


class Pick(nn.Module):
    """Returns one phase."""

    def forward(self, phases: torch.Tensor) -> torch.Tensor:
        return phases[:, 1:2]


class Smooth(nn.Module):
    """A network that sees two voxels to each side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 5, padding=2, padding_mode="replicate")

    def forward(self, phases: torch.Tensor) -> torch.Tensor:
        return self.conv(phases)


@settings(deadline=None, max_examples=15)
@given(st.tuples(*[st.integers(3, 23)] * 3), st.integers(4, 12), st.integers(0, 11))
def test_a_network_that_changes_nothing_gives_the_volume_back(
    sides: tuple[int, int, int], tile: int, overlap: int
) -> None:
    assume(overlap < tile)
    phases = torch.rand(3, *sides)
    result = tiled_forward(Pick(), phases, Tiling(tile, overlap), torch.float32)
    torch.testing.assert_close(result, phases[1])


def test_tiled_equals_untiled_where_the_cut_off_border_covers_what_the_network_sees() -> None:
    torch.manual_seed(0)
    network, volume = Smooth(), torch.rand(1, 40, 30, 20)
    nn.init.constant_(network.conv.bias, 0.5)
    whole = tiled_forward(network, volume, Tiling(64, 0), torch.float32)
    tiled = tiled_forward(
        network, volume, Tiling(16, 8), torch.float32
    )  # two voxels are cut off: all it sees
    assert whole.std() > 0.05
    assert (tiled - whole).abs().max() < 1e-6


def test_no_step_shows_at_a_tile_border() -> None:
    """Channel attention sees each tile differently; blending must leave no step where a tile ends."""
    torch.manual_seed(1)
    network = RCAN3DNet(channels=16, groups=1, blocks=1)
    ramp = torch.linspace(0.2, 0.8, 64)[None, :, None, None].expand(1, 64, 24, 24).contiguous()
    plain = tiled_forward(network, ramp, Tiling(32, 0), torch.float32).mean(dim=(1, 2)).diff().abs()
    blended = tiled_forward(network, ramp, Tiling(32, 16), torch.float32).mean(dim=(1, 2)).diff().abs()
    inside = slice(6, -6)
    assert plain[31] > 3 * plain[inside].median()  # without an overlap there is one: the test can fail
    assert blended[inside].max() < 3 * blended[inside].median()


def test_bf16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    network, volume = Smooth(), torch.rand(1, 16, 16, 16)
    exact = tiled_forward(network, volume, precision=torch.float32)
    assert (tiled_forward(network, volume, precision=torch.bfloat16) - exact).abs().max() < 0.01
