from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.transforms.rotation import rotate90, rotate90_affine

AXES = st.integers(0, 2)
SHAPES = st.tuples(*[st.integers(1, 6)] * 3)
NUMPY_PLANES = {0: (1, 2), 1: (2, 0), 2: (0, 1)}


def numbered(shape: tuple[int, int, int]) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, axis=AXES, turns=st.integers(-5, 9))
def test_rotation_equals_numpy(shape: tuple[int, int, int], axis: int, turns: int) -> None:
    volume = numbered(shape)
    expected = np.rot90(volume, turns, NUMPY_PLANES[axis])
    rotated = rotate90(torch.from_numpy(volume)[None, None], axis, turns)
    np.testing.assert_array_equal(rotated[0, 0].numpy(), expected)


@settings(deadline=None, max_examples=30)
@given(shape=SHAPES, axis=AXES, turns=st.integers(0, 3))
def test_turning_back_is_the_identity(shape: tuple[int, int, int], axis: int, turns: int) -> None:
    volume = torch.from_numpy(numbered(shape))
    assert torch.equal(rotate90(rotate90(volume, axis, turns), axis, -turns), volume)
    full = volume
    for _ in range(4):
        full = rotate90(full, axis, 1)
    assert torch.equal(full, volume)


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, axis=AXES, turns=st.integers(-3, 5), seed=st.integers(0, 1000))
def test_every_voxel_keeps_its_place_in_the_world(
    shape: tuple[int, int, int], axis: int, turns: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4))
    volume = numbered(shape)
    rotated = rotate90(torch.from_numpy(volume), axis, turns).numpy()
    rotated_affine = rotate90_affine(affine, shape, axis, turns)
    for index in np.ndindex(rotated.shape):
        before = np.unravel_index(int(rotated[index]), shape)
        place = affine @ [*before, 1]
        np.testing.assert_allclose(rotated_affine @ [*index, 1], place, atol=1e-9)


def test_an_axis_that_is_not_one_is_refused() -> None:
    with pytest.raises(ValueError, match="0, 1 or 2"):
        rotate90(torch.zeros(2, 2, 2), 3, 1)
