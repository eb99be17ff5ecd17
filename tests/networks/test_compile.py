"""torch.compile, in processes of their own: the tests' shape checks would be traced along."""

from __future__ import annotations

import subprocess
import sys

import pytest

START = """
import torch
from torch import nn
from mpfnl.networks import PFNL3DNet, RCAN3DNet


def networks(scale=1, **options):
    torch.manual_seed(0)
    pair = (
        PFNL3DNet(features=8, blocks=1, scale=scale, **options),
        RCAN3DNet(channels=8, groups=1, blocks=1, scale=scale, **options),
    )
    for network in pair:
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
    return pair


def volume(network, side=8):
    return torch.rand(1, network.phases, side, side, side)


def step(network, run, x, bf16=False):
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = run(x).float().square().mean()
    loss.backward()
    return [loss.detach(), *(parameter.grad.clone() for parameter in network.parameters())]


def close(ours, theirs, limit):
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= limit * b.norm() + 1e-6, ((a - b).norm() / b.norm(), a.shape)
"""

TRAINING = """
for scale in (1, 2):
    for network in networks(scale):
        x = volume(network)
        compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
        close(step(network, compiled, x), step(network, network, x), 1e-4)
"""

CHECKPOINTED = """
for network in networks(activation_checkpointing=True):
    x = volume(network)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    close(step(network, compiled, x), step(network, network, x), 1e-4)
"""

INFERENCE = """
for network in networks():
    network = network.eval().to(memory_format=torch.channels_last_3d)
    x = volume(network)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            close([compiled(x).float()], [exact], 2e-2)
"""

ANY_SIZE = """
for network in networks():
    compiled = torch.compile(network, backend="aot_eager", dynamic=True)
    with torch.no_grad():
        for side in (8, 10, 13):
            x = volume(network, side)
            torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
"""

INDUCTOR = """
pfnl3d, rcan3d = networks()
x = volume(rcan3d)
compiled = torch.compile(rcan3d, fullgraph=True)
close(step(rcan3d, compiled, x), step(rcan3d, rcan3d, x), 1e-4)

pfnl3d = pfnl3d.to(memory_format=torch.channels_last_3d)
x = volume(pfnl3d)
compiled = torch.compile(pfnl3d, fullgraph=True)
exact = step(pfnl3d, pfnl3d, x)
ours = step(pfnl3d, compiled, x, bf16=True)
close(ours, exact, 6e-2)
optimizer = torch.optim.SGD(pfnl3d.parameters(), lr=1e-2)
optimizer.step()
assert step(pfnl3d, compiled, x, bf16=True)[0] < ours[0]
"""


@pytest.mark.parametrize(
    "scripts",
    [
        pytest.param((TRAINING, CHECKPOINTED, INFERENCE, ANY_SIZE), id="aot_eager"),
        pytest.param((INDUCTOR,), id="inductor", marks=pytest.mark.slow),
    ],
)
def test_compiles_without_graph_breaks(scripts: tuple[str, ...]) -> None:
    script = "torch._dynamo.reset()\n".join((START, *scripts)) + "print('compiled')"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "compiled", result.stderr[-2000:]
