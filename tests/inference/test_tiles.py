"""Where tiles lie and how they count: every voxel with a weight of one in all, none in a halo."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mpfnl.inference.tiling import ALIGNED, Tiling, stretches, tile_starts


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 200), st.integers(2, 70), st.data())
def test_tiles_cover_the_side_and_overlap(side: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    starts = tile_starts(side, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + tile >= side
    if side > tile:
        assert starts[-1] + tile == side
        steps = [b - a for a, b in pairwise(starts)]
        assert all(0 < step <= tile - overlap for step in steps)
    if tile - overlap >= ALIGNED:
        assert not any(start % ALIGNED for start in starts[:-1])


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 150), st.integers(1, 40), st.data())
def test_weights_add_up_to_one_and_are_zero_in_the_halo(side: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    halo = data.draw(st.integers(0, overlap // 2))
    tiling = Tiling(tile, overlap, halo)
    assume(overlap < tile)
    total = torch.zeros(side)
    for each in stretches(side, tiling):
        length = len(each.weight)
        total[each.inside] += each.weight
        assert each.start == 0 or (each.weight[:halo] == 0).all()
        assert each.start + length == side or (each.weight[length - halo :] == 0).all()
    torch.testing.assert_close(total, torch.ones(side))


def test_tiles_are_cropped_where_nothing_is_left_to_blend() -> None:
    """With an overlap of twice the halo each voxel comes from one tile."""
    tiling = Tiling(12, 8, 4)
    assert tiling.blended == 0
    owners = torch.stack(
        [torch.zeros(28).index_fill(0, torch.arange(28)[each.inside], 1) for each in stretches(28, tiling)]
    )
    assert (owners.sum(0) > 1).any()
    for each in stretches(28, tiling):
        assert set(each.weight.tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, 0), "overlap"),
        ((8, 8), "overlap"),
        ((8, -1), "overlap"),
        ((8, 4, 3), "halo"),
        ((8, 4, -1), "halo"),
    ],
)
def test_impossible_tilings_are_refused(arguments: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Tiling(*arguments)
