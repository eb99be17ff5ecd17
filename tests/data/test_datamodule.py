"""The data module: samples are a function of (seed, epoch, study, draw), whatever makes them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torchio as tio

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.degradation import SampleSettings
from mpfnl.data.manifest import Quality, Split, read_manifest, write_manifest
from mpfnl.data.patches import DegradedPatches, PatchDataset, PatchSampling
from mpfnl.data.sampling import EpochSampler
from mpfnl.data.studies import StudyCache, StudyReader
from mpfnl.errors import InputError, NotFoundError
from mpfnl.phases import PHASES, Phase
from mpfnl.transforms.degradation import SECOND_ORDER_V1
from mpfnl.volumes import read_volume
from mpfnl.window import ABDOMEN

pytestmark = pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*")


def module(cohort: Path, **options: object) -> MultiphaseDataModule:
    settings: dict[str, object] = {"batch_size": 3, "patch_size": 16, "patches_per_study": 3}
    settings |= {"workers": 0, "seed": 5}
    return MultiphaseDataModule(cohort, **(settings | options))  # type: ignore[arg-type]


def epoch_of(data: MultiphaseDataModule, epoch: int) -> dict[str, torch.Tensor]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
    batches = list(loader)
    return {name: torch.cat([batch[name] for batch in batches]) for name in ("phases", "target")}


@pytest.fixture(scope="module")
def unpacked(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cohort as uncompressed files, of both byte orders; one study stays compressed."""
    folder = tmp_path_factory.mktemp("unpacked")
    studies = []
    for number, study in enumerate(read_manifest(cohort)):
        (folder / study.study_id).mkdir()
        files = {str(phase): study.file(phase) for phase in PHASES}
        if study.study_id != "train2":
            for name, packed in files.items():
                image = nib.load(packed)
                header = image.header.as_byteswapped("<>"[number % 2])
                files[name] = folder / study.study_id / f"{name}.nii"
                nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine, header), files[name])
        studies.append(replace(study, scans={Phase(name): file for name, file in files.items()}))
    return write_manifest(folder / "cohort.csv", studies).path


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_samples_read_in_parts_are_those_of_whole_volumes(cohort: Path, unpacked: Path, workers: int) -> None:
    for epoch in (0, 3):
        expected, found = epoch_of(module(cohort), epoch), epoch_of(module(unpacked, workers=workers), epoch)
        for name in expected:
            assert torch.equal(expected[name], found[name])


@pytest.mark.parametrize("options", [{"patch_size": 34}, {"phases": 1}, {"target": Phase.ARTERIAL}])
def test_so_are_padded_patches_and_other_phases(
    cohort: Path, unpacked: Path, options: dict[str, object]
) -> None:
    expected, found = (epoch_of(module(path, **options), 1) for path in (cohort, unpacked))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_only_other_files_are_read_whole(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr("mpfnl.data.studies.load_study", lambda study, phases: loaded.append(study) or 1 / 0)
    studies = StudyReader(StudyCache(read_manifest(unpacked).split("train").studies, PHASES, 10**9))
    for index in (0, 1, 3):
        studies[index].read(2, (slice(0, 4), slice(0, 4), slice(0, 4)))
    assert not loaded
    with pytest.raises(ZeroDivisionError):
        studies[2]
    assert [study.study_id for study in loaded] == ["train2"]


def test_the_other_phases_are_read_at_the_chosen_place_alone(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = StudyReader(StudyCache(read_manifest(unpacked).split("train").studies, PHASES, 10**9))
    settings = SampleSettings(PHASES, Phase.PORTAL_VENOUS, None)
    dataset = PatchDataset(studies, settings, DegradedPatches(), PatchSampling(8, per_study=20, min_body=0.9))
    whole = studies[0].files.read
    read: list[Phase | None] = []
    monkeypatch.setattr(studies.files, "read", lambda scan, box: read.append(scan.phase) or whole(scan, box))
    for index in range(20):
        read.clear()
        dataset[index]
        assert 1 <= read.count(Phase.PORTAL_VENOUS) <= 8
        assert read[-2:] == [Phase.NONCONTRAST, Phase.ARTERIAL]
        assert len(read) == read.count(Phase.PORTAL_VENOUS) + 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_batches_for_any_number_of_workers(cohort: Path, workers: int) -> None:
    alone, shared = module(cohort), module(cohort, workers=workers)
    for epoch in (0, 3):
        expected, found = epoch_of(alone, epoch), epoch_of(shared, epoch)
        for name in expected:
            assert torch.equal(expected[name], found[name])


def test_seed_and_epoch_change_the_samples(cohort: Path) -> None:
    first = epoch_of(module(cohort), 0)["phases"]
    assert not torch.equal(first, epoch_of(module(cohort), 1)["phases"])
    assert not torch.equal(first, epoch_of(module(cohort, seed=6), 0)["phases"])


def test_batches_have_the_shapes_and_range_that_models_take(cohort: Path) -> None:
    batch = next(iter(module(cohort).train_dataloader()))
    assert batch["phases"].shape == (3, 3, 16, 16, 16)
    assert batch["target"].shape == (3, 1, 16, 16, 16)
    assert all(batch[name].min() >= 0 and batch[name].max() <= 1 for name in ("phases", "target"))
    assert len(batch["study_id"]) == 3


def test_without_degradation_the_target_phase_is_the_target(cohort: Path) -> None:
    data = module(cohort, degradation=None, target=Phase.ARTERIAL)
    batch = next(iter(data.train_dataloader()))
    assert torch.equal(batch["phases"][:, 1:2], batch["target"])
    assert not torch.equal(batch["phases"][:, 2:3], batch["target"])


def test_degradation_is_independent_between_phases_and_spares_the_target(cohort: Path) -> None:
    clean = next(iter(module(cohort, degradation=None, augmentation=None).train_dataloader()))
    noise = [replace(stage, blur_probability=0.0, resize_probability=0.0) for stage in SECOND_ORDER_V1.stages]
    preset = replace(SECOND_ORDER_V1, stages=tuple(noise))
    degraded = next(iter(module(cohort, degradation=preset, augmentation=None).train_dataloader()))
    assert torch.equal(clean["target"], degraded["target"])
    change = (degraded["phases"] - clean["phases"]).flatten(2)
    for batch in change:
        correlation = np.corrcoef(batch.numpy())
        assert np.abs(correlation[~np.eye(3, dtype=bool)]).max() < 0.1


def test_a_single_phase_model_sees_the_phase_that_a_multiphase_model_sees(cohort: Path) -> None:
    three = next(iter(module(cohort).test_dataloader()))
    one = next(iter(module(cohort, phases=1).test_dataloader()))
    assert torch.equal(three["phases"][:, 2:], one["phases"])


def test_validation_and_test_data_never_change(cohort: Path) -> None:
    data = module(cohort)
    for loader in (data.val_dataloader, data.test_dataloader):
        first, second = next(iter(loader())), next(iter(loader()))
        assert torch.equal(first["phases"], second["phases"])


def test_whole_volumes_are_the_files(cohort: Path) -> None:
    batch = next(iter(module(cohort, degradation=None).test_dataloader()))
    study = read_manifest(cohort).split("test").studies[0]
    for place, phase in enumerate(PHASES):
        expected = ABDOMEN.normalize(
            torch.from_numpy(read_volume(study.file(phase)).canonical().data).float()
        )
        assert torch.equal(batch["phases"][0, place], expected)


def test_rotation_turns_phases_and_target_alike(cohort: Path) -> None:
    plain = next(iter(module(cohort, degradation=None, augmentation=None).train_dataloader()))
    turned = next(iter(module(cohort, degradation=None).train_dataloader()))
    found = set()
    for before, after in zip(plain["phases"], turned["phases"], strict=True):
        matching = [k for k in range(4) if torch.equal(torch.rot90(before, k, (1, 2)), after)]
        assert matching
        found.add(matching[0])
    for data in (plain, turned):
        assert torch.equal(data["phases"][:, 2:], data["target"])


def test_any_torchio_transform_serves_as_augmentation_and_is_seeded(cohort: Path) -> None:
    flipped = [epoch_of(module(cohort, augmentation=tio.RandomFlip(axes=(0, 1, 2))), 0) for _ in range(2)]
    assert torch.equal(flipped[0]["phases"], flipped[1]["phases"])
    assert not torch.equal(flipped[0]["phases"], epoch_of(module(cohort, augmentation=None), 0)["phases"])


def test_patches_prefer_the_body(cohort: Path) -> None:
    studies = read_manifest(cohort).split("train").studies
    settings = SampleSettings(PHASES, Phase.PORTAL_VENOUS, None)
    cache = StudyCache(studies, settings.loaded, 10**9)

    def air(min_body: float) -> float:
        dataset = PatchDataset(
            cache, settings, DegradedPatches(), PatchSampling(8, per_study=20, margin=0, min_body=min_body)
        )
        return float(np.mean([(dataset[i]["target"] == 0).float().mean() for i in range(len(dataset))]))

    assert air(0.9) < 0.6 * air(0.0)


def test_a_volume_smaller_than_the_patch_is_padded_with_air(cohort: Path) -> None:
    batch = next(iter(module(cohort, patch_size=48, degradation=None).train_dataloader()))
    assert batch["target"].shape[-3:] == (48, 48, 48)
    assert batch["target"][..., 0, 0, 0].max() == 0


def test_the_cache_keeps_to_its_budget(cohort: Path) -> None:
    studies = read_manifest(cohort).split("train").studies
    one = 3 * 40 * 36 * 30 * 2
    cache = StudyCache(studies, PHASES, budget=2 * one)
    for index in (0, 1, 2, 3, 0):
        assert cache[index].study_id == studies[index].study_id
        assert cache.nbytes <= 2 * one
    assert cache[0] is cache[0]


def test_sampler_orders_are_permutations_that_change_with_the_epoch() -> None:
    sampler = EpochSampler(5, per_study=4, seed=1)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        assert sorted(key[1] for key in keys) == list(range(20))
        orders.append([key[1] for key in keys])
    assert orders[0] != orders[1]


def test_sampler_keeps_to_a_group_of_studies_at_a_time() -> None:
    sampler = EpochSampler(10, per_study=6, seed=0, group=3)
    studies = [index // 6 for _, index in sampler]
    groups = [set(studies[start : start + 18]) for start in range(0, 60, 18)]
    assert [len(group) for group in groups] == [3, 3, 3, 1]
    assert set.union(*groups) == set(range(10))
    assert studies[:18] != sorted(studies[:18], key=studies.index)  # mixed within the group


def test_a_bad_scan_is_one_line_also_from_a_worker(cohort: Path, tmp_path: Path) -> None:
    rows = cohort.read_text().splitlines()
    bad = tmp_path / "bad.nii.gz"
    bad.write_text("no scan")
    wrong = [row.replace("train0/arterial.nii.gz", str(bad)) for row in rows if "test" not in row]
    manifest = cohort.parent / "bad_scan.csv"
    manifest.write_text("\n".join(wrong) + "\n")
    for workers in (0, 1):
        with pytest.raises(InputError, match=r"bad.nii.gz \(arterial phase\)") as caught:
            epoch_of(module(manifest, workers=workers), 0)
        assert "\n" not in str(caught.value)


def test_subjects_are_torchios(cohort: Path) -> None:
    subjects = module(cohort).subjects("val")
    assert len(subjects) == 1
    assert subjects[0]["arterial"].shape == (1, 40, 36, 30)


def test_an_empty_split_is_named(cohort: Path, tmp_path: Path) -> None:
    rows = cohort.read_text().splitlines()
    (cohort.parent / "no_val.csv").write_text("\n".join(row for row in rows if ",val," not in row) + "\n")
    with pytest.raises(NotFoundError, match=r"no_val.csv: .*split val"):
        module(cohort.parent / "no_val.csv").setup("fit")


def with_failed(cohort: Path, *failed: str) -> Path:
    """The cohort's manifest with a verdict of each study's preparation."""
    studies = [
        replace(study, quality=Quality.FAIL if study.study_id in failed else (None, *Quality)[place % 3])
        for place, study in enumerate(read_manifest(cohort))
    ]
    return write_manifest(cohort.parent / f"failed_{'_'.join(failed)}.csv", studies).path


def test_failed_studies_are_left_out_of_every_split_and_named_once(
    cohort: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = module(with_failed(cohort, "train1", "test0"))
    with caplog.at_level(logging.INFO):
        data.setup("fit")
        batches = list(data.train_dataloader())
        tested = [batch["study_id"] for batch in data.test_dataloader()]
    used = {name for batch in batches for name in batch["study_id"]}
    assert used == {"train0", "train2", "train3"}
    assert tested == [["test1"]]
    assert len(data.subjects("train")) == 3
    lines = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert lines == [
        "failed_train1_test0.csv: 2 of 7 studies left out, preparation failed: train1, test0",
    ]


def test_failed_studies_are_used_on_request(cohort: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = module(with_failed(cohort, "train1"), include_failed=True)
    with caplog.at_level(logging.INFO):
        assert len(data.subjects(Split.TRAIN)) == 4
    assert "left out" not in caplog.text


def test_a_split_of_failed_studies_alone_is_named(cohort: Path) -> None:
    with pytest.raises(NotFoundError, match=r"all 1 studies in split val") as caught:
        module(with_failed(cohort, "val0")).setup("fit")
    assert "\n" not in str(caught.value)
