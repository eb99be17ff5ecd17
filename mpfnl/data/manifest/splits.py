"""Splits of a cohort: patients assigned to training, validation and testing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mpfnl.data.manifest.study import Split
from mpfnl.errors import OptionError


@dataclass(frozen=True)
class SplitCounts:
    """Number of patients in each split; patients are assigned in their order.

    >>> SplitCounts.default(10)
    SplitCounts(train=8, val=1, test=1)
    """

    train: int
    val: int
    test: int

    @classmethod
    def default(cls, patients: int) -> SplitCounts:
        """80, 10 and 10 %, with at least one patient in each split as far as there are patients."""
        held_out = max(1, round(patients / 10)) if patients > 1 else 0
        val = held_out if patients > 2 else 0
        return cls(patients - val - held_out, val, held_out)

    def assignment(self) -> list[Split]:
        """The split of each patient in turn."""
        return [Split.TRAIN] * self.train + [Split.VAL] * self.val + [Split.TEST] * self.test


def split_patients(patients: Iterable[str], seed: int) -> dict[str, Split]:
    """Draws a split for each patient: 10 % val, 10 % test, the rest train.

    The draw depends on the set of patients and the seed, not on the order of the patients. With three
    patients or more, each split has at least one.

    Args:
        patients: Patient names; repeated names count once.
        seed: Seed of the draw, 0 or more.

    Raises:
        OptionError: The seed is negative.

    >>> sorted(split_patients(["a", "b", "c"], seed=0).values())
    [<Split.TEST: 'test'>, <Split.TRAIN: 'train'>, <Split.VAL: 'val'>]
    """
    if seed < 0:
        raise OptionError(f"seed {seed}: give 0 or more")
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    splits = SplitCounts.default(len(names)).assignment() if names else []
    return {names[index]: split for index, split in zip(order, splits, strict=True)}
