"""What tensors take: against sums made by hand, and against PyTorch's own profiler."""

from __future__ import annotations

import pytest
import torch
from drawn_networks import drawn
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from mpfnl.inference.plan import live_bytes, tile_cost
from mpfnl.inference.runner import RunOptions, TileRunner
from mpfnl.inference.tiling import Tiling
from mpfnl.networks import PFNL3DNet, RCAN3DNet


def test_live_bytes_are_those_alive_at_once() -> None:
    def run() -> Tensor:
        a = torch.ones(1000)  # 4000 bytes
        b = a + 1  # 8000
        a = b * 2  # 12000, then the first is freed: 8000
        del b  # 4000
        a.add_(1).view(10, 100)  # nothing new
        return a

    assert live_bytes(run) == 12_000


def profiled(run: TileRunner, tile: Tensor) -> int:
    """The most bytes that PyTorch's allocator handed out at one time."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run(tile)
    changes = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


BF16 = pytest.param(
    torch.bfloat16,
    marks=pytest.mark.skipif(
        not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        reason="oneDNN does not convolve in bfloat16 on this processor",
    ),
)


@pytest.mark.parametrize("precision", [torch.float32, BF16])
@pytest.mark.parametrize("ensemble", [False, True])
@pytest.mark.parametrize(
    "network",
    [RCAN3DNet(3, 16, groups=2, blocks=2), PFNL3DNet(features=8, blocks=3)],
    ids=["RCAN3D", "PFNL3D"],
)
def test_small_tiles_tell_what_a_larger_one_takes(
    network: nn.Module, precision: torch.dtype, ensemble: bool
) -> None:
    runner = TileRunner(drawn(network), RunOptions(precision, self_ensemble=ensemble))
    cost = tile_cost(runner, 3)
    tile = torch.rand(3, 28, 26, 30)
    seen = profiled(runner, tile) + tile.nbytes
    assert cost.per_voxel > 50
    assert cost.of(Tiling(30, 0), (28, 26, 99)) == pytest.approx(seen, rel=0.15)


def test_a_compiled_network_is_counted_too() -> None:
    plain = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 1, 3, padding=1)).eval()
    options = RunOptions(torch.float32)
    expected = tile_cost(TileRunner(plain, options), 1)
    assert tile_cost(TileRunner(torch.compile(plain, backend="eager"), options), 1) == expected
