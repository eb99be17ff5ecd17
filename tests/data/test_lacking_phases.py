"""Studies that lack a phase: it covers nothing in a batch, and the others give the result."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

import mpfnl
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import Manifest, Split, Study, write_manifest
from mpfnl.data.prediction_writer import PredictionWriter
from mpfnl.errors import NotFoundError
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import read_volume
from mpfnl.window import UNCOVERED_HU

NC, ART, PV = PHASES
SHAPE = (20, 18, 16)
LACKING: dict[str, tuple[Split, Sequence[Phase]]] = {
    "whole": (Split.TRAIN, ()),
    "no-nc": (Split.TRAIN, (NC,)),
    "no-art": (Split.VAL, (ART,)),
    "alone": (Split.TEST, (NC, ART)),
}

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")


@pytest.fixture(scope="module", params=[".nii", ".nii.gz"])
def cohort(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A study for each entry of `LACKING`."""
    folder = tmp_path_factory.mktemp("cohort")
    studies = []
    for number, (name, (split, lacking)) in enumerate(LACKING.items()):
        scans = {}
        for phase in PHASES:
            if phase not in lacking:
                noise = np.random.default_rng([number, PHASES.index(phase)]).normal(60, 60, SHAPE)
                scans[phase] = folder / f"{name}_{phase}{request.param}"
                nib.save(nib.Nifti1Image(noise.astype(np.int16), np.diag([2.0, 2.0, 3.0, 1.0])), scans[phase])
        studies.append(Study(name, name, split, scans))
    return write_manifest(folder / "cohort.csv", studies)


def make_data(cohort: Manifest, **options: object) -> MultiphaseDataModule:
    sizes: dict[str, object] = {"batch_size": 4, "patch_size": 16, "patches_per_study": 2, "workers": 0}
    return MultiphaseDataModule(cohort.path, **(sizes | options))  # type: ignore[arg-type]


def make_model(name: str) -> EnhancementModule:
    torch.manual_seed(1)
    if name == "PFNL3D":
        model: EnhancementModule = mpfnl.PFNL3D(features=4, blocks=1, phase_dropout=0.3)
    else:
        masks = name == "RCAN3D with masks"
        model = mpfnl.RCAN3D(phases=3, channels=4, groups=1, blocks=1, reduction=2, presence=masks)
    with torch.no_grad():  # a last convolution of zeros would hide the rest
        for parameter in model.network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.05)
    return model


MODELS = ["PFNL3D", "RCAN3D", "RCAN3D with masks"]


@pytest.mark.parametrize("degrade_on", ["workers", "device"])
def test_a_batch_is_nan_where_a_phase_is_lacking(cohort: Manifest, degrade_on: str) -> None:
    data = make_data(cohort, degrade_on=degrade_on)
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert sorted(set(batch["study_id"])) == ["no-nc", "whole"]
    for phases, study_id in zip(batch["phases"], batch["study_id"], strict=True):
        lacking = LACKING[study_id][1]
        for phase, scan in zip(PHASES, phases, strict=True):
            assert bool(scan.isnan().all()) is bool(scan.isnan().any()) is (phase in lacking)


def test_setup_counts_them_in_one_line(cohort: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        make_data(cohort).setup("fit")
    assert [record.getMessage() for record in caplog.records] == [
        "cohort.csv: of 3 studies, 1 without the non-contrast phase and 1 without the arterial phase"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        make_data(cohort).setup("predict")
        make_data(cohort, phases=1).setup("fit")  # the target alone
    assert len(caplog.records) == 1


def test_a_phase_that_no_training_study_has_is_refused(cohort: Manifest, tmp_path: Path) -> None:
    studies = [study for study in cohort if study.study_id != "whole"]
    path = write_manifest(tmp_path / "cohort.csv", studies).path
    with pytest.raises(NotFoundError, match="noncontrast"):
        make_data(Manifest(path, ())).setup("fit")
    with pytest.raises(NotFoundError, match="arterial"):  # the target
        make_data(cohort, phases=["arterial"], target="arterial").setup("test")


def test_subjects_have_every_input_phase(cohort: Manifest) -> None:
    (subject,) = make_data(cohort).subjects("test")
    assert subject["arterial"].shape == (1, *SHAPE)
    assert (subject["arterial"].data == UNCOVERED_HU).all()
    assert not (subject["portal_venous"].data == UNCOVERED_HU).any()


@pytest.mark.parametrize("name", MODELS)
def test_a_sample_of_a_mixed_batch_is_enhanced_as_without_the_phase(cohort: Manifest, name: str) -> None:
    model = make_model(name).eval()
    batch = next(iter(make_data(cohort).train_dataloader()))
    with torch.no_grad():
        enhanced = model(batch["phases"])
        for index, study_id in enumerate(batch["study_id"]):
            phases = batch["phases"][index : index + 1]
            places = [place for place, phase in enumerate(PHASES) if phase not in LACKING[study_id][1]]
            if len(model.optional_phases) == 0:  # the target's values stand in
                expected = model(torch.where(phases.isnan(), phases[:, 2:], phases))
            else:
                expected = model(phases[:, places], places)
            torch.testing.assert_close(enhanced[index : index + 1], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_training_testing_and_predicting(cohort: Manifest, name: str, tmp_path: Path) -> None:
    model, data = make_model(name), make_data(cohort, degradation=None)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        accelerator="cpu", max_epochs=2, default_root_dir=tmp_path, callbacks=[PredictionWriter()],
        enable_checkpointing=False, **quiet,
    )  # fmt: skip
    trainer.fit(model, data)
    assert np.isfinite(float(trainer.callback_metrics["val_psnr"]))
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    (scores,) = trainer.test(model, data, verbose=False)
    assert all(np.isfinite(value) for value in scores.values())
    trainer.predict(model, data)
    written = read_volume(tmp_path / "predictions" / "alone.nii.gz").data
    study = cohort.split(Split.TEST).studies[0]
    if model.optional_phases:
        alone = model.enhance(study.scans, precision=torch.float32).data
    else:
        stand_in = replace(study, scans=dict.fromkeys(PHASES, study.file(PV)))
        alone = model.enhance(stand_in.scans, precision=torch.float32).data
    assert np.abs(written.astype(int) - alone).max() <= 1
