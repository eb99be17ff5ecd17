"""Splits: everybody once, the same for the same patients, the shares that were promised."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.data.manifest import Split, split_patients

NAMES = st.lists(st.text("abc0123456789.", min_size=1, max_size=6), max_size=60, unique=True)
SEEDS = st.integers(0, 2**32)


@settings(max_examples=60, deadline=None)
@given(NAMES, SEEDS, st.randoms(use_true_random=False))
def test_everybody_is_in_one_split_whatever_the_order(names: list[str], seed: int, random: object) -> None:
    splits = split_patients(names, seed)
    assert sorted(splits) == sorted(names)
    shuffled = names + names[:3]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert split_patients(shuffled, seed) == splits


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 400), SEEDS)
def test_a_tenth_each_is_held_out_and_never_nobody(patients: int, seed: int) -> None:
    counts = Counter(split_patients((f"p{n}" for n in range(patients)), seed).values())
    for split in (Split.VAL, Split.TEST):
        assert counts[split] >= 1
        assert counts[split] == max(1, round(patients / 10))
    assert counts[Split.TRAIN] == patients - counts[Split.VAL] - counts[Split.TEST] >= 1


def test_another_seed_draws_others_and_each_patient_may_be_held_out() -> None:
    names = [f"p{n:02d}" for n in range(20)]
    draws = [split_patients(names, seed) for seed in range(200)]
    for name in names:
        share = sum(draw[name] is Split.TEST for draw in draws) / len(draws)
        assert share == pytest.approx(0.1, abs=0.08)  # 4 standard deviations of 200 draws
