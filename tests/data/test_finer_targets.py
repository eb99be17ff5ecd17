"""Training with `scale`: phases on a coarser grid than their target, wherever samples are made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from skimage.transform import downscale_local_mean

import mpfnl
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.degradation import SampleSettings, block_mean, degrade_study
from mpfnl.data.manifest import read_manifest
from mpfnl.data.prediction_writer import PredictionWriter
from mpfnl.data.studies import load_study
from mpfnl.errors import InputError
from mpfnl.models import EnhancementModule
from mpfnl.models.montage import MontageCallback
from mpfnl.phases import PHASES, Phase
from mpfnl.transforms import find_preset
from mpfnl.volumes import read_volume
from mpfnl.window import ABDOMEN

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")
PV = Phase.PORTAL_VENOUS


def module(cohort: Path, scale: int = 2, **options: object) -> MultiphaseDataModule:
    settings: dict[str, object] = {"batch_size": 2, "patch_size": 8, "patches_per_study": 2}
    settings |= {"workers": 0, "seed": 5, "scale": scale, "val_patches_per_study": 2}
    return MultiphaseDataModule(cohort, **(settings | options))  # type: ignore[arg-type]


def first(data: MultiphaseDataModule) -> dict[str, torch.Tensor]:
    batch: dict[str, torch.Tensor] = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    return batch


@pytest.mark.parametrize("scale", [2, 4])
def test_undegraded_phases_are_the_mean_of_the_target(cohort: Path, scale: int) -> None:
    """Against scikit-image, where no voxel of a cube is cut off by the window."""
    data = module(cohort, scale, phases=1, degradation=None, augmentation=None)
    batch = first(data)
    assert batch["phases"].shape == (2, 1, 8, 8, 8)
    assert batch["target"].shape == (2, 1, *3 * [8 * scale])
    fine, cubes = batch["target"][:, 0].numpy(), (1, scale, scale, scale)
    inside = downscale_local_mean(((fine > 0) & (fine < 1)).astype(float), cubes) == 1
    assert inside.mean() > 0.2
    np.testing.assert_allclose(
        batch["phases"][:, 0].numpy()[inside], downscale_local_mean(fine, cubes)[inside], atol=1e-5
    )


@pytest.mark.parametrize("shape", [(9, 8, 11), (2, 3, 9, 8, 11)])
def test_voxels_that_fill_no_cube_are_left_out(shape: tuple[int, ...]) -> None:
    hu = torch.randn(shape)
    whole = hu[..., :8, :8, :8].numpy()
    expected = downscale_local_mean(whole, (*[1] * (len(shape) - 3), 4, 4, 4))
    np.testing.assert_allclose(block_mean(hu, 4).numpy(), expected, atol=1e-6)
    assert block_mean(hu, 1) is hu


def test_a_scale_of_one_changes_nothing(cohort: Path) -> None:
    settings: dict[str, object] = {"batch_size": 2, "patch_size": 16, "patches_per_study": 2}
    plain = MultiphaseDataModule(cohort, **settings, workers=0, seed=5)  # type: ignore[arg-type]
    fine, same = first(module(cohort, 2)), first(plain)
    assert torch.equal(fine["target"], same["target"])  # the same places
    np.testing.assert_allclose(  # degraded in the same way; the window comes after the mean
        fine["phases"].mean(), same["phases"].mean(), atol=0.02
    )
    assert first(module(cohort, 1, patch_size=16))["phases"].equal(same["phases"])


def test_samples_made_on_the_device_are_those_of_workers(cohort: Path) -> None:
    by_workers, on_device = (first(module(cohort, degrade_on=place)) for place in ("workers", "device"))
    for name in ("phases", "target"):
        torch.testing.assert_close(by_workers[name], on_device[name], atol=2e-3, rtol=0)


def test_whole_volumes_end_with_the_last_whole_voxel(cohort: Path) -> None:
    sample = module(cohort, 4).test_dataloader().dataset[0]
    assert sample["phases"].shape == (3, 10, 9, 7)
    assert sample["target"].shape == (1, 40, 36, 28)
    clean = read_volume(read_manifest(cohort).split("test").studies[0].file(PV)).canonical().data
    expected = ABDOMEN.normalize(torch.as_tensor(clean[:, :, :28]).float())
    assert torch.equal(sample["target"][0], expected)


@pytest.mark.parametrize(
    ("model", "sizes", "scale"),
    [
        (mpfnl.PFNL3D, {"features": 8, "blocks": 1}, 2),
        (mpfnl.RCAN3D, {"channels": 8, "groups": 1, "blocks": 1}, 4),
    ],
)
def test_a_model_is_trained_tested_and_predicts_files(
    cohort: Path, tmp_path: Path, model: type[EnhancementModule], sizes: dict[str, int], scale: int
) -> None:
    torch.manual_seed(0)
    network = model(phases=3, scale=scale, **sizes)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[MontageCallback(), PredictionWriter()],
    )
    data = module(cohort, scale)
    trainer.fit(network, data)
    assert network.training_record.patch_size == 8
    assert network.training_record.steps == 4
    assert list(tmp_path.glob("montages/*.png"))
    (scores,) = trainer.test(network, data, verbose=False)
    assert 5 < scores["test_psnr"] < 60
    trainer.predict(network, data, return_predictions=False)
    study = read_manifest(cohort).split("test").studies[0]
    clean, made = read_volume(study.file(PV)), read_volume(tmp_path / "predictions" / "test0.nii.gz")
    assert made.shape == tuple(side - side % scale for side in clean.shape)
    np.testing.assert_allclose(made.affine, clean.affine)
    settings = SampleSettings(PHASES, PV, find_preset("paper"), seed=5, scale=scale)
    seen = degrade_study(load_study(study, settings.loaded), settings)[PV]
    assert seen.shape == tuple(side // scale for side in clean.shape)
    bone = np.s_[18:22, 27:30, 10:14]  # far out of the window
    assert clean.data[bone].min() > 400
    around = np.kron(seen, np.ones([scale] * 3))[bone]
    assert np.abs(made.data[bone] - around).max() < 400  # the input there, not the window's end


def test_a_model_of_another_scale_is_refused(cohort: Path) -> None:
    model = mpfnl.RCAN3D(phases=3, channels=8, groups=1, blocks=1, scale=2)
    trainer = Trainer(accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False)
    with pytest.raises(InputError, match=r"has scale 2, .* targets of scale 1; make it with scale=2"):
        trainer.fit(model, module(cohort, 1))
    with pytest.raises(InputError, match="scale is 0"):
        module(cohort, 0)


def test_the_command_links_the_scale(cohort: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("mpfnl")), "fit", "--model", "RCAN3D"]
    command += ["--model.phases=3", "--model.scale=2", "--model.channels=8", "--model.groups=1"]
    command += ["--model.blocks=1", f"--data.manifest={cohort}", "--data.patch_size=8"]
    command += ["--data.patches_per_study=2", "--data.workers=0", "--trainer.max_epochs=1"]
    command += ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.rglob("*.ckpt"))
