"""Patients into train, val and test."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mpfnl.data.manifest import Split
from mpfnl.phantoms import SplitCounts


def split_patients(patients: Iterable[str], seed: int) -> dict[str, Split]:
    """Draws a split for each patient: 10 % val, 10 % test, the rest train.

    Depends on the set of the patients and the seed, not on their order. With three patients or more, each
    split has at least one.

    Args:
        patients: Their names; one that comes twice counts once.
        seed: Zero or more.

    Raises:
        ValueError: The seed is negative.
    """
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    splits = SplitCounts.default(len(names)).names() if names else []
    return {names[index]: Split(split) for index, split in zip(order, splits, strict=True)}
