"""Volumes on different grids are refused; the message says which phase and by how much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mpfnl.errors import GridError
from mpfnl.phases import Phase
from mpfnl.volumes import Grid, Volume
from mpfnl.volumes.grid import SAME_GRID, check_same_grid, same_grid

SHAPE = (7, 6, 5)


def volume(
    phase: Phase, shift: tuple[float, float, float] = (0, 0, 0), shape: tuple[int, ...] = SHAPE
) -> Volume:
    affine = np.diag([-0.8, -0.8, 5.0, 1.0])
    affine[:3, 3] = np.array([100.0, 90.0, -700.0]) + shift
    return Volume.from_array(np.zeros(shape, np.int16), affine, Path(f"{phase.value}.nii.gz"), phase)


def refusal(other: Volume) -> str:
    with pytest.raises(GridError) as caught:
        check_same_grid(volume(Phase.PORTAL_VENOUS), [volume(Phase.NONCONTRAST), other])
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("arterial.nii.gz (arterial phase): ")
    assert "the portal venous phase (portal_venous.nii.gz)" in message
    return message


def test_says_how_far_off() -> None:
    assert "2.5 mm " in refusal(volume(Phase.ARTERIAL, (1.5, 0, 2.0)))


def test_tolerance() -> None:
    """A tenth of the shortest edge of a voxel (0.8 mm)."""
    reference = volume(Phase.PORTAL_VENOUS)
    check_same_grid(reference, [volume(Phase.ARTERIAL, (0, 0, 0.079))])
    message = refusal(volume(Phase.ARTERIAL, (0, 0, 0.12)))
    assert "0.12 mm " in message
    assert "0.15 of a voxel" in message


def test_shapes() -> None:
    message = refusal(volume(Phase.ARTERIAL, shape=(7, 6, 4)))
    assert "7 by 6 by 4" in message
    assert "7 by 6 by 5" in message


@pytest.mark.parametrize("shift", [(0, 0, 25.1), (0, 0, -25.1), (5.7, 0, 0), (0, 400, 0)])
def test_no_overlap(shift: tuple[float, float, float]) -> None:
    assert "field of view" in refusal(volume(Phase.ARTERIAL, shift))


def test_last_slices_overlap() -> None:
    assert "24.9 mm " in refusal(volume(Phase.ARTERIAL, (0, 0, 24.9)))


def test_same_place_but_turned_around() -> None:
    reference = volume(Phase.PORTAL_VENOUS)
    turned = reference.affine @ np.array([[-1, 0, 0, 6], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    other = Volume.from_array(reference.data, turned, Path("arterial.nii.gz"), Phase.ARTERIAL)
    assert "4.8 mm " in refusal(other)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), distance=st.floats(1e-4, 5.0))
def test_distance_is_the_largest_of_any_voxel(seed: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    turn = Rotation.random(None, rng)  # `random_state` before SciPy 1.15, `rng` since
    edges = rng.uniform(0.3, 5, 3)
    affine[:3, :3] = turn.as_matrix() * edges
    other = affine.copy()
    other[:3, 3] += rng.standard_normal(3) * distance / 20
    other[:3, :3] *= 1 + rng.standard_normal(3) * distance / 100
    index = np.stack([*np.indices(SHAPE), np.ones(SHAPE)], axis=-1).reshape(-1, 4)
    furthest = np.linalg.norm(index @ (other - affine).T, axis=1).max()
    a = Volume.from_array(np.zeros(SHAPE), affine, Path("a.nii"))
    b = Volume.from_array(np.zeros(SHAPE), other, Path("b.nii"))
    assert a.grid.offset_mm(b.grid) == pytest.approx(furthest)
    edge = min(*edges, *b.spacing)
    if furthest <= SAME_GRID * edge:
        check_same_grid(a, [b])
    else:
        with pytest.raises(GridError, match=r"b\.nii.*a\.nii"):
            check_same_grid(a, [b])


@settings(max_examples=30, deadline=None)
@given(
    order=st.permutations(range(3)), signs=st.tuples(*3 * [st.sampled_from([-1, 1])]), scale=st.integers(1, 3)
)
def test_every_voxel_keeps_its_place(order: list[int], signs: tuple[int, ...], scale: int) -> None:
    """Turned to the patient's axes, cropped, or on a finer grid, a voxel lies where it lay."""
    affine = np.eye(4)
    affine[:3, :3] = np.diag([0.7, 0.8, 2.5])[:, order] * signs
    affine[:3, 3] = -12.0, 30.0, 5.0
    grid = Grid(SHAPE, affine)
    places = np.moveaxis(affine[:3, :3] @ np.indices(SHAPE).reshape(3, -1) + affine[:3, 3:], 0, -1)
    places = places.reshape(*SHAPE, 3)

    turned = grid.canonical()
    assert (turned.affine[:3, :3].diagonal() > 0).all()
    for axis in range(3):
        along = grid.to_canonical(places[..., axis])
        assert along.shape == turned.shape
        expected = np.tensordot(turned.affine[axis, :3], np.indices(turned.shape), 1) + turned.affine[axis, 3]
        np.testing.assert_allclose(along, expected, atol=1e-9)

    part = grid.crop((slice(2, 5), slice(1, 6), slice(3, 4)))
    assert part.shape == (3, 5, 1)
    np.testing.assert_allclose(part.affine[:3, 3], places[2, 1, 3], atol=1e-9)

    finer = grid.finer(scale)
    assert finer.shape == tuple(scale * side for side in SHAPE)
    cube = finer.affine @ [*3 * [(scale - 1) / 2], 1]
    np.testing.assert_allclose(cube[:3], places[0, 0, 0], atol=1e-9)  # the middle of the first voxel's parts
    assert same_grid(grid, grid.finer(1))
