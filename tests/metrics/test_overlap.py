"""The Dice similarity coefficient against MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.meandice import compute_dice

from mpfnl.metrics.overlap import dice


def random_masks(seed: int, shape: tuple[int, ...] = (7, 8, 9)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(shape) < rng.random(), rng.random(shape) < rng.random()


@pytest.mark.parametrize("seed", range(8))
def test_equals_monai(seed):
    a, b = random_masks(seed)
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (a, b)]
    assert dice(a, b) == pytest.approx(compute_dice(*tensors, include_background=True).item(), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), pad=st.integers(0, 3))
def test_symmetric_bounded_and_blind_to_the_background(seed, pad):
    a, b = random_masks(seed, (4, 5, 3))
    value = dice(a, b)
    if math.isnan(value):
        assert not a.any()
        assert not b.any()
        return
    assert 0 <= value <= 1
    assert value == dice(b, a)
    assert value == dice(np.pad(a, pad), np.pad(b, pad))
    assert value == dice(torch.from_numpy(a), torch.from_numpy(b))
    assert (value == 1) == np.array_equal(a, b)
    assert (value == 0) == (not (a & b).any())


def test_empty_masks_follow_the_written_rule():
    empty, full = np.zeros((3, 3, 3), dtype=bool), np.ones((3, 3, 3), dtype=bool)
    assert math.isnan(dice(empty, empty))
    assert dice(empty, full) == 0
    assert dice(full, empty) == 0


def test_what_cannot_be_compared():
    mask = np.ones((3, 3, 3), dtype=bool)
    with pytest.raises(TypeError):
        dice(mask.astype(np.uint8), mask)
    with pytest.raises(ValueError, match="the reference is"):
        dice(mask, mask[:2])
    with pytest.raises(ValueError, match="one volume's mask"):
        dice(mask[None], mask[None])
