"""Order of the samples, their division among processes, and the loader of training batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, DistributedSampler

from mpfnl.errors import OptionError

MIXED_STUDIES = 16


@dataclass(frozen=True)
class ProcessShard:
    """The part of a sequence that one of several processes takes: every `processes`-th sample from `rank` on.

    The k-th batches of all processes together are the k-th batch of one process with a batch size
    `processes` times as large.

    Args:
        rank: Rank of the process, from 0.
        processes: Number of processes.
    """

    rank: int = 0
    processes: int = 1

    def check(self, samples: int, name: str) -> None:
        """Refuses fewer samples than processes: a process without a sample would block the others.

        Args:
            samples: Number of samples of all processes.
            name: Name of the samples, for the message.

        Raises:
            OptionError: There are fewer samples than processes; all processes raise it.
        """
        if samples < self.processes:
            raise OptionError(
                f"{samples} {name} for {self.processes} processes: each needs one; "
                f"use at most {max(1, samples)} processes"
            )

    def batch_size(self, samples: int, wanted: int) -> int:
        """A batch size with which `OrderedSampler` gives all processes the same number of batches.

        It is `wanted` or the next smaller possible one, else the next larger one. Sharded weights (FSDP) need
        equal numbers: all processes gather them for each batch together.

        Args:
            samples: Number of samples of all processes, at least one for each process.
            wanted: Preferred batch size of a process.
        """
        least, remainder = divmod(samples, self.processes)
        if not remainder or least % wanted:
            return wanted
        # Some processes have one more sample, which must not begin a batch.
        smaller = (size for size in range(wanted - 1, 1, -1) if least % size)
        return next(smaller, None) or next(size for size in count(wanted + 1) if least % size)


# The subclass relation to DistributedSampler is nominal: Lightning keeps such a sampler. Any other sampler it
# would replace by one that shuffles patch by patch and pads uneven shards with repeated samples.
class EpochSampler(DistributedSampler[tuple[int, int]]):
    """Yields (epoch, index), so that a sample knows its epoch in any worker.

    Studies are drawn in a new order each epoch and taken in groups; patches are mixed within a group. A
    loader needs the studies of one group in memory at a time, not the cohort.

    The order depends on the seed and the epoch, for any number of processes. All processes take the same
    number of samples; a remainder smaller than the number of processes, different in each epoch, is left out.

    Lightning calls `set_epoch`; without Lightning, call it before each epoch.

    Args:
        studies: Number of studies.
        per_study: Patches per study and epoch.
        seed: Seed of the order.
        group: Number of studies whose patches are mixed.
        shard: Part that this process takes; the default is a single process.
        done: Function that returns, at the start of an epoch, the number of samples that a resumed training
            has used already; the default returns 0.
    """

    def __init__(
        self,
        studies: int,
        per_study: int,
        seed: int,
        group: int = MIXED_STUDIES,
        shard: ProcessShard | None = None,
        done: Callable[[], int] = int,
    ) -> None:
        self.shard = shard or ProcessShard()
        super().__init__(range(studies * per_study), self.shard.processes, self.shard.rank, seed=seed)  # type: ignore[arg-type]  # a range serves
        self.studies = studies
        self.per_study = per_study
        self.group = group
        self.done = done

    def __len__(self) -> int:
        return self.studies * self.per_study // self.shard.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.studies)
        indices = [
            rng.permutation(self._patches(order[start : start + self.group]))
            for start in range(0, self.studies, self.group)
        ]
        own = np.concatenate(indices)[self.shard.rank :: self.shard.processes]
        yield from ((self.epoch, int(index)) for index in own[self.done() : len(self)])

    def _patches(self, studies: NDArray[np.int64]) -> NDArray[np.int64]:
        patches: NDArray[np.int64] = studies[:, None] * self.per_study + np.arange(self.per_study)
        return patches.ravel()


class OrderedSampler(DistributedSampler[int]):
    """Yields indices in order, each exactly once over all processes; shards differ by one sample at most.

    For validation, testing and prediction.

    Args:
        samples: Number of samples of all processes.
        shard: Part that this process takes; the default is a single process.
    """

    def __init__(self, samples: int, shard: ProcessShard | None = None) -> None:
        shard = shard or ProcessShard()
        super().__init__(range(samples), shard.processes, shard.rank, shuffle=False)  # type: ignore[arg-type]  # a range serves
        self.own = range(samples)[shard.rank :: shard.processes]

    def __len__(self) -> int:
        return len(self.own)

    def __iter__(self) -> Iterator[int]:
        return iter(self.own)


class EpochLoader(DataLoader[Any]):
    """A loader that reads the sampler's order at the first batch, not when the iterator is created.

    Lightning 2.6 creates the iterator before it sets the epoch of a resumed training, and workers prefetch.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # DataLoader's own class is private
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """An empty state: the trainer's progress holds the number of used batches; see `EpochSampler`.

        With a state, Lightning lets the loader continue in the middle of an epoch.
        """
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads nothing; see `state_dict`."""
