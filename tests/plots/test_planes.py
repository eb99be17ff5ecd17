"""Scans are turned to the patient's axes, however they are stored."""

from __future__ import annotations

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.plots.planes import Orientation

SHAPE, SPACING, ORIGIN = (5, 6, 4), (0.8, 1.5, 3.0), (-31.0, 12.5, 207.0)
CODES = ["".join(c) for p in itertools.permutations(("LR", "AP", "SI")) for c in itertools.product(*p)]


def stored_as(voxels: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """A RAS volume stored with other axes; its affine."""
    image = nib.Nifti1Image(voxels, nib.affines.from_matvec(np.diag(SPACING), ORIGIN))
    turn = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    stored = image.as_reoriented(turn)
    assert "".join(nib.aff2axcodes(stored.affine)) == codes
    return np.asarray(stored.dataobj), stored.affine


def numbered() -> np.ndarray:
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def test_there_are_48_ways_to_store_a_scan() -> None:
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("codes", CODES)
def test_every_stored_order_is_turned_back(codes: str) -> None:
    voxels, affine = stored_as(numbered(), codes)
    orientation = Orientation(affine, voxels.shape)
    turned = orientation.turned(voxels)
    np.testing.assert_array_equal(turned, numbered())
    assert np.shares_memory(turned, voxels)
    assert orientation.turned_shape == SHAPE
    assert orientation.spacing == pytest.approx(SPACING)
    for voxel in ((0, 0, 0), (4, 2, 1), (1, 5, 3)):
        expected = np.multiply(voxel, SPACING) + ORIGIN
        np.testing.assert_allclose(orientation.position(voxel), expected, atol=1e-9)
        for axis in range(3):
            along = next(place for place in range(3) if codes[place] in ("LR", "PA", "IS")[axis])
            slice_ = voxels.take(orientation.stored_index(axis, voxel[axis]), axis=along)
            assert set(slice_.ravel()) == set(numbered().take(voxel[axis], axis=axis).ravel())


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(-35, 35), min_size=3, max_size=3), st.sampled_from(CODES))
def test_oblique_scans_are_turned_as_nibabel_does(degrees: list[float], codes: str) -> None:
    voxels, affine = stored_as(numbered(), codes)
    rotation = nib.eulerangles.euler2mat(*np.radians(degrees))
    affine = nib.affines.from_matvec(rotation @ affine[:3, :3], affine[:3, 3])
    closest = nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))
    orientation = Orientation(affine, voxels.shape)
    np.testing.assert_array_equal(orientation.turned(voxels), np.asarray(closest.dataobj))
    position = nib.affines.apply_affine(closest.affine, (1, 2, 3))
    np.testing.assert_allclose(orientation.position((1, 2, 3)), position, atol=1e-9)
    assert orientation.spacing == pytest.approx(nib.affines.voxel_sizes(closest.affine))


@pytest.mark.parametrize(
    ("codes", "axis", "voxel", "words"),
    [
        ("RAS", 2, (0, 0, 1), "1 (S 210.0 mm)"),
        ("LPI", 2, (0, 0, 1), "2 (S 210.0 mm)"),
        ("RAS", 0, (1, 0, 0), "1 (L 30.2 mm)"),
        ("SLP", 0, (1, 0, 0), "3 (L 30.2 mm)"),
        ("SLP", 1, (0, 5, 0), "0 (A 20.0 mm)"),
    ],
)
def test_a_slice_is_named_by_number_and_side(
    codes: str, axis: int, voxel: tuple[int, int, int], words: str
) -> None:
    voxels, affine = stored_as(numbered(), codes)
    place = Orientation(affine, voxels.shape).place(axis, voxel)
    assert place.replace("\N{NO-BREAK SPACE}", " ") == words


def test_zero_has_no_sign() -> None:
    place = Orientation(np.diag([1.0, 1.0, -0.04, 1.0]), (3, 3, 3)).place(2, (0, 0, 1))
    assert place.endswith("(S\N{NO-BREAK SPACE}0.0\N{NO-BREAK SPACE}mm)")
