"""Tile borders do not show: equal to the untiled result without attention, no larger steps with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_networks import drawn, without_attention
from scipy.ndimage import gaussian_filter
from seams import borders, find_seams
from torch import Tensor, nn

from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling, network_tiling, receptive_radius, useful_halo
from mpfnl.networks import PFNL3DNet, RCAN3DNet

EDGE = 4  # voxels at the volume's own border


def texture(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Smooth noise that looks alike everywhere, so that no anatomy lies across a border by chance."""
    rng = np.random.default_rng(seed)
    coarse, fine = (gaussian_filter(rng.standard_normal(shape), sigma) for sigma in (3, 1))
    return 0.5 + 0.15 * coarse / coarse.std() + 0.06 * fine / fine.std()


def phases(count: int, shape: tuple[int, int, int]) -> Tensor:
    base = texture(shape)
    stacked = np.stack([0.9 * base + 0.1 * texture(shape, seed + 1) for seed in range(count)])
    return torch.from_numpy(stacked).float().clamp(0, 1)


def scaled(network: nn.Module, last: nn.Conv3d, volume: Tensor, skip: Tensor | float) -> nn.Module:
    """Drawn weights, the last convolution scaled so that what the network adds has a scan's contrast."""
    drawn(network)
    with torch.no_grad():
        last.bias.zero_()
        last.weight *= 0.15 / (network(volume[None])[0, 0] - skip).std()
        last.bias -= (network(volume[None])[0, 0] - skip).mean()
    return network


@pytest.mark.parametrize("blended", [0, 5])
def test_without_attention_tiled_is_untiled(blended: int) -> None:
    """Acceptance 1, with a halo of all that the network sees."""
    network = drawn(without_attention(RCAN3DNet(1, 8, groups=2, blocks=1)))
    radius = receptive_radius(network)
    volume = phases(1, (56, 44, 24))
    tiling = Tiling(2 * radius + blended + 8, 2 * radius + blended, radius)
    whole = tiled_forward(network, volume, Tiling(64, 0), torch.float32)
    tiled = tiled_forward(network, volume, tiling, torch.float32)
    assert whole.std() > 0.05
    assert len(borders(56, tiling)) > 0
    assert (tiled - whole).abs().max() < 1e-5
    too_small = Tiling(2 * radius + blended + 8, 2 * radius + blended, radius // 3)
    if blended == 0:
        assert (tiled_forward(network, volume, too_small, torch.float32) - whole).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["PFNL3D", "RCAN3D"])
def test_with_attention_no_step_is_larger_at_a_border(name: str) -> None:
    """Acceptance 1, with the tiling that the network gets for patches of 32 voxels."""
    shape = (76, 52, 36)
    if name == "PFNL3D":
        volume, network = phases(3, shape), PFNL3DNet(features=8, blocks=2)
        network = scaled(network, network.reconstruct[-1], volume, skip=volume[-1])
        assert network.nonlocal_block.w.weight.abs().mean() > 0.01
    else:
        volume, network = phases(1, shape), RCAN3DNet(1, 8, groups=2, blocks=1)
        network = scaled(network, network.last, volume, skip=0.5)
    tiling = network_tiling(network, 32)
    assert tiling.cut == useful_halo(network)
    with torch.no_grad():
        untiled = network(volume[None])[0, 0].clamp(0, 1)
    tiled = tiled_forward(network, volume, tiling, torch.float32)
    seams, there = find_seams(tiled, tiling, EDGE), find_seams(untiled, tiling, EDGE)
    # Untiled, steps at these places may be larger, too: the non-local block folds two voxels into one.
    assert seams.borders.largest <= 1.01 * max(seams.elsewhere.largest, there.borders.largest)
    for kind in ("high", "mean"):
        usual = getattr(there.borders, kind) / getattr(there.elsewhere, kind)
        assert getattr(seams.borders, kind) <= 1.03 * max(1.0, usual) * getattr(seams.elsewhere, kind)
    # What tiling changes: side by side without a halo it shows at the borders, so the test can fail.
    bare = Tiling(32, 0)
    changed = find_seams(tiled_forward(network, volume, bare, torch.float32) - untiled, bare, EDGE)
    mended = find_seams(tiled - untiled, tiling, EDGE)
    assert changed.borders.mean > 1.3 * changed.elsewhere.mean
    assert changed.borders.largest > 1.1 * changed.elsewhere.largest
    assert mended.borders.mean < 0.5 * changed.borders.mean
    assert mended.borders.largest < 0.5 * changed.borders.largest


def test_borders_are_where_weights_change() -> None:
    assert borders(64, Tiling(32, 0)) == [32]
    assert borders(56, Tiling(32, 8, 4)) == [28]
    assert borders(56, Tiling(32, 8, 2)) == [26, 27, 28, 29, 30]
