"""What the weights say of their training: as JSON, and filled in by a training."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer, seed_everything

import mpfnl
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.errors import OptionError
from mpfnl.models import TrainingRecord
from mpfnl.models.loading import load_model
from mpfnl.models.provenance import Score
from mpfnl.samples import TrainingSource
from mpfnl.window import Window

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*isinstance.treespec, LeafSpec.*",  # inside Lightning
)

numbers = st.floats(-1e6, 1e6)
counts = st.none() | st.integers(0, 10**9)
texts = st.none() | st.text(max_size=20)
plain = st.builds(
    TrainingRecord,
    data=texts,
    studies=counts,
    phantoms=st.booleans(),
    degradation=texts,
    window=st.builds(Window, numbers, st.floats(1, 4000)),
    patch_size=counts,
    batch_size=counts,
    steps=counts,
    phase_dropout=st.none() | st.floats(0, 0.99),
    seed=counts,
    recipe=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2),
    versions=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=2),
    metrics=st.dictionaries(st.text(max_size=8), st.builds(Score, numbers, st.integers(1, 99), st.text())),
    notes=texts,
)
records = st.recursive(plain, lambda before: st.builds(replace, plain, started_from=before), max_leaves=3)


@given(records)
@settings(deadline=None, max_examples=50)
def test_a_record_survives_json(record: TrainingRecord) -> None:
    assert TrainingRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@given(
    records, st.sampled_from([field.name for field in fields(TrainingRecord)]), st.sampled_from([[], 1.5j])
)
@settings(deadline=None, max_examples=50)
def test_what_is_no_record_is_refused(record: TrainingRecord, name: str, wrong: object) -> None:
    with pytest.raises(ValueError, match="is n"):
        TrainingRecord.from_json(record.to_json() | {name: wrong})
    with pytest.raises(ValueError, match="unheard"):
        TrainingRecord.from_json(record.to_json() | {"unheard": 1})


def test_phantoms_are_not_forgotten_by_a_fine_tuning() -> None:
    first = TrainingRecord(phantoms=True)
    assert TrainingRecord(started_from=replace(TrainingRecord(), started_from=first)).saw_phantoms
    assert not TrainingRecord(started_from=TrainingRecord()).saw_phantoms


def small_data(cohort: Path, **options: object) -> MultiphaseDataModule:
    settings_: dict[str, object] = {"batch_size": 2, "patch_size": 16, "patches_per_study": 2, "workers": 0}
    return MultiphaseDataModule(cohort, **(settings_ | options))  # type: ignore[arg-type]


def trainer(folder: Path, epochs: int, **options: object) -> Trainer:
    quiet: dict[str, object] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=folder, **(quiet | options))  # type: ignore[arg-type]


def test_a_training_fills_it_in(cohort: Path, tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    model = mpfnl.PFNL3D(features=8, blocks=1, phase_dropout=0.25)
    assert (model.training_record, model.patch_size, model.trained_without_phases) == (None, None, False)
    data = small_data(cohort, degradation="severe", seed=7)
    assert isinstance(data, TrainingSource)
    run = trainer(tmp_path, 2, accumulate_grad_batches=2)
    run.fit(model, data)
    record = model.training_record
    assert record is not None
    assert (record.studies, record.phantoms, record.data, record.started_from) == (4, False, None, None)
    assert (record.degradation, record.seed, record.patch_size) == ("second-order-severe-v1", 7, 16)
    assert (record.batch_size, record.steps) == (
        4,
        4,
    )  # 8 patches an epoch, 2 a batch, 2 batches a step
    assert record.window == model.window
    assert (record.phase_dropout, model.patch_size, model.trained_without_phases) == (0.25, 16, True)
    assert record.recipe["optimiser"] == "Adam, learning rate 0.001"
    assert record.recipe["loss"] == "L1SobelLoss"
    assert record.versions["torch"] == str(torch.__version__).split("+")[0]
    psnr = record.metrics["PSNR (dB)"]
    assert (psnr.n, psnr.value) == (4, pytest.approx(float(run.callback_metrics["val_psnr"])))
    assert "16^3" in psnr.on


def test_it_says_nothing_that_it_does_not_know(cohort: Path, tmp_path: Path) -> None:
    """Without the data module, or with a part of the validation alone."""
    data = small_data(cohort)
    data.setup("fit")
    model = mpfnl.PFNL3D(features=8, blocks=1)
    trainer(tmp_path, 1).fit(model, data.train_dataloader(), data.val_dataloader())
    assert model.training_record is not None
    assert model.training_record.steps == 4
    assert (model.training_record.patch_size, model.training_record.metrics) == (None, {})
    model = mpfnl.PFNL3D(features=8, blocks=1)
    trainer(tmp_path, 1, limit_val_batches=1).fit(model, data)
    assert model.training_record is not None
    assert (model.training_record.patch_size, model.training_record.metrics) == (16, {})


def test_phantoms_are_known_by_their_names(cohort: Path, tmp_path: Path) -> None:
    table = cohort.read_text().replace("\ntrain0,", "\nphantom-1-0000,")
    phantoms = cohort.with_name("named.csv")
    try:
        phantoms.write_text(table)
        assert small_data(phantoms).training_data.phantoms
    finally:
        phantoms.unlink()
    assert not small_data(cohort).training_data.phantoms


def test_a_resumed_training_is_one_training(cohort: Path, tmp_path: Path) -> None:
    model = mpfnl.PFNL3D(features=8, blocks=1)
    run = trainer(tmp_path, 1)
    run.fit(model, small_data(cohort))
    run.save_checkpoint(tmp_path / "one.ckpt")
    assert load_model(tmp_path / "one.ckpt").training_record == model.training_record
    resumed = mpfnl.PFNL3D(features=8, blocks=1)
    trainer(tmp_path, 3).fit(resumed, small_data(cohort), ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert resumed.training_record is not None
    assert (resumed.training_record.steps, resumed.training_record.started_from) == (12, None)


def test_a_second_training_keeps_the_first(cohort: Path, tmp_path: Path) -> None:
    first = mpfnl.PFNL3D(features=8, blocks=1)
    trainer(tmp_path, 1).fit(first, small_data(cohort))
    assert first.training_record is not None
    first.training_record = replace(first.training_record, data="scans of one hospital")
    model = mpfnl.PFNL3D.from_pretrained(first.save_pretrained(tmp_path / "weights"))
    assert model.training_record == first.training_record
    run = trainer(tmp_path, 2)
    run.fit(model, small_data(cohort, degradation="motion", patch_size=24))
    record = model.training_record
    assert record is not None
    assert (record.steps, record.patch_size, record.data) == (8, 24, None)
    assert record.started_from == first.training_record
    run.fit_loop.max_epochs = 3  # the same trainer goes on: its counter does, too, but not the record's
    run.fit(model, small_data(cohort))
    assert model.training_record is not None
    assert (model.training_record.steps, model.training_record.started_from) == (4, record)


def test_fine_tuning_undescribed_weights_says_that_there_were_some(cohort: Path, tmp_path: Path) -> None:
    folder = mpfnl.PFNL3D(features=8, blocks=1).save_pretrained(tmp_path / "weights")
    model = mpfnl.PFNL3D.from_pretrained(folder)
    trainer(tmp_path, 1).fit(model, small_data(cohort))
    assert model.training_record is not None
    assert model.training_record.started_from == TrainingRecord()


def test_phase_dropout_goes_on_unless_told(tmp_path: Path) -> None:
    model = mpfnl.PFNL3D(features=8, blocks=1)
    model.training_record = TrainingRecord(phase_dropout=0.3)
    folder = model.save_pretrained(tmp_path / "weights")
    assert mpfnl.PFNL3D.from_pretrained(folder).phase_dropout == 0.3
    assert mpfnl.PFNL3D.from_pretrained(folder, phase_dropout=0).phase_dropout == 0
    single = mpfnl.RCAN3D(channels=8, groups=1, blocks=1).save_pretrained(tmp_path / "single")
    with pytest.raises(OptionError, match="phase_dropout"):
        mpfnl.RCAN3D.from_pretrained(single, phase_dropout=0.3)
