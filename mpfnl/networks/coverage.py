"""Phases that do not cover all voxels of the target: how they are marked, and how a network is run on them.

A voxel that a phase does not cover is NaN in the network's input, the only value that no scan has.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mpfnl.networks.capabilities import network_capabilities
from mpfnl.window import COVERED_FROM_HU, Window


def normalize_covered(hu: Tensor, window: Window, target: int) -> Tensor:
    """Phases in HU mapped to [0, 1], with NaN where a phase but the target does not cover a voxel.

    Args:
        hu: Phases in HU, `(P, ...)`; values below -1500 mark voxels without a measurement.
        window: HU window that is mapped to [0, 1], clipped.
        target: Place of the target among the phases; it covers all voxels.

    Returns:
        A tensor of the same shape.

    >>> hu = torch.tensor([[50.0, -2048.0], [50.0, -2048.0]])
    >>> normalize_covered(hu, Window(level=50, width=450), target=1)
    tensor([[0.5000,    nan],
            [0.5000, 0.0000]])
    """
    unit = window.normalize(hu)
    for place in range(len(hu)):
        if place != target:
            unit[place] = unit[place].masked_fill(hu[place] < COVERED_FROM_HU, torch.nan)
    return unit


def run_covered(
    network: nn.Module, phases: Tensor, target: int, present: Sequence[int] | None = None
) -> Tensor:
    """Runs a network on phases that may lack voxels.

    A network that states `Capabilities(coverage=True)` receives `covered=`. For any network the target's
    values stand where a phase has none: they erase nothing.

    Args:
        network: Network from `(batch, P, x, y, z)` to `(batch, 1, x, y, z)`.
        phases: Phases in [0, 1], NaN where a phase has no voxel.
        target: Place of the target among `phases`.
        present: Indices of the phases that `phases` holds; None: all.

    >>> mean = torch.nn.Conv3d(2, 1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(mean.weight, 0.5)
    >>> phases = torch.full((1, 2, 2, 2, 2), 0.5)
    >>> phases[:, 0] = torch.nan
    >>> run_covered(mean, phases, target=1).unique()
    tensor([0.5000], grad_fn=<Unique2Backward0>)
    """
    arguments: dict[str, Any] = {} if present is None else {"present": present}
    covered = ~torch.isnan(phases)
    if not bool(covered.all()):
        phases = torch.where(covered, phases, phases[:, target : target + 1])
        if network_capabilities(network).coverage:
            arguments["covered"] = covered
    enhanced: Tensor = network(phases, **arguments)
    return enhanced
