"""Degradation within the data module: where it runs, what phases share, whole cross-sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchio as tio
from lightning.pytorch import LightningModule, Trainer

from mpfnl.data.datamodule import DegradeOn, MultiphaseDataModule
from mpfnl.data.degradation import SampleSettings, degrade_study
from mpfnl.data.manifest import read_manifest
from mpfnl.data.studies import load_study
from mpfnl.errors import InputError, OptionError
from mpfnl.phases import PHASES, Phase
from mpfnl.samples import StudyBatch
from mpfnl.transforms import RandomDegradation, RandomRotation90
from mpfnl.transforms.degradation import SECOND_ORDER_V1, find_preset
from mpfnl.transforms.seeds import Sharing

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")


def module(cohort: Path, **options: Any) -> MultiphaseDataModule:
    settings = {"batch_size": 4, "patch_size": 12, "patches_per_study": 4, "workers": 0, "seed": 5}
    return MultiphaseDataModule(cohort, **(settings | options))


def batches(data: MultiphaseDataModule, epoch: int = 1) -> list[dict[str, Any]]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    return [data.on_after_batch_transfer(batch, 0) for batch in (*loader, *data.val_dataloader())]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"augmentation": None, "phases": 1},
        {"augmentation": RandomRotation90(axes=(0, 1, 2)), "target": Phase.ARTERIAL},
        {"degradation": None},
        {"degradation": "thick-slices", "sharing": "acquisition"},
        {"degradation": "motion", "patch_size": 34},
    ],
)
def test_a_batch_degraded_on_the_device_is_the_one_that_workers_make(
    cohort: Path, options: dict[str, Any]
) -> None:
    expected = batches(module(cohort, **options))
    found = batches(module(cohort, degrade_on="device", **options))
    assert len(found) == len(expected) > 2
    for one, other in zip(expected, found, strict=True):
        assert one.keys() == other.keys()
        assert list(one["study_id"]) == list(other["study_id"])
        for name in ("phases", "target"):
            torch.testing.assert_close(other[name], one[name], rtol=0, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_so_it_is_on_a_gpu(cohort: Path) -> None:
    expected, data = batches(module(cohort)), module(cohort, degrade_on="device")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
    for raw, one in zip(loader, expected, strict=False):
        moved = {name: each.cuda() if isinstance(each, torch.Tensor) else each for name, each in raw.items()}
        found = data.on_after_batch_transfer(moved, 0)
        assert found["phases"].is_cuda
        torch.testing.assert_close(found["phases"].cpu(), one["phases"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("32-true", torch.float32), ("bf16-true", torch.bfloat16), ("64-true", torch.float64)],
)
def test_a_trainer_gets_it_in_its_own_precision(cohort: Path, precision: Any, dtype: torch.dtype) -> None:
    seen: list[torch.dtype] = []

    class Network(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv3d(3, 1, 1)

        def training_step(self, batch: StudyBatch, batch_idx: int) -> torch.Tensor:
            seen.extend((batch["phases"].dtype, batch["target"].dtype))
            return torch.nn.functional.mse_loss(self.layer(batch["phases"]), batch["target"])

        def validation_step(self, batch: StudyBatch, batch_idx: int) -> None:
            seen.append(self.layer(batch["phases"]).dtype)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = Trainer(
        fast_dev_run=2, precision=precision, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.fit(Network(), module(cohort, degrade_on="device"))
    assert len(seen) > 4
    assert set(seen) == {dtype}


def test_a_negative_seed_is_refused_at_once(cohort: Path) -> None:
    with pytest.raises(InputError, match="seed is -1"):
        module(cohort, seed=-1)


def test_the_margin_follows_the_preset(cohort: Path) -> None:
    for preset, margin in ((None, 4), ("paper", 4), ("motion", 8)):
        assert module(cohort, degradation=preset).train_sampling.margin == margin


def test_what_cannot_be_done_on_the_device_is_refused(cohort: Path) -> None:
    with pytest.raises(OptionError, match=r"low-dose-v1 .*degrade_on=workers"):
        module(cohort, degradation="low-dose", degrade_on=DegradeOn.DEVICE)
    with pytest.raises(OptionError, match="RandomFlip"):
        module(cohort, augmentation=tio.RandomFlip(), degrade_on=DegradeOn.DEVICE)
    with pytest.raises(ValueError, match="gpu"):
        module(cohort, degrade_on="gpu")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("preset", ["low-dose", "metal"])
def test_whole_cross_sections_for_any_number_of_workers(cohort: Path, preset: str, workers: int) -> None:
    alone = batches(module(cohort, degradation=preset))
    shared = batches(module(cohort, degradation=preset, workers=workers))
    for one, other in zip(alone, shared, strict=True):
        assert torch.equal(one["phases"], other["phases"])
        assert one["phases"].shape[2:] == (12, 12, 12)


def test_the_patch_of_a_slab_is_the_place_of_its_target(cohort: Path) -> None:
    untouched = module(cohort, degradation=None, augmentation=None)
    noisy = module(cohort, degradation="low-dose", augmentation=None)
    for clean, low in zip(batches(untouched), batches(noisy), strict=True):
        assert torch.equal(clean["target"], low["target"])
        change = low["phases"] - clean["phases"]
        assert 0 < change.abs().mean() < 0.3
        assert change.mean().abs() < 0.03


def test_phases_draw_apart_unless_they_share_the_acquisition(cohort: Path) -> None:
    def numbers(sharing: Sharing) -> dict[Phase, list[dict[str, Any]]]:
        settings = SampleSettings(PHASES, Phase.PORTAL_VENOUS, SECOND_ORDER_V1, seed=4, sharing=sharing)
        return {
            phase: record.to_json()["operations"] for phase, record in settings.parameters("a", 2, 7).items()
        }

    apart = numbers(Sharing.NOTHING)
    assert len({str(operations) for operations in apart.values()}) == 3
    together = numbers(Sharing.ACQUISITION)
    seeds = {phase: [each.get("seed") for each in operations] for phase, operations in together.items()}
    protocol = [
        [{name: value for name, value in each.items() if name != "seed"} for each in operations]
        for operations in together.values()
    ]
    assert protocol[0] == protocol[1] == protocol[2]
    assert len({str(seed) for seed in seeds.values()}) == 3


def test_motion_is_never_shared_and_implants_are(cohort: Path) -> None:
    def records(preset: str) -> list[Any]:
        settings = SampleSettings(
            PHASES, Phase.PORTAL_VENOUS, find_preset(preset), sharing=Sharing.ACQUISITION
        )
        return [record.to_json()["operations"] for record in settings.parameters("a").values()]

    noncontrast, arterial, portal = records("motion")
    assert noncontrast != arterial != portal
    noncontrast, arterial, portal = ([each["implants"] for each in record] for record in records("metal"))
    assert noncontrast == arterial == portal


def test_torchio_and_the_module_degrade_a_study_alike(cohort: Path) -> None:
    study = read_manifest(cohort).split("test").studies[0]
    settings = SampleSettings(PHASES, Phase.PORTAL_VENOUS, SECOND_ORDER_V1, seed=9)
    expected = degrade_study(load_study(study, settings.loaded), settings)
    subject = tio.Subject(
        {str(phase): tio.ScalarImage(study.file(phase)) for phase in PHASES} | {"study_id": study.study_id}
    )
    found = RandomDegradation(preset="paper", seed=9)(subject)
    for phase in PHASES:
        difference = tio.ToCanonical()(found[str(phase)]).data[0].numpy() - expected[phase]
        assert np.abs(difference).max() <= 0.5 + 1e-3  # a file holds whole numbers
