"""CUDA graphs: when one is recorded and replayed, and on a GPU that it gives what the network gives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mpfnl.inference import runner
from mpfnl.inference.runner import GraphedNetwork
from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling
from mpfnl.networks import PFNL3DNet, RCAN3DNet


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.factor * x


class Recorded:
    """Stands for a graph: replays what the network did, without calling it."""

    made = 0

    def __init__(self, network: nn.Module, x: Tensor) -> None:
        Recorded.made += 1
        self.factor = network.factor

    def __call__(self, x: Tensor) -> Tensor:
        return (self.factor * x).clone()


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    Recorded.made = 0
    monkeypatch.setattr(runner, "_Graph", Recorded)
    monkeypatch.setattr(runner, "_on_gpu", lambda x: True)
    monkeypatch.setattr(runner, "_on_side_stream", lambda network, x: network(x))
    return Recorded


def test_on_a_cpu_it_is_the_network() -> None:
    network = RCAN3DNet(channels=8, groups=1, blocks=1).eval()
    graphed, x = GraphedNetwork(network), torch.rand(1, 1, 8, 8, 8)
    with torch.no_grad():
        for _ in range(4):
            assert torch.equal(graphed(x), network(x))
    graphed(x).sum().backward()
    assert network.first.weight.grad is not None


@torch.no_grad()
def test_a_size_is_recorded_after_its_warm_ups(recorder: type[Recorded]) -> None:
    network = Doubling().eval()
    graphed = GraphedNetwork(network, warm_ups=2, sizes=2)
    for calls, made in ((1, 0), (2, 0), (2, 1), (2, 1)):
        x = torch.rand(3)
        assert torch.equal(graphed(x), 2 * x)
        assert (network.calls, recorder.made) == (calls, made)
    for size in (4, 4, 4, 5, 5, 5):
        graphed(torch.rand(size))
    assert recorder.made == 3
    graphed(torch.rand(5))
    graphed(torch.rand(4))
    assert recorder.made == 3
    for _ in range(3):  # size 3 was used longest ago, and was dropped
        graphed(torch.rand(3))
    assert recorder.made == 4


@torch.no_grad()
def test_types_autocast_and_moved_weights_have_graphs_of_their_own(recorder: type[Recorded]) -> None:
    network, x = Doubling().eval(), torch.rand(3)
    graphed = GraphedNetwork(network, warm_ups=1, sizes=9)

    def called_thrice(x: Tensor) -> int:
        for _ in range(3):
            graphed(x)
        return recorder.made

    assert called_thrice(x) == 1
    assert called_thrice(x.double()) == 2
    with torch.autocast("cpu", torch.bfloat16):
        assert called_thrice(x) == 3
    network.factor.fill_(3.0)
    assert torch.equal(graphed(x), 3 * x)
    assert recorder.made == 3
    network.factor.data = torch.tensor(4.0)
    assert called_thrice(x) == 4
    assert torch.equal(graphed(x), 4 * x)


def test_training_and_gradients_call_the_network(recorder: type[Recorded]) -> None:
    network, x = Doubling().eval(), torch.rand(3)
    graphed = GraphedNetwork(network, warm_ups=1)
    for _ in range(3):
        assert graphed(x).requires_grad
    network.train()
    with torch.no_grad():
        for _ in range(3):
            graphed(x)
    assert (network.calls, recorder.made) == (6, 0)


@torch.no_grad()
def test_what_cannot_be_recorded_runs_without(
    recorder: type[Recorded], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(runner, "_Graph", refuse)
    network, x = Doubling().eval(), torch.rand(3)
    graphed = GraphedNetwork(network, warm_ups=1)
    for _ in range(4):
        assert torch.equal(graphed(x), 2 * x)
    assert network.calls == 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("name", ["warm_ups", "sizes"])
def test_impossible_arguments_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0"):
        GraphedNetwork(Doubling(), **{name: 0})


def gpu_network(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    network = kind(features=16, blocks=2) if kind is PFNL3DNet else kind(phases=3, channels=16, groups=1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    return network.eval().cuda().to(memory_format=torch.channels_last_3d)


@pytest.mark.gpu
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", [PFNL3DNet, RCAN3DNet])
def test_replays_equal_the_network(kind: type[nn.Module], autocast: bool) -> None:
    network = gpu_network(kind)
    graphed = GraphedNetwork(network)
    results, expected = [], []
    # Autocast ends after each call, so that a cache of cast weights would be gone at the replay.
    for side in (16, 16, 16, 16, 24, 24, 24, 16):
        x = torch.rand(1, 3, side, side, side, device="cuda")
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            results.append(graphed(x))
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            expected.append(network(x))
    assert any(isinstance(known, runner._Graph) for known in graphed._known.values())
    for ours, theirs in zip(results, expected, strict=True):  # none was overwritten by a later call
        torch.testing.assert_close(
            ours, theirs, rtol=1e-2 if autocast else 1e-4, atol=1e-2 if autocast else 1e-4
        )


@pytest.mark.gpu
def test_replays_see_new_weights_and_serve_inference_mode_and_no_grad() -> None:
    network = gpu_network(RCAN3DNet)
    graphed, x = GraphedNetwork(network), torch.rand(1, 3, 16, 16, 16, device="cuda")
    with torch.inference_mode():
        for _ in range(4):
            graphed(x)
    with torch.no_grad():
        network.last.bias.fill_(7.0)
        torch.testing.assert_close(graphed(x), network(x), rtol=1e-3, atol=1e-3)


@pytest.mark.gpu
def test_many_tiles_on_a_gpu_equal_those_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    network, volume = gpu_network(PFNL3DNet), torch.rand(3, 40, 40, 40)
    on_gpu = tiled_forward(network, volume, Tiling(16, 4), torch.bfloat16)
    on_cpu = tiled_forward(network.cpu(), volume, Tiling(16, 4), torch.float32)
    assert not caplog.records  # a graph was recorded
    assert (on_gpu - on_cpu).abs().max() < 0.1
