"""torch.compile, in a process of its own: the tests' shape checks would be traced along."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from mpfnl.networks import PFNL3DNet, RCAN3DNet

for scale in SCALES:
    pfnl3d = PFNL3DNet(features=8, blocks=1, scale=scale)
    rcan3d = RCAN3DNet(channels=8, groups=1, blocks=1, scale=scale)
    for network in (pfnl3d, rcan3d):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        x = torch.rand(1, network.phases, 8, 8, 8)
        compiled = torch.compile(network, backend=BACKEND, fullgraph=True)
        torch.testing.assert_close(compiled(x), network(x), rtol=1e-4, atol=1e-5)
        compiled(x).sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
print("compiled")
"""


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_graph_breaks(backend: str) -> None:
    scales = "(1,)" if backend == "inductor" else "(1, 2)"
    script = SCRIPT.replace("BACKEND", repr(backend)).replace("SCALES", scales)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.stdout.strip() == "compiled", result.stderr[-2000:]
