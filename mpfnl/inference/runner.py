"""A network made ready for many tiles: precision, phases that are there, self-ensemble. Torch only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpfnl.inference.ensemble import SelfEnsemble
from mpfnl.inference.frozen import frozen_copy
from mpfnl.inference.graphs import GraphedNetwork
from mpfnl.networks.upscale import output_scale
from mpfnl.shapes import PhaseVolume, SpatialVolume

GRAPH_FROM = 16
"""Tiles from which on a CUDA graph is recorded: for fewer it takes longer than it saves."""


@dataclass(frozen=True)
class RunOptions:
    """How a network is run.

    Args:
        precision: Of the convolutions; chosen by the device if None.
        present: Indices of the phases that are there, for networks that do without some; None: all.
        self_ensemble: Take the mean over eight orientations, see `SelfEnsemble`.
    """

    precision: torch.dtype | None = None
    present: Sequence[int] | None = None
    self_ensemble: bool = False


def preferred_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes convolutions in it, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # The check is private to PyTorch and there is no public one; it exists where oneDNN does.
    onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    if onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


class TileRunner:
    """Runs a network on tiles, one at a time.

    Args:
        network: Takes `(1, P, x, y, z)` in [0, 1], returns `(1, 1, x, y, z)`, on a grid that is `scale` times
            finer where it has that attribute; put into evaluation mode by the caller. Where phases are
            missing it is called with `present=`.
        options: How it is run.
        device: Where; the network's own by default.
    """

    def __init__(
        self, network: nn.Module, options: RunOptions | None = None, device: torch.device | None = None
    ) -> None:
        options = options or RunOptions()
        self.device = device or network_device(network) or torch.device("cpu")
        self.scale = output_scale(network)
        self.precision = options.precision or preferred_precision(self.device)
        run = frozen_copy(network, self.precision)
        if options.present is not None:
            run = _WithPresent(run, options.present)
        self._network = SelfEnsemble(run) if options.self_ensemble else run
        self._network.eval()
        self._graphed: GraphedNetwork | None = None

    def expect(self, tiles: int) -> None:
        """Says how many tiles will come: many are worth a CUDA graph."""
        if self.device.type == "cuda" and tiles >= GRAPH_FROM and self._graphed is None:
            self._graphed = GraphedNetwork(self._network)

    def __call__(self, phases: PhaseVolume) -> SpatialVolume:
        """The enhanced tile, `scale` times as long, float32, not clipped, on the runner's device.

        Args:
            phases: The tile `(P, x, y, z)` in [0, 1], on any device.

        Raises:
            ValueError: The network's result lies on another grid than it says.
        """
        tile = phases.unsqueeze(0).to(self.device)
        run = self._graphed or self._network
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not torch.float32):
            enhanced: Tensor = run(tile)
        if list(enhanced.shape[2:]) != [self.scale * side for side in tile.shape[2:]]:
            made = f"{tuple(enhanced.shape)} of {tuple(tile.shape)}"
            raise ValueError(f"the network made {made}: not its grid")
        return enhanced[0, 0].float()


def network_device(network: nn.Module) -> torch.device | None:
    """Where a network's parameters are; None if it has none."""
    return next((parameter.device for parameter in network.parameters()), None)


class _WithPresent(nn.Module):
    """A network together with which phases it is given."""

    def __init__(self, network: nn.Module, present: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.present = tuple(present)

    def forward(self, phases: Tensor) -> Tensor:
        enhanced: Tensor = self.network(phases, present=self.present)
        return enhanced
