"""The order in which patches are taken."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

MIXED_STUDIES = 16


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index), so that samples know their epoch in whatever worker they are made.

    Studies are drawn in a new order each epoch and taken in groups; within a group their patches are mixed.
    So a loader needs the studies of one group in memory at a time, not the cohort.

    Lightning calls `set_epoch`; without Lightning call it before each epoch.

    Args:
        studies: How many.
        per_study: Patches a study and epoch.
        seed: Of the order.
        group: Studies whose patches are mixed.
    """

    def __init__(self, studies: int, per_study: int, seed: int, group: int = MIXED_STUDIES) -> None:
        self.studies = studies
        self.per_study = per_study
        self.seed = seed
        self.group = group
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Says which epoch comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.studies * self.per_study

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.studies)
        for start in range(0, self.studies, self.group):
            members = order[start : start + self.group]
            indices = (members[:, None] * self.per_study + np.arange(self.per_study)).ravel()
            yield from ((self.epoch, int(index)) for index in rng.permutation(indices))
