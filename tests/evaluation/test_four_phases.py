"""A delayed phase beside the three, from the raw scans to the evaluation."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from raw_studies import body, raw_study, write_scan

import mpfnl
from mpfnl.cli.main import main
from mpfnl.data.manifest import Study, read_manifest, write_manifest
from mpfnl.errors import InputError
from mpfnl.evaluation.cases import read_cases
from mpfnl.phases import PHASES, Phase
from mpfnl.prepare import PrepareSettings, prepare_cohort
from mpfnl.volumes import read_volume

FOUR = tuple(Phase)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*isinstance.treespec, LeafSpec.*",
    "ignore:.*does not have many workers",
    "ignore:The number of training",
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of four phases that does something with each."""
    torch.manual_seed(0)
    model = mpfnl.PFNL3D(phases=4, features=4, blocks=1)
    torch.nn.init.normal_(model.network.reconstruct[0].weight, std=0.05)
    return model.save_pretrained(tmp_path_factory.mktemp("weights") / "four")


def without_delayed(study: Study) -> Study:
    return replace(study, scans={phase: study.file(phase) for phase in PHASES})


def patches(manifest: Path, **settings: object) -> mpfnl.MultiphaseDataModule:
    small = {"batch_size": 1, "patch_size": 16, "patches_per_study": 2, "workers": 0}
    return mpfnl.MultiphaseDataModule(manifest, **(small | settings))  # type: ignore[arg-type]


def test_a_manifest_with_it_comes_back_and_is_optional_for_a_study(four_phases: Path, tmp_path: Path) -> None:
    first, second, third = read_manifest(four_phases)
    assert first.phases == FOUR
    mixed = write_manifest(tmp_path / "mixed.csv", [first, without_delayed(second), third])
    read = read_manifest(mixed.path)
    assert [study.phases for study in read] == [FOUR, PHASES, FOUR]
    assert read_volume(next(iter(read)).file(Phase.DELAYED)).shape == (40, 36, 30)
    without = write_manifest(tmp_path / "none.csv", [without_delayed(study) for study in read])
    assert "delayed" not in without.path.read_text().splitlines()[0]


def test_a_delayed_scan_that_is_not_there_is_named(four_phases: Path, tmp_path: Path) -> None:
    lost = {Phase.DELAYED: tmp_path / "lost.nii.gz"}
    studies = [replace(study, scans={**study.scans, **lost}) for study in read_manifest(four_phases)]
    path = write_manifest(tmp_path / "lost.csv", studies).path
    with pytest.raises(InputError, match=r"'train0', delayed phase: there is no file .*lost.nii.gz"):
        read_manifest(path)


def test_the_other_phases_are_degraded_as_without_it(four_phases: Path) -> None:
    three, all_four = patches(four_phases, phases=3), patches(four_phases, phases=4)
    for data in (three, all_four):
        data.setup("fit")
    before, after = next(iter(three.train_dataloader())), next(iter(all_four.train_dataloader()))
    assert after["phases"].shape == (1, 4, 16, 16, 16)
    torch.testing.assert_close(after["phases"][:, :3], before["phases"])
    torch.testing.assert_close(after["target"], before["target"])
    assert (after["phases"][:, 3] - after["phases"][:, 2]).abs().mean() > 0.01


@pytest.mark.parametrize("target", ["portal_venous", "delayed"])
def test_training_on_four(four_phases: Path, tmp_path: Path, target: str) -> None:
    model = mpfnl.PFNL3D(phases=4, target=target, features=4, blocks=1, phase_dropout=0.5)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(model, patches(four_phases, phases=4, target=target))
    loaded = mpfnl.PFNL3D.from_pretrained(model.save_pretrained(tmp_path / "weights"))
    assert loaded.phases == FOUR
    assert loaded.target == target


def test_a_study_without_it_cannot_train_a_model_that_takes_it(four_phases: Path, tmp_path: Path) -> None:
    studies = [without_delayed(study) for study in read_manifest(four_phases)]
    data = patches(write_manifest(tmp_path / "three.csv", studies).path, phases=4)
    with pytest.raises(InputError, match=r"'train0': has no delayed phase; .* column delayed"):
        data.setup("fit")


def test_enhancing_with_it_and_without(four_phases: Path, weights: Path, tmp_path: Path) -> None:
    study = next(iter(read_manifest(four_phases)))
    files = {phase: study.file(phase) for phase in FOUR}
    words = ["enhance", "--weights", str(weights)]
    given = [word for phase in PHASES for word in (f"--{phase.replace('_', '-')}", str(files[phase]))]
    late = ["--delayed", str(files[Phase.DELAYED])]
    assert main([*words, *given, *late, "-o", str(tmp_path / "a.nii.gz")]) == 0
    assert main([*words, *given, "-o", str(tmp_path / "b.nii.gz")]) == 0
    with_it = read_volume(tmp_path / "a.nii.gz").data.astype(int)
    model = mpfnl.PFNL3D.from_pretrained(weights)
    np.testing.assert_array_equal(with_it, model.enhance(files).data)
    assert np.abs(with_it - read_volume(tmp_path / "b.nii.gz").data).max() > 1


def test_evaluating_it_beside_a_model_of_one_phase(four_phases: Path, weights: Path, tmp_path: Path) -> None:
    one = mpfnl.RCAN3D(channels=8, groups=1, blocks=1).save_pretrained(tmp_path / "one")
    out = tmp_path / "evaluation"
    models = [f"four={weights}", f"one={one}", f"late={weights}@portal_venous+delayed"]
    assert main(["evaluate", str(four_phases), "--models", *models, "-o", str(out)]) == 0
    rows = {row.method: row for row in read_cases(out / "cases.csv")}
    assert all(np.isfinite(rows[name].psnr_db) for name in ("degraded", "four", "one", "late"))
    assert rows["four"].psnr_db != rows["late"].psnr_db
    report = (out / "report.html").read_text()
    assert "input phases: non-contrast, arterial, portal venous and delayed." in report
    assert "input phases: portal venous and delayed; withheld: non-contrast and arterial." in report


def test_preparing_it_with_the_others(tmp_path: Path) -> None:
    delayed = write_scan(tmp_path / "s0" / "delayed.nii.gz", body(0, Phase.DELAYED))
    study = raw_study(tmp_path, 0)
    raw = write_manifest(
        tmp_path / "raw.csv", [replace(study, scans={**study.scans, Phase.DELAYED: delayed})]
    )
    prepare_cohort(raw, tmp_path / "prepared", PrepareSettings(steps=(), crop="none"))
    (study,) = read_manifest(tmp_path / "prepared" / "cohort.csv")
    assert study.phases == FOUR
    np.testing.assert_array_equal(read_volume(study.file(Phase.DELAYED)).data, read_volume(delayed).data)


def test_a_study_without_it_is_enhanced_with_the_others_where_the_model_can(
    four_phases: Path, weights: Path, tmp_path: Path
) -> None:
    stacked = mpfnl.RCAN3D(phases=4, channels=8, groups=1, blocks=1).save_pretrained(tmp_path / "stacked")
    (study,) = (study for study in read_manifest(four_phases) if study.split == "test")
    lacks = replace(without_delayed(study), study_id="lacks", patient_id="p-lacks")
    cohort = write_manifest(tmp_path / "mixed.csv", [study, lacks])
    out = tmp_path / "evaluation"
    models = [f"stack={stacked}", f"four={weights}"]
    assert main(["evaluate", str(cohort.path), "--models", *models, "-o", str(out)]) == 1
    failures = {(row.study_id, row.method): row.failure for row in read_cases(out / "cases.csv")}
    refusal = failures.pop(("lacks", "stack"))
    assert set(failures.values()) == {""}
    for word in ("'lacks'", "delayed phase", "stack (RCAN3D)"):
        assert word in refusal
    swapped: dict[tuple[str, str], set[str]] = {}
    with (out / "swap.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            swapped.setdefault((row["study_id"], row["method"]), set()).add(row["swapped"])
    others = {"noncontrast", "arterial"}
    assert swapped == {
        ("test0", "four"): {*others, "delayed"},
        ("test0", "stack"): {*others, "delayed"},
        ("lacks", "four"): others,
    }
    volumes = out / "volumes" / "lacks"
    assert not (volumes / "degraded_delayed.nii.gz").exists()
    files = {phase: volumes / f"degraded_{phase}.nii.gz" for phase in PHASES}
    alone = mpfnl.load(weights).enhance(files, precision=torch.float32).data
    found = read_volume(volumes / "four.nii.gz").data
    assert np.abs(found.astype(int) - alone).max() <= 1
