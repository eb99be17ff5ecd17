"""A degradation from outside the package goes wherever those of the package do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torchio as tio
from torch import Tensor

from mpfnl.cli import main
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.degradation import SampleSettings
from mpfnl.errors import ConflictError, FormatError, OptionError
from mpfnl.phases import PHASES, Phase
from mpfnl.transforms import (
    Degradation,
    Preset,
    RandomDegradation,
    apply_parameters,
    find_preset,
    sample_parameters,
)
from mpfnl.transforms.degradation import Stage, apply_batch, newest_presets, register_preset
from mpfnl.transforms.degradation.clip import Clip
from mpfnl.transforms.degradation.low_dose import LowDose
from mpfnl.transforms.degradation.stage import Range, uniform
from mpfnl.transforms.seeds import Draws
from mpfnl.window import Window

SPACING = (0.8, 0.8, 2.5)


@dataclass(frozen=True)
class Shading(Degradation):
    """HU that fall towards the middle of each slice, as beam hardening leaves them in a wide body.

    Args:
        depth_hu: Depth in the middle of the slice in HU.
        power: Power of the distance from the middle.
    """

    kind = "shading"
    whole_slices = True
    depth_hu: float
    power: float = 2.0

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        x, y = (torch.linspace(-1, 1, size, device=hu.device) for size in hu.shape[:2])
        distance = (x[:, None].square() + y.square()).div(2).sqrt()
        return hu - self.depth_hu * (1 - distance.pow(self.power))[:, :, None]


@dataclass(frozen=True)
class ShadingStage(Stage):
    """Shading of a drawn depth."""

    degradations = (Shading,)
    depth_hu: Range

    def sample(self, draws: Draws) -> list[Degradation]:
        return [Shading(uniform(self.depth_hu, draws.protocol))]


SHADING = register_preset(
    Preset("shading-v1", 1, stages=(ShadingStage((20.0, 60.0)), LowDose(0.5, 0)), clip_to_window=True),
    short_name="shading",
)


def scan() -> Tensor:
    hu = torch.full((20, 20, 8), -1000.0)
    hu[3:17, 3:17] = 50.0
    return hu


def test_it_is_sampled_recorded_and_replayed() -> None:
    record = sample_parameters(find_preset("shading"), 3)
    assert record["preset"] == "shading-v1"
    assert [each["kind"] for each in record["operations"]] == ["clip", "shading", "low_dose"]
    assert 20 <= record["operations"][1]["depth_hu"] <= 60
    degraded = apply_parameters(scan(), SPACING, record)
    assert torch.equal(apply_parameters(scan(), SPACING, json.loads(json.dumps(record))), degraded)
    assert torch.equal(apply_batch(scan()[None], [SPACING], [record])[0], degraded)
    assert not torch.equal(degraded, scan())


def test_a_preset_takes_its_needs_from_its_stages() -> None:
    assert SHADING.whole_slices
    assert replace(SHADING, stages=(Clip(-100, 100),)).whole_slices is False


def test_a_fixed_degradation_keeps_its_numbers_and_gets_noise_of_each_scan() -> None:
    fixed = Preset("half-dose", 1, (LowDose(0.5, 0),))
    first, second = (fixed.sample(seed).degradations[0] for seed in (1, 2))
    assert isinstance(first, LowDose)
    assert isinstance(second, LowDose)
    assert first.dose_fraction == second.dose_fraction == 0.5
    assert first.seed != second.seed
    assert Preset("clip", 1, (Clip(-100, 100),)).sample(1).degradations == (Clip(-100, 100),)


def test_its_name_is_valid_in_the_data_module(cohort: Path) -> None:
    options = {"batch_size": 2, "patch_size": 12, "patches_per_study": 2, "workers": 0, "seed": 5}
    data = MultiphaseDataModule(cohort, degradation="shading", **options)  # type: ignore[arg-type]
    clean = MultiphaseDataModule(cohort, degradation=None, **options)  # type: ignore[arg-type]
    one, other = (next(iter(module.train_dataloader())) for module in (data, clean))
    assert not torch.equal(one["phases"], other["phases"])
    assert torch.equal(one["target"], other["target"])


def test_it_is_a_torchio_transform() -> None:
    subject = tio.Subject(
        arterial=tio.ScalarImage(tensor=scan()[None]), organs=tio.LabelMap(tensor=torch.ones(1, 20, 20, 8))
    )
    degraded = RandomDegradation("shading", seed=1)(subject)
    assert torch.equal(degraded["organs"].data, subject["organs"].data)
    replayed = degraded.get_composed_history()(subject)
    assert torch.equal(replayed["arterial"].data, degraded["arterial"].data)


def test_it_is_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output, record = (tmp_path / name for name in ("scan.nii.gz", "low.nii.gz", "record.json"))
    nib.save(nib.Nifti1Image(scan().numpy().astype(np.int16), np.diag([-1.5, -1.5, 2.5, 1])), source)
    words = ["degrade", str(source), "-o", str(output)]
    assert main([*words, "--preset", "shading", "--seed", "4", "--record", str(record)]) == 0
    assert "shading" in capsys.readouterr().out
    first = output.read_bytes()
    assert main([*words, "--replay", str(record)]) == 0
    assert output.read_bytes() == first
    with pytest.raises(SystemExit):
        main(["degrade", "--help"])
    assert "shading" in capsys.readouterr().out


def test_a_name_stands_for_one_thing() -> None:
    assert register_preset(SHADING, short_name="shading") is SHADING
    with pytest.raises(ConflictError, match="shading-v1"):
        register_preset(replace(SHADING, clip_to_window=False))
    with pytest.raises(ConflictError, match="second-order-v1"):
        register_preset(replace(SHADING, name="second-order-v1"))
    with pytest.raises(ConflictError, match="'blur'"):
        type("Other", (Shading,), {"kind": "blur"})
    later = register_preset(replace(SHADING, name="shading-v2", version=2), short_name="shading")
    assert find_preset("shading") is later
    assert newest_presets()["shading"] is later
    register_preset(SHADING, short_name="shading")


def test_what_is_not_registered_is_refused() -> None:
    with pytest.raises(OptionError, match=r"'sharpening'.*paper"):
        find_preset("sharpening")
    with pytest.raises(FormatError, match=r"'sharpening'.*shading"):
        Degradation.from_json({"kind": "sharpening"})
    with pytest.raises(FormatError, match=r"shading.*depth_hu, power"):
        Degradation.from_json({"kind": "shading", "width": 3})


def test_the_clip_is_that_of_the_window() -> None:
    liver = Window(60, 150)
    clip, *rest = SHADING.sample(1, liver).degradations
    assert clip == Clip(-15, 135)
    assert rest == list(SHADING.sample(1).degradations[1:])
    assert find_preset("paper").sample(1).degradations[0] == Clip(-175, 275)
    assert (SHADING.clip_window(liver), find_preset("motion").clip_window(liver)) == (liver, None)
    settings = SampleSettings(PHASES, Phase.PORTAL_VENOUS, SHADING, liver)
    assert all(record.degradations[0] == clip for record in settings.parameters("study").values())
    subject = tio.Subject(
        arterial=tio.ScalarImage(tensor=torch.linspace(-1000, 1000, 512).reshape(1, 8, 8, 8))
    )
    quiet = Preset("quiet", 1, (Shading(0.0),), clip_to_window=True)
    degraded = RandomDegradation(quiet, window=liver)(subject)["arterial"].data
    assert (float(degraded.min()), float(degraded.max())) == (-15, 135)
