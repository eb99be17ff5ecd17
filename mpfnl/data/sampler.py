"""The order in which samples are taken, and which process of several takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DistributedSampler

from mpfnl.errors import InputError

MIXED_STUDIES = 16


@dataclass(frozen=True)
class Share:
    """What one of several processes takes of a sequence: each `processes`-th sample, from `rank` on.

    So the k-th batches of all processes together are the k-th batch of one process that makes batches so
    many times as large.

    Args:
        rank: Which process, from 0.
        processes: How many there are.
    """

    rank: int = 0
    processes: int = 1

    def check(self, samples: int, name: str) -> None:
        """Refuses to leave a process without a sample: the others would wait for it forever.

        Args:
            samples: How many there are for all.
            name: What they are.

        Raises:
            InputError: There are fewer than processes; all processes raise it.
        """
        if samples < self.processes:
            raise InputError(
                f"{samples} {name} for {self.processes} processes: each needs one; "
                f"take at most {max(1, samples)} processes"
            )

    def batch_size(self, samples: int, wanted: int) -> int:
        """A batch size at which `InOrder` gives all processes the same number of batches.

        It is `wanted` or the next smaller one that serves, else the next larger one.
        Sharded weights (FSDP) are gathered anew for each batch, by all processes together.

        Args:
            samples: How many there are for all, at least one for each process.
            wanted: A batch, of one process.
        """
        least, left_over = divmod(samples, self.processes)
        if not left_over or least % wanted:
            return wanted
        # Some processes have one sample more; it must not begin a batch.
        smaller = (size for size in range(wanted - 1, 1, -1) if least % size)
        return next(smaller, None) or next(size for size in count(wanted + 1) if least % size)


# Both are a DistributedSampler by name alone: Lightning leaves such a sampler as it is. It would shuffle any
# other again, patch by patch, and fill up uneven shares with samples that were taken already.
class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Yields (epoch, index), so that samples know their epoch in whatever worker they are made.

    Studies are drawn in a new order each epoch and taken in groups; within a group their patches are mixed.
    So a loader needs the studies of one group in memory at a time, not the cohort.

    The order is that of the seed and the epoch, for any number of processes. They take the same number of
    samples: what is left over (fewer than there are processes, others in each epoch) is left out.

    Lightning calls `set_epoch`; without Lightning call it before each epoch.

    Args:
        studies: How many.
        per_study: Patches a study and epoch.
        seed: Of the order.
        group: Studies whose patches are mixed.
        share: Which process this is; there is one if left out.
        done: Tells, when an epoch is begun, how many samples of the share to leave out at its beginning,
            because a training that goes on has taken them already; none if left out.
    """

    def __init__(
        self,
        studies: int,
        per_study: int,
        seed: int,
        group: int = MIXED_STUDIES,
        share: Share | None = None,
        done: Callable[[], int] = int,
    ) -> None:
        self.share = share or Share()
        super().__init__(range(studies * per_study), self.share.processes, self.share.rank, seed=seed)  # type: ignore[arg-type]  # a range serves
        self.studies = studies
        self.per_study = per_study
        self.group = group
        self.done = done

    def __len__(self) -> int:
        return self.studies * self.per_study // self.share.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.studies)
        indices = [
            rng.permutation(self._patches(order[start : start + self.group]))
            for start in range(0, self.studies, self.group)
        ]
        own = np.concatenate(indices)[self.share.rank :: self.share.processes]
        yield from ((self.epoch, int(index)) for index in own[self.done() : len(self)])

    def _patches(self, studies: NDArray[np.int64]) -> NDArray[np.int64]:
        patches: NDArray[np.int64] = studies[:, None] * self.per_study + np.arange(self.per_study)
        return patches.ravel()


class InOrder(DistributedSampler[int]):
    """Yields indices in their order; over all processes each exactly once, so shares differ by one at most.

    For validation, testing and prediction.

    Args:
        samples: How many there are for all.
        share: Which process this is; there is one if left out.
    """

    def __init__(self, samples: int, share: Share | None = None) -> None:
        share = share or Share()
        super().__init__(range(samples), share.processes, share.rank, shuffle=False)  # type: ignore[arg-type]  # a range serves
        self.own = range(samples)[share.rank :: share.processes]

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Iterator[int]:
        return iter(self.own)
