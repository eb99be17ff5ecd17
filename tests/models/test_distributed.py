"""Two processes on the CPU train, test and predict as one process with the doubled batch does."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from ddp_worker import EPOCHS, SAVE_AT, TOTAL_BATCH
from lightning.pytorch import Trainer
from processes import Processes, free_port, lightning_variables
from raw_studies import raw_study
from torch import Tensor

from mpfnl.data.manifest import Split, write_manifest
from mpfnl.models import PFNL3D
from mpfnl.volumes import read_volume

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parents[1] / "support" / "ddp_worker.py"
STEPS = 3  # an epoch: five studies of three patches, three patches left over
PATCHES = 15

Weights: TypeAlias = dict[str, Tensor]
Found: TypeAlias = dict[str, Any]


class Runs:
    """What one process found, and what each of two found."""

    def __init__(self, folder: Path) -> None:
        splits = [Split.TRAIN] * 5 + [Split.VAL] + [Split.TEST] * 3
        studies = [raw_study(folder, number, split) for number, split in enumerate(splits)]
        cohort = write_manifest(folder / "cohort.csv", studies).path
        self.folders = {count: folder / f"of{count}" for count in (1, 2)}
        for of in self.folders.values():
            of.mkdir()
        with Processes(self.folders[1]) as one, Processes(self.folders[2]) as two:
            work, port = [sys.executable, WORKER, cohort], free_port()
            one.start([*work, self.folders[1], "1"], {})
            for rank in range(2):
                two.start([*work, self.folders[2], "2"], lightning_variables(rank, 2, port))
            self.outputs = two.wait(200) + one.wait(200)
        self.one = self.found(1, 0)
        self.two = [self.found(2, rank) for rank in range(2)]

    def found(self, processes: int, rank: int) -> Found:
        found: Found = torch.load(self.folders[processes] / f"rank{rank}.pt", weights_only=True)
        return found

    def steps(self, stage: str) -> tuple[list[list[str]], list[list[str]]]:
        """The samples of each batch: of one process, and of two taken together."""
        pairs = zip_longest(*(found["seen"][stage] for found in self.two), fillvalue=[])
        return self.one["seen"][stage], [joined(pair) for pair in pairs]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("distributed"))


def joined(lists: Iterable[list[str]]) -> list[str]:
    return list(chain.from_iterable(lists))


def difference(first: Weights, second: Weights) -> float:
    """The largest, of any weight."""
    assert first.keys() == second.keys()
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


def test_a_step_sees_the_samples_of_the_doubled_batch(runs: Runs) -> None:
    one, two = runs.steps("train")
    assert len(one) == STEPS * EPOCHS
    assert all(len(batch) == TOTAL_BATCH for batch in one)
    assert [sorted(batch) for batch in one] == [sorted(batch) for batch in two]
    for epoch in range(EPOCHS):  # none twice, and what is left over is less than a batch
        seen = joined(two[epoch * STEPS : (epoch + 1) * STEPS])
        assert len(set(seen)) == len(seen) > PATCHES - TOTAL_BATCH


def test_the_weights_are_those_of_the_doubled_batch(runs: Runs) -> None:
    """In float64 to 1e-10 of a change of 1e-3 and more; in float32 rounding does no more than in one."""
    learnt = difference(runs.one["first"], runs.one["exact"])
    rounding = difference(runs.one["weights"], runs.one["exact"])
    assert learnt > 1e-3
    assert rounding < 1e-2 * learnt
    for found in runs.two:
        assert difference(runs.one["exact"], found["exact"]) < 1e-10
        assert difference(runs.one["exact"], found["weights"]) < 10 * rounding


def test_both_processes_hold_the_same_weights(runs: Runs) -> None:
    assert difference(runs.two[0]["weights"], runs.two[1]["weights"]) == 0


@pytest.mark.parametrize("name", ["val_psnr", "val_ssim"])
def test_validation_is_that_of_one_process(runs: Runs, name: str) -> None:
    shares = [len(joined(found["seen"]["validate"])) for found in runs.two]
    assert shares == [3 * EPOCHS, 2 * EPOCHS]  # uneven, and none repeated
    for found in runs.two:
        assert found["exact_metrics"][name] == pytest.approx(runs.one["exact_metrics"][name], rel=1e-6)


def test_the_validation_loss_is_that_of_all_processes(runs: Runs) -> None:
    for found in runs.two:
        expected = runs.one["exact_metrics"]["val_loss"]
        assert found["exact_metrics"]["val_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_every_study_is_taken_once(runs: Runs, stage: str) -> None:
    """Three studies, two processes: one takes two of them."""
    one, *two = (joined(found["used"][stage]) for found in (runs.one, *runs.two))
    assert [len(share) for share in two] == [2, 1]
    assert sorted(joined(two)) == sorted(one)


def test_whole_volumes_score_as_in_one_process(runs: Runs) -> None:
    """To what float32 weights differ by."""
    for found in runs.two:
        assert found["tested"] == pytest.approx(runs.one["tested"], rel=1e-4)
    assert runs.two[0]["tested"] == runs.two[1]["tested"]


def test_predictions_are_written_once_under_their_study(runs: Runs) -> None:
    one, two = ({path.name: path for path in (of / "predictions").iterdir()} for of in runs.folders.values())
    assert sorted(one) == sorted(two) == [f"s{number}.nii.gz" for number in (6, 7, 8)]
    for name, path in one.items():
        expected, found = read_volume(path).data, read_volume(two[name]).data
        assert np.abs(expected.astype(int) - found).max() <= 1
    assert not np.array_equal(*(read_volume(two[f"s{number}.nii.gz"]).data for number in (6, 7)))


def test_weights_are_saved_by_one_and_read_by_all(runs: Runs) -> None:
    for found in (runs.one, *runs.two):
        assert difference(found["loaded"], found["weights"]) == 0
    assert not list(runs.folders[2].rglob("*.partial"))


def test_a_training_goes_on_in_the_middle_of_an_epoch(runs: Runs) -> None:
    """With workers that read ahead; the uninterrupted training had none."""
    for found in (runs.one, *runs.two):
        assert found["resumed_seen"]["train"] == found["seen"]["train"][SAVE_AT:]
        assert difference(found["resumed"], found["weights"]) == 0
    assert not any("dataloader is not resumable" in output for output in runs.outputs)


def test_sharded_weights_train_alike(runs: Runs) -> None:
    """Lightning's ModelParallelStrategy with torch's `fully_shard`, in float64."""
    for found in runs.two:
        assert difference(runs.one["exact"], found["sharded"]) < 1e-10
    assert sum(found["sharded_share"] for found in runs.two) == pytest.approx(1)
    assert max(found["sharded_share"] for found in runs.two) < 0.6


def test_a_checkpoint_of_sharded_weights_is_one_of_the_model(runs: Runs) -> None:
    path = runs.folders[2] / "sharded.ckpt"
    loaded = PFNL3D.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    found = {name: tensor.float() for name, tensor in runs.two[0]["sharded"].items()}
    assert difference(loaded.network.state_dict(), found) == 0


def test_lightnings_older_sharding_refuses_the_cpu() -> None:
    """So docs/several_machines.md says; where this fails, it can be tested and the page changed."""
    with pytest.raises(ValueError, match="requires a GPU accelerator"):
        Trainer(accelerator="cpu", devices=2, strategy="fsdp", logger=False)
