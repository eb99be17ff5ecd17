"""Structures that are inserted into training patches."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.transforms.insertion import BODY_FROM_HU, StructureInsertion
from mpfnl.window import UNCOVERED_HU

LESIONS = StructureInsertion(mean_count=3.0, vessel_share=0.0, lesion_mm=(9.0, 9.0), lesion_hu=(40.0, 40.0))
SPACING = (1.5, 1.5, 2.0)


def patch(value: int = 60, phases: int = 3, edge: int = 20) -> np.ndarray:
    return np.full((phases, edge, edge, edge), value, np.int16)


def test_the_same_generator_inserts_the_same() -> None:
    one, two = (LESIONS(patch(), SPACING, np.random.default_rng(4)) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert (one != LESIONS(patch(), SPACING, np.random.default_rng(5))).any()


def test_a_lesion_has_its_volume_and_contrast() -> None:
    """One sphere far from the border: its integral is contrast times volume."""
    single = StructureInsertion(
        mean_count=1.0, vessel_share=0.0, lesion_mm=(9.0, 9.0), lesion_hu=(40.0, 40.0), hypodense_share=1.0
    )
    expected = -40 * 4 / 3 * math.pi * 4.5**3
    integrals = []
    for seed in range(300):
        added = single(patch(edge=40), (1.0, 1.0, 1.0), np.random.default_rng(seed))[-1] - 60.0
        inner = np.zeros(added.shape, bool)
        inner[8:-8, 8:-8, 8:-8] = True
        whole = added.any() and not added[~inner].any()
        if whole and added.min() == -40 and added.sum() > 1.5 * expected:  # one, with its full contrast
            integrals.append(added.sum())
    assert len(integrals) > 3
    np.testing.assert_allclose(integrals, expected, rtol=0.04)


def test_some_structures_are_in_one_phase_only() -> None:
    alone = 0
    for seed in range(60):
        added = LESIONS(patch(), SPACING, np.random.default_rng(seed)).astype(int) - 60
        alone += sum(bool(each.any()) for each in added) == 1
    assert alone > 3


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), air=st.integers(-1024, BODY_FROM_HU))
def test_air_and_uncovered_voxels_stay(seed: int, air: int) -> None:
    hu = patch()
    hu[:, :10] = air
    hu[0, :, :10] = UNCOVERED_HU
    many = StructureInsertion(mean_count=10.0)
    inserted = many(hu, SPACING, np.random.default_rng(seed))
    np.testing.assert_array_equal(inserted[:, :10], hu[:, :10])
    np.testing.assert_array_equal(inserted[0, :, :10], hu[0, :, :10])
    assert (hu[1:, 10:] == 60).all()  # the given patch is not changed


@pytest.mark.parametrize(
    "wrong",
    [{"mean_count": -1.0}, {"vessel_share": 1.5}, {"lesion_mm": (5.0, 3.0)}, {"vessel_hu": (0.0, 3.0)}],
)
def test_ranges_are_checked(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)) if "share" not in str(wrong) else "share"):
        StructureInsertion(**wrong)
