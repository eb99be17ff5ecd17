"""Test-time self-ensemble: the mean over the orientations of a tile. Torch only."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn

ORIENTATIONS = tuple(product((False, True), range(4)))
"""The eight orientations in the plane of the slices: mirrored along x or not, then quarter turns."""


class SelfEnsemble(nn.Module):
    """Runs a network on a tile in eight orientations and takes the mean of the results, turned back.

    In-plane quarter turns and mirror images; z is kept (Timofte et al., CVPR 2016, in 2D). What turns or
    mirrors the input then turns or mirrors the result, whatever the network. It takes eight times as long.

    Args:
        network: Takes `(batch, P, x, y, z)`, returns `(batch, 1, x, y, z)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, phases: Tensor) -> Tensor:
        """The mean, `(batch, 1, x, y, z)`, float32."""
        total: Tensor | None = None
        for mirrored, turns in ORIENTATIONS:
            enhanced = oriented_back(self.network(oriented(phases, mirrored, turns)), mirrored, turns).float()
            total = enhanced if total is None else total + enhanced
        assert total is not None
        return total / len(ORIENTATIONS)


def oriented(volume: Tensor, mirrored: bool, turns: int) -> Tensor:
    """A volume `(..., x, y, z)` mirrored along x where asked for, then turned."""
    return torch.rot90(volume.flip(-3) if mirrored else volume, turns, (-3, -2)).contiguous()


def oriented_back(volume: Tensor, mirrored: bool, turns: int) -> Tensor:
    """Undoes `oriented`."""
    turned = torch.rot90(volume, -turns, (-3, -2))
    return turned.flip(-3) if mirrored else turned
