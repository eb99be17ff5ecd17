"""How work is cut: within what is allowed, the wanted tile first, or refused in one line."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.errors import OptionError
from mpfnl.inference.memory import GB
from mpfnl.inference.plan import Plan, TileCost, Workload, in_gb, make_plan, predict
from mpfnl.inference.tiling import Tiling

LOAD = Workload((512, 512, 2350), (2, 2, 2), 0, TileCost(1e6, 500.0), held=700_000_000, highest=750_000_000)
TILINGS = [Tiling(64, 20, 6), Tiling(48, 18, 6), Tiling(32, 16, 6), Tiling(16, 8, 3)]


def plan_of(limit: int | None, *, fixed: bool = False) -> Plan:
    return make_plan(LOAD, TILINGS, limit, fixed)


def test_without_a_limit_the_work_is_cut_as_wanted() -> None:
    plan = plan_of(None)
    assert plan.tiling == TILINGS[0]
    assert plan.slices == 32  # 8 million voxels
    assert "of" not in plan.line.split(";")[0]


def test_first_fewer_slices_then_smaller_tiles() -> None:
    """Ever less memory: the tile stays as long as mapping fewer slices back to HU at a time is enough."""
    free = plan_of(None)
    plans = [free]
    while plans[-1].tiling != TILINGS[2]:
        plans.append(plan_of(plans[-1].peak - 1))
    assert all(plan.limit is None or plan.peak <= plan.limit for plan in plans)
    for before, after in pairwise(plans):
        assert after.tiling.tile <= before.tiling.tile
        if after.tiling == before.tiling:
            assert after.slices < before.slices
        else:
            assert before.slices == 1
    assert len({plan.tiling.tile for plan in plans}) == 3


def test_what_does_not_fit_is_refused_with_advice() -> None:
    least = predict(LOAD, TILINGS[0], 1)
    smaller = predict(LOAD, TILINGS[1], 1)
    with pytest.raises(OptionError) as caught:
        plan_of(least - 1, fixed=True)
    assert f"--tile {TILINGS[1].tile}" in str(caught.value)
    assert smaller < least
    with pytest.raises(OptionError) as caught:
        plan_of(LOAD.held)
    assert "--tile 16" in str(caught.value)
    assert in_gb(predict(LOAD, TILINGS[3], 1)) in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(2, 600)] * 3),
    st.lists(st.sampled_from([2, 4, 8]), max_size=3),
    st.integers(8, 64),
    st.integers(1, 64),
)
def test_more_of_anything_takes_no_less(
    sides: tuple[int, int, int], streamed: list[int], tile: int, slices: int
) -> None:
    load = replace(LOAD, sides=sides, streamed=streamed, highest=0)
    peak = predict(load, Tiling(tile, tile // 4), slices)
    assert peak > load.held
    assert predict(replace(load, streamed=[*streamed, 2]), Tiling(tile, tile // 4), slices) > peak
    assert predict(load, Tiling(tile + 8, tile // 4), slices) >= peak
    assert predict(load, Tiling(tile, tile // 4), slices + 1) >= peak
    kept = replace(load, result=2)
    assert predict(kept, Tiling(tile, tile // 4), slices) - peak == 2 * sides[0] * sides[1] * sides[2]
    assert predict(replace(load, highest=10**13), Tiling(tile, tile // 4), slices) == 10**13


def test_length_alone_takes_nothing() -> None:
    long = replace(LOAD, sides=(512, 512, 23_500))
    assert predict(long, TILINGS[0], 8) == predict(LOAD, TILINGS[0], 8) < 3 * GB
