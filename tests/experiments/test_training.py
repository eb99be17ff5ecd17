"""One training on a budget: recorded, not repeated, and gone on with exactly where it stopped."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import seed_everything
from torch import nn
from torch.utils.data import DataLoader

import mpfnl
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import Manifest, Split, read_manifest
from mpfnl.errors import DamagedError, InputError, OptionError
from mpfnl.experiments.budget import Machine, TrainingBudget
from mpfnl.experiments.candidates import Candidate, LearningRate, fine_tuned, new_candidate
from mpfnl.experiments.training import TrainingRun, TrainingSet
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.loading import load_model
from mpfnl.networks import register_network, registry
from mpfnl.phases import Phase
from mpfnl.transforms.degradation import find_preset

TINY = Candidate("tiny", partial(mpfnl.PFNL3D, features=8, blocks=1), LearningRate(3e-3, warm_up=0.2))
BUDGET = TrainingBudget(epochs=3, patches_per_study=1, batch_size=2, patch_size=16, seed=5)
MACHINE = Machine(torch.device("cpu"), workers=0)


@pytest.fixture(scope="module")
def data(cohort: Path) -> TrainingSet:
    return TrainingSet(read_manifest(cohort))


@pytest.fixture(scope="module")
def whole(data: TrainingSet, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A training that nothing interrupted. Not to be written to."""
    run = TrainingRun(TINY, data, tmp_path_factory.mktemp("whole"), BUDGET, MACHINE)
    run.train()
    return run


def weights_of(run: TrainingRun) -> bytes:
    return (run.weights / "model.safetensors").read_bytes()


def copy_of(run: TrainingRun, folder: Path, **changes: object) -> TrainingRun:
    shutil.copytree(run.folder, folder)
    parts: dict[str, object] = {"candidate": run.candidate, "data": run.data, "budget": run.budget}
    return TrainingRun(**(parts | changes), folder=folder, machine=MACHINE)  # type: ignore[arg-type]


def count_steps(
    monkeypatch: pytest.MonkeyPatch, at: int | None = None, stop: type[BaseException] = KeyboardInterrupt
) -> list[int]:
    """Notes the steps that are taken; raises where the given one should be."""
    taken: list[int] = []
    step: Callable[..., torch.Tensor] = EnhancementModule.training_step

    def counted(self: EnhancementModule, batch: object, batch_idx: int) -> torch.Tensor:
        if len(taken) == at:
            raise stop
        taken.append(self.global_step)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(EnhancementModule, "training_step", counted)
    return taken


def test_what_is_written_loads_and_says_how_it_was_made(whole: TrainingRun) -> None:
    model = load_model(whole.weights)
    record = json.loads(whole.record.read_text())
    assert record["settings"] == json.loads(json.dumps(whole.settings))
    assert record["parameters"] == sum(p.numel() for p in mpfnl.PFNL3D(features=8, blocks=1).parameters())
    assert record["parameters"] == sum(p.numel() for p in model.network.parameters())
    assert record["steps"] == 3 * 2  # 4 studies, a patch each, two a batch
    assert 0 < record["seconds_per_step"] * record["steps"] < 2 * record["seconds"]
    assert set(record["last_epoch"]) == {"train_loss", "val_loss", "val_psnr", "val_ssim"}
    with (whole.log / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["val_psnr"]]
    assert [int(row["epoch"]) for row in logged] == [0, 1, 2]
    assert float(logged[-1]["val_psnr"]) == pytest.approx(record["last_epoch"]["val_psnr"], rel=1e-5)
    assert not list(whole.folder.rglob("*.ckpt"))  # nothing of the size of a model is left beside it


def test_the_weights_are_those_of_a_plain_loop(whole: TrainingRun) -> None:
    """Adam, one-cycle, loss and samples by hand: no Lightning, no checkpoint."""
    seed_everything(BUDGET.seed, workers=True, verbose=False)
    model = mpfnl.PFNL3D(features=8, blocks=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=6, pct_start=0.2)
    loader = MultiphaseDataModule(
        whole.data.manifest.path,
        batch_size=2,
        patch_size=16,
        patches_per_study=1,
        workers=0,
        seed=BUDGET.seed,
    ).train_dataloader()
    bf16 = MACHINE.computed_in is torch.bfloat16
    for epoch in range(BUDGET.epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model.loss(model(batch["phases"]), batch["target"])
            loss.backward()
            optimizer.step()
            schedule.step()
    for expected, found in zip(model.parameters(), load_model(whole.weights).parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("stop", "workers"), [(KeyboardInterrupt, 0), (MemoryError, 1)])
def test_an_interrupted_training_ends_in_the_same_weights(
    whole: TrainingRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop: type[BaseException],
    workers: int,
) -> None:
    """Also where a worker reads ahead."""
    run = TrainingRun(TINY, whole.data, tmp_path, BUDGET, Machine(torch.device("cpu"), workers=workers))
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patched:
        count_steps(patched, at=3, stop=stop)  # in the middle of the second epoch of two steps
        with pytest.raises(stop):
            run.train()
    assert signal.getsignal(signal.SIGINT) is handler
    assert not run.finished
    assert not run.weights.exists()
    assert [file.name for file in tmp_path.rglob("*.ckpt")] == ["last.ckpt"]
    torch.manual_seed(77)  # what the process did since is not part of it
    taken = count_steps(monkeypatch)
    run.train()
    assert taken == [2, 3, 4, 5]  # not the first epoch's
    assert weights_of(run) == weights_of(whole)
    assert run.finished
    assert not list(tmp_path.rglob("*.ckpt"))
    with (run.log / "metrics.1.csv").open() as before, (run.log / "metrics.csv").open() as after:
        assert {row["epoch"] for row in csv.DictReader(before)} >= {"0"}
        assert {row["epoch"] for row in csv.DictReader(after)} == {"1", "2"}
    record, expected = (json.loads(each.record.read_text()) for each in (run, whole))
    assert record["last_epoch"] == expected["last_epoch"]


def test_stopped_after_the_last_epoch_it_does_not_train_again(
    whole: TrainingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(TINY, whole.data, tmp_path, BUDGET, MACHINE)
    with monkeypatch.context() as patched:

        def full_disk(self: EnhancementModule, folder: Path) -> Path:
            raise InputError("no space")

        patched.setattr(EnhancementModule, "save_pretrained", full_disk)
        with pytest.raises(InputError, match="no space"):
            run.train()
    taken = count_steps(monkeypatch)
    run.train()
    assert not taken
    assert weights_of(run) == weights_of(whole)
    record, expected = (json.loads(each.record.read_text()) for each in (run, whole))
    assert record["last_epoch"] == expected["last_epoch"]


def test_what_is_there_is_not_trained_again(
    whole: TrainingRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = count_steps(monkeypatch)
    again = TrainingRun(TINY, TrainingSet(whole.data.manifest), whole.folder, BUDGET, MACHINE)
    before = weights_of(whole), whole.record.read_bytes()
    assert again.finished
    assert not again.other_settings()
    assert again.train() == whole.weights
    assert not taken
    assert (weights_of(whole), whole.record.read_bytes()) == before
    assert "not trained again" in capsys.readouterr().out


def test_other_settings_are_named_and_trained_anew(
    whole: TrainingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = TrainingBudget(epochs=1, patches_per_study=1, batch_size=2, patch_size=16, seed=6)
    wider = Candidate("tiny", partial(mpfnl.PFNL3D, features=16, blocks=1))
    run = copy_of(whole, tmp_path / "copy", budget=budget, candidate=wider)
    assert not run.finished
    assert run.other_settings() == ["config", "epochs", "seed", "rate"]
    taken = count_steps(monkeypatch)
    run.train()
    assert taken == [0, 1]
    assert run.finished
    assert load_model(run.weights).config["features"] == 16
    assert not list(run.log.glob("metrics.?.csv"))  # nothing of the other training is left


def test_lost_weights_and_other_scans_are_noticed(whole: TrainingRun, tmp_path: Path) -> None:
    lost = copy_of(whole, tmp_path / "lost")
    (lost.weights / "model.safetensors").unlink()
    assert not lost.finished
    cohort = tmp_path / "cohort"
    shutil.copytree(whole.data.manifest.path.parent, cohort)
    data = TrainingSet(read_manifest(cohort / "cohort.csv"))
    assert copy_of(whole, tmp_path / "moved", data=data).finished  # elsewhere, and the same
    shutil.copy(cohort / "train0" / "arterial.nii.gz", cohort / "train1" / "arterial.nii.gz")
    changed = copy_of(whole, tmp_path / "changed", data=TrainingSet(read_manifest(cohort / "cohort.csv")))
    assert changed.other_settings() == ["scans_sha256"]


def test_another_degradation_is_another_training(whole: TrainingRun, tmp_path: Path) -> None:
    data = TrainingSet(whole.data.manifest, find_preset("mild"))
    run = copy_of(whole, tmp_path / "mild", data=data)
    assert run.other_settings() == ["degradation"]
    run.train()
    assert weights_of(run) != weights_of(whole)


def test_fine_tuning_starts_from_weights_and_says_which(
    whole: TrainingRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is learned here, so the weights are those that it began with."""
    start = str(shutil.copytree(whole.weights, tmp_path / "start"))
    run = TrainingRun(fine_tuned("PFNL3D", start), whole.data, tmp_path / "tuned", BUDGET, MACHINE)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, closure: closure())
    run.train()
    assert f"6 steps from {start}" in capsys.readouterr().out
    assert weights_of(run) == weights_of(whole)
    record = load_model(run.weights).training_record
    assert record is not None
    assert record.started_from == load_model(whole.weights).training_record
    assert run.finished
    other = mpfnl.PFNL3D.from_pretrained(start)
    torch.nn.init.ones_(other.network.first.weight)
    other.save_pretrained(start)
    assert not TrainingRun(run.candidate, whole.data, run.folder, BUDGET, MACHINE).finished


def test_a_damaged_checkpoint_is_named(
    whole: TrainingRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = TrainingRun(TINY, whole.data, tmp_path, BUDGET, MACHINE)
    with monkeypatch.context() as patched:
        count_steps(patched, at=2)
        with pytest.raises(KeyboardInterrupt):
            run.train()
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-2000])
    with pytest.raises(DamagedError, match=r"last\.ckpt"):
        run.train()


def test_what_diverges_is_an_error_and_leaves_no_weights(data: TrainingSet, tmp_path: Path) -> None:
    wild = Candidate("wild", TINY.make, LearningRate(1e30))
    run = TrainingRun(wild, data, tmp_path, BUDGET, MACHINE)
    with pytest.raises(InputError, match="wild: "):
        run.train()
    assert not run.weights.exists()
    assert not list(tmp_path.rglob("*.ckpt"))  # no checkpoint of it either


@pytest.mark.parametrize("model", [mpfnl.RCAN3D, mpfnl.PFNL3D])
@pytest.mark.parametrize("phases", [1, 3])
def test_candidates_are_the_papers_networks_unless_small(model: type[EnhancementModule], phases: int) -> None:
    paper = new_candidate(model.__name__, phases).model(steps=10)
    small = new_candidate(model.__name__, phases, small=True).model(steps=10)
    assert paper.config == model(phases=phases).config
    assert paper.name == small.name == model.__name__
    assert len(paper.phases) == len(small.phases) == phases
    assert paper.configure_optimizers().defaults["lr"] == 1e-3  # type: ignore[union-attr]  # the paper's
    assert parameters(small.network) < parameters(paper.network) / 5


def test_a_candidate_can_be_any_registered_network(
    data: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))  # ends with this test

    @register_network("mean-of-phases")
    class Mean(nn.Module):
        def __init__(self, start: float = 1.0) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(start))

        def forward(self, phases: torch.Tensor) -> torch.Tensor:
            return self.factor * phases.mean(dim=1, keepdim=True)

    candidate = new_candidate("mean-of-phases", [Phase.ARTERIAL, Phase.PORTAL_VENOUS], options={"start": 0.5})
    run = TrainingRun(candidate, data, tmp_path, replace(BUDGET, epochs=1), MACHINE)
    run.train()
    trained = load_model(run.weights)
    assert trained.config["start"] == 0.5
    assert trained.network.factor.item() != 0.5
    with pytest.raises(OptionError, match="mean-of-phases"):
        new_candidate("mean-of-phases", 1, small=True)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@settings(deadline=None, max_examples=60)
@given(steps=st.integers(1, 60), warm_up=st.sampled_from([0.1, 0.2, 0.5]))
def test_a_one_cycle_rate_runs_over_any_number_of_steps(steps: int, warm_up: float) -> None:
    rate = LearningRate(1e-2, warm_up)
    optimizer = rate.optimizer([nn.Parameter(torch.zeros(1))])
    make = rate.schedule(steps)
    assert make is not None
    schedule, rates = make(optimizer), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert min(rates) > 0
    assert max(rates) <= 1e-2 * (1 + 1e-9)
    assert LearningRate().schedule(steps) is None


@given(studies=st.integers(1, 30), patches=st.integers(1, 20), batch=st.integers(1, 20))
def test_steps_are_the_batches_that_a_loader_makes(studies: int, patches: int, batch: int) -> None:
    budget = TrainingBudget(patches_per_study=patches, batch_size=batch)
    samples = list(range(studies * patches))
    loader = DataLoader(samples, batch, drop_last=len(samples) >= batch)  # type: ignore[arg-type]
    assert budget.steps_per_epoch(studies) == len(loader)


@pytest.mark.parametrize(
    ("name", "value"),
    [("epochs", 0), ("patches_per_study", 0), ("batch_size", -1), ("patch_size", 10), ("seed", -1)],
)
def test_a_budget_that_cannot_be_is_refused(name: str, value: int) -> None:
    with pytest.raises(OptionError, match=f"{name} {value}"):
        TrainingBudget(**{name: value})


def test_a_cohort_without_validation_is_refused_before_training(cohort: Path) -> None:
    manifest = read_manifest(cohort)
    for split in (Split.TRAIN, Split.VAL):
        others = tuple(study for study in manifest if study.split is not split)
        with pytest.raises(InputError, match=f"split {split}"):
            TrainingSet(Manifest(cohort, others))
