"""A network from outside of the package: registered in a line, or passed itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from scipy import ndimage
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d, interpolate

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.errors import ConflictError, FormatError, NotFoundError, OptionError
from mpfnl.models import PFNL3D, EnhancementModule
from mpfnl.models.loading import load_model
from mpfnl.networks import register_network
from mpfnl.networks.capabilities import Capabilities
from mpfnl.phases import PHASES
from mpfnl.volumes import read_volume
from mpfnl.window import Window

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*isinstance.treespec, LeafSpec.*",  # inside Lightning
)

LIVER = Window(level=60, width=150)


@register_network("tiny-unet")
class TinyUNet(nn.Module):
    """Two resolutions; the target phase is added to the output."""

    capabilities = Capabilities(halo=3)

    def __init__(self, phases: int, target: int, width: int = 4) -> None:
        super().__init__()
        self.target = target
        self.fine = nn.Conv3d(phases, width, 3, padding=1)
        self.coarse = nn.Conv3d(width, width, 3, padding=1)
        self.last = nn.Conv3d(2 * width, 1, 3, padding=1)

    def forward(self, phases: Tensor) -> Tensor:
        fine = self.fine(phases).relu()
        coarse = self.coarse(avg_pool3d(fine, 2, ceil_mode=True)).relu()
        features = torch.cat([fine, interpolate(coarse, size=fine.shape[2:])], dim=1)
        enhanced: Tensor = phases[:, self.target : self.target + 1] + 0.1 * self.last(features)
        return enhanced


class Unregistered(TinyUNet):
    """The same network under no name."""


def small_data(cohort: Path, **options: object) -> MultiphaseDataModule:
    small: dict[str, object] = {"batch_size": 2, "patch_size": 16, "patches_per_study": 1, "workers": 0}
    return MultiphaseDataModule(cohort, **(small | options))  # type: ignore[arg-type]


def fit(model: EnhancementModule, data: MultiphaseDataModule, folder: Path) -> Trainer:
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, data)
    return trainer


def weights(model: EnhancementModule) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.network.parameters()])


def scans(cohort: Path) -> dict[str, str | Path]:
    return {str(phase): cohort.parent / "test0" / f"{phase}.nii.gz" for phase in PHASES}


def test_a_registered_network_trains_saves_loads_and_enhances(cohort: Path, tmp_path: Path) -> None:
    model = EnhancementModule("tiny-unet", options={"width": 6})
    before = weights(model)
    trainer = fit(model, small_data(cohort), tmp_path)
    assert not torch.equal(weights(model), before)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    folder = model.save_pretrained(tmp_path / "weights")
    stored = json.loads((folder / "config.json").read_text())
    assert (stored["model"], stored["arguments"]["width"]) == ("tiny-unet", 6)
    assert "tiny-unet" in (folder / "README.md").read_text()
    again = EnhancementModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    for loaded in (load_model(folder), load_model(tmp_path / "last.ckpt"), again):
        assert type(loaded) is EnhancementModule
        assert (loaded.name, loaded.config) == ("tiny-unet", model.config)
        assert torch.equal(weights(loaded), weights(model))
    loaded = load_model(folder)
    assert loaded.training_record == model.training_record
    assert loaded.source is not None
    assert (loaded.source.name, loaded.source.sha256) == (str(folder), stored["weights_sha256"])
    enhanced = loaded.enhance(scans(cohort), tmp_path / "enhanced.nii.gz")  # type: ignore[arg-type]
    assert enhanced.data.shape == read_volume(tmp_path / "enhanced.nii.gz").data.shape


def test_a_network_that_is_not_registered_is_passed_again(cohort: Path, tmp_path: Path) -> None:
    model = EnhancementModule(Unregistered(3, 2))
    trainer = fit(model, small_data(cohort), tmp_path)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    folder = model.save_pretrained(tmp_path / "weights")
    for path in (folder, tmp_path / "last.ckpt"):
        with pytest.raises(NotFoundError, match=r"Unregistered.*@register_network") as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
        loaded = load_model(path, network=Unregistered(3, 2))
        assert torch.equal(weights(loaded), weights(model))
    with pytest.raises(ConflictError, match=r"model\.safetensors"):
        EnhancementModule.from_pretrained(folder, network=Unregistered(3, 2, width=5))
    enhanced = loaded.enhance(scans(cohort))  # type: ignore[arg-type]
    assert np.isfinite(enhanced.data).all()


def test_what_a_network_cannot_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="phase_dropout"):
        EnhancementModule("tiny-unet", phase_dropout=0.2)
    with pytest.raises(OptionError, match="depth"):
        EnhancementModule("tiny-unet", options={"depth": 3})
    with pytest.raises(OptionError, match="activation_checkpointing"):
        EnhancementModule("tiny-unet", activation_checkpointing=True)
    with pytest.raises(OptionError, match="Unregistered"):
        EnhancementModule(Unregistered(3, 2), options={"width": 3})
    with pytest.raises(NotFoundError, match="no-such-net"):
        EnhancementModule("no-such-net")
    folder = EnhancementModule("tiny-unet").save_pretrained(tmp_path / "weights")
    with pytest.raises(ConflictError, match="PFNL3D"):
        PFNL3D.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["arguments"]["width"] = "wide"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match="tiny-unet"):
        load_model(folder)


@pytest.mark.parametrize("network", ["PFNL3D", "RCAN3D", "tiny-unet"])
def test_a_liver_window_trains_saves_and_loads(network: str, cohort: Path, tmp_path: Path) -> None:
    options = {
        "PFNL3D": {"features": 4, "blocks": 1},
        "RCAN3D": {"channels": 8, "groups": 1, "blocks": 1},
        "tiny-unet": {},
    }[network]
    model = EnhancementModule(network, options=options, window=LIVER)
    with pytest.raises(ConflictError, match=r"150.*450"):
        fit(model, small_data(cohort), tmp_path)
    trainer = fit(model, small_data(cohort, window=LIVER), tmp_path)
    assert model.training_record is not None
    assert model.training_record.window == LIVER
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    folder = model.save_pretrained(tmp_path / "weights")
    assert json.loads((folder / "config.json").read_text())["window_hu"] == {"level": 60, "width": 150}
    assert "[-15, 135] HU" in (folder / "README.md").read_text()
    again = EnhancementModule.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    for loaded in (load_model(folder), load_model(tmp_path / "last.ckpt"), again):
        assert loaded.window == LIVER
        assert loaded.hparams["window"] == {"level": 60, "width": 150}
    enhanced = load_model(folder).enhance(scans(cohort))  # type: ignore[arg-type]
    scan = read_volume(scans(cohort)["portal_venous"])
    for outside in (scan.data > 400, scan.data < -500):  # bone and air, without the voxels at their border
        interior = ndimage.binary_erosion(outside, np.ones((3, 3, 3)))
        assert interior.sum() > 50
        np.testing.assert_array_equal(enhanced.data[interior], scan.data[interior])
