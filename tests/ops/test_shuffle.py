"""Space-to-depth and depth-to-space."""

from __future__ import annotations

import pytest
import torch
from naive_ports import depth_to_space as naive_depth_to_space
from naive_ports import space_to_depth as naive_space_to_depth

from mpfnl.ops import depth_to_space, space_to_depth


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_round_trip_and_voxel_by_voxel_port(factor: int) -> None:
    volume = torch.rand(2, 3, 8, 4, 12)
    folded = space_to_depth(volume, factor)
    assert folded.shape == (2, 3 * factor**3, 8 // factor, 4 // factor, 12 // factor)
    assert torch.equal(folded, naive_space_to_depth(volume, factor))
    assert torch.equal(depth_to_space(folded, factor), volume)
    assert torch.equal(naive_depth_to_space(folded, factor), volume)
