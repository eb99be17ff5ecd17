"""How samples are shared by several processes."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.sampling import EpochSampler, OrderedSampler, ProcessShard
from mpfnl.errors import OptionError

PROCESSES = st.integers(1, 5)
BATCH = st.integers(1, 4)


def shards(processes: int) -> list[ProcessShard]:
    return [ProcessShard(rank, processes) for rank in range(processes)]


def batches(sampler: EpochSampler, size: int) -> list[set[tuple[int, int]]]:
    """As the data module's loader makes them."""
    return [set(batch) for batch in BatchSampler(sampler, size, drop_last=len(sampler) >= size)]


@given(
    studies=st.integers(1, 9),
    per_study=st.integers(1, 4),
    epoch=st.integers(0, 3),
    processes=PROCESSES,
    size=BATCH,
)
def test_a_step_of_all_processes_is_one_of_a_process_with_the_whole_batch(
    studies: int, per_study: int, epoch: int, processes: int, size: int
) -> None:
    alone, *ours = (
        EpochSampler(studies, per_study, seed=3, group=4, shard=shard)
        for shard in [ProcessShard(), *shards(processes)]
    )
    for sampler in (alone, *ours):
        sampler.set_epoch(epoch)
    assert len({len(sampler) for sampler in ours}) == 1
    assert all(len(list(sampler)) == len(sampler) for sampler in ours)
    steps = [set().union(*step) for step in zip(*(batches(each, size) for each in ours), strict=True)]
    expected = batches(alone, size * processes)
    if studies * per_study >= size * processes:
        assert steps == expected
    elif studies * per_study >= processes:  # one step, of as many as can be shared
        assert len(steps) == 1
        assert steps[0] <= expected[0]
        assert len(expected[0]) - len(steps[0]) < processes


@given(studies=st.integers(1, 9), processes=PROCESSES)
def test_no_process_takes_the_sample_of_another(studies: int, processes: int) -> None:
    taken = [key for shard in shards(processes) for key in EpochSampler(studies, 3, seed=1, shard=shard)]
    assert len(set(taken)) == len(taken) == 3 * studies // processes * processes


def test_what_is_left_over_changes_with_the_epoch() -> None:
    left = []
    for epoch in range(6):
        ours = [EpochSampler(5, per_study=1, seed=0, shard=shard) for shard in shards(2)]
        for sampler in ours:
            sampler.set_epoch(epoch)
        left.append(set(range(5)) - {index for sampler in ours for _, index in sampler})
    assert {len(each) for each in left} == {1}
    assert len(set().union(*left)) > 1


@given(done=st.integers(0, 7), rank=st.integers(0, 1))
def test_an_epoch_can_be_entered_in_its_middle(done: int, rank: int) -> None:
    shard = ProcessShard(rank, 2)
    whole = list(EpochSampler(5, per_study=3, seed=0, shard=shard))
    assert list(EpochSampler(5, per_study=3, seed=0, shard=shard, done=lambda: done)) == whole[done:]


@given(samples=st.integers(1, 40), processes=PROCESSES, wanted=BATCH)
def test_in_order_each_sample_is_taken_once_in_as_many_batches_by_each(
    samples: int, processes: int, wanted: int
) -> None:
    processes = min(samples, processes)
    ours = [OrderedSampler(samples, shard) for shard in shards(processes)]
    assert sorted(index for sampler in ours for index in sampler) == list(range(samples))
    assert all(list(sampler) == sorted(sampler) and len(list(sampler)) == len(sampler) for sampler in ours)
    size = ProcessShard(0, processes).batch_size(samples, wanted)
    assert len({ceil(len(sampler) / size) for sampler in ours}) == 1
    if len({ceil(len(sampler) / wanted) for sampler in ours}) == 1:
        assert size == wanted
    if processes == 1:
        assert list(ours[0]) == list(range(samples))
        assert size == wanted


def test_too_few_samples_are_one_line_in_every_process(cohort: Path) -> None:
    for rank in range(5):
        data = MultiphaseDataModule(
            cohort, batch_size=2, patch_size=12, patches_per_study=1, val_patches_per_study=1, workers=0
        )
        several = {"rank": rank, "num_replicas": 5}
        data.trainer = SimpleNamespace(distributed_sampler_kwargs=several, training=False)  # type: ignore[assignment]
        for make, found in (
            (data.train_dataloader, "4 training patches an epoch"),
            (data.val_dataloader, "1 validation patches"),
            (data.test_dataloader, "2 test studies"),
        ):
            with pytest.raises(OptionError, match=rf"^{found} for 5 processes: "):
                make()
