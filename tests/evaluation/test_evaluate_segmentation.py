"""The evaluation with a segmenter and with folders: what is scored, what fails, what is done again."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics import compute_dice, compute_surface_dice

import mpfnl
from mpfnl.data.manifest import Manifest, read_manifest, write_manifest
from mpfnl.errors import ConflictError, FormatError, NotFoundError, OptionError, SegmentationError
from mpfnl.evaluation.cases import Case, read_cases
from mpfnl.evaluation.overlap import OverlapOptions, Truth
from mpfnl.evaluation.scoring import EvaluateOptions, score_cohort
from mpfnl.inference.tiling import Tiling
from mpfnl.metrics import dice
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phases import Phase
from mpfnl.segmentation.phantom_weights import TRAINING_SEED
from mpfnl.transforms import find_preset
from mpfnl.volumes import Volume, read_mask, read_volume, write_volume
from mpfnl.window import ABDOMEN

OPTIONS = EvaluateOptions(tiling=Tiling(48, 8))
METHODS = ["reference", "degraded", "PFNL3D", "smoothed"]


@dataclass
class Threshold:
    """A segmenter that takes soft tissue for the pancreas, and fails where it is told to."""

    fails: dict[int, str] = field(default_factory=dict)  # by the number of the call
    empty: set[int] = field(default_factory=set)
    seen: list[Volume] = field(default_factory=list)
    structures: tuple[str, ...] = ("pancreas",)
    notice: str = ""
    lowest: float = 50.0

    def describe(self) -> dict[str, Any]:
        return {"threshold": self.lowest, "notice": self.notice}

    def segment(self, scan: Volume) -> Mapping[str, np.ndarray[Any, np.dtype[np.bool_]]]:
        number = len(self.seen)
        self.seen.append(scan)
        if number in self.fails:
            raise SegmentationError(self.fails[number])
        found = (scan.data > self.lowest) & (scan.data < 200) & (number not in self.empty)
        return {"pancreas": found}


@pytest.fixture(scope="module")
def models() -> dict[str, EnhancementModule]:
    torch.manual_seed(0)
    model = mpfnl.PFNL3D(features=8, blocks=1)
    for parameter in list(model.network.parameters())[-2:]:  # so that the scan comes out nearly as it went in
        torch.nn.init.normal_(parameter, std=1e-3)
    return {"PFNL3D": model}


@pytest.fixture(scope="module")
def masked(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """The small cohort, its test studies with a reference mask of soft tissue."""
    folder = tmp_path_factory.mktemp("masked")
    manifest = read_manifest(cohort)
    studies = []
    for study in manifest.split("test"):
        scan = read_volume(study.file(Phase.PORTAL_VENOUS))
        mask = ((scan.data > 60) & (scan.data < 160)).astype(np.uint8)
        path = folder / f"{study.study_id}.nii.gz"
        write_volume(path, mask, like=scan, dtype=np.dtype(np.uint8))
        studies.append(replace(study, masks={**study.masks, "pancreas": path}))
    return write_manifest(folder / "cohort.csv", studies)


@pytest.fixture(scope="module")
def smoothed(masked: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scans that something else enhanced."""
    folder = tmp_path_factory.mktemp("smoothed")
    for study in masked:
        scan = read_volume(study.file(Phase.PORTAL_VENOUS))
        write_volume(folder / f"{study.study_id}.nii.gz", np.roll(scan.data, 1, axis=0), like=scan)
    return folder


def rows(cases: list[Case]) -> dict[tuple[str, str], Case]:
    return {(case.study_id, case.method): case for case in cases}


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy.*:FutureWarning")  # inside MONAI
def test_every_method_is_segmented_and_scored_as_monai_does(
    masked: Manifest, models: dict[str, EnhancementModule], smoothed: Path, tmp_path: Path
) -> None:
    result = score_cohort(
        masked, models, tmp_path, OPTIONS, segmenter=Threshold(), enhanced={"smoothed": smoothed}
    )
    assert [case.method for case in result.cases] == METHODS * 2
    for case in result.cases:
        study = next(study for study in masked if study.study_id == case.study_id)
        clean = read_volume(study.file(Phase.PORTAL_VENOUS))
        found = read_mask(
            tmp_path / "volumes" / case.study_id / "masks" / f"{case.method}_pancreas.nii.gz", clean
        )
        truth = read_mask(study.masks["pancreas"], clean)
        pair = [torch.as_tensor(mask[None, None]) for mask in (found, truth)]
        assert case.dsc == pytest.approx(float(compute_dice(*pair)), abs=1e-6)
        nsd = compute_surface_dice(
            *pair, class_thresholds=[3.0], include_background=True, spacing=clean.spacing, use_subvoxels=True
        )
        assert case.nsd == pytest.approx(float(nsd), abs=1e-5)
        assert math.isnan(case.psnr_db) == (case.method == "reference")
    assert list(result.overlap_tables[0].summaries) == METHODS
    assert list(result.image_tables[0].summaries) == METHODS[1:]


def test_air_and_bone_are_the_clean_scans_where_the_degradation_clips(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    segmenter = Threshold()
    score_cohort(masked, models, tmp_path / "clipped", OPTIONS, segmenter=segmenter)
    for clean, degraded, enhanced in zip(*(segmenter.seen[number::3] for number in range(3)), strict=True):
        air = clean.data < -900
        for scan in (degraded, enhanced):
            assert np.mean(scan.data[air] == clean.data[air]) > 0.9
            inside = (clean.data > 0) & (clean.data < 100)
            assert np.mean(scan.data[inside] == clean.data[inside]) < 0.2
    whole = Threshold()
    options = replace(OPTIONS, degradation=find_preset("thick-slices"))
    score_cohort(masked, models, tmp_path / "whole", options, segmenter=whole)
    written = read_volume(tmp_path / "whole" / "volumes" / "test0" / "degraded_portal_venous.nii.gz")
    assert np.array_equal(whole.seen[1].data, written.canonical().data)  # segmented as it is


def test_failures_are_rows_and_the_study_goes_on(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    segmenter = Threshold(fails={1: "x.nii.gz: TotalSegmentator's process was killed"}, empty={5})
    result = score_cohort(masked, models, tmp_path, OPTIONS, segmenter=segmenter)
    found = rows(result.cases)
    killed, empty = found["test0", "degraded"], found["test1", "PFNL3D"]
    assert np.isnan([killed.dsc, killed.nsd]).all()
    assert "was killed" in killed.failure
    assert killed.psnr_db > 0
    assert (empty.dsc, empty.nsd) == (0.0, 0.0), empty
    assert "empty" in empty.failure
    assert sum(bool(case.failure) for case in result.cases) == 2
    dsc = result.overlap_tables[0]
    assert dsc.summaries["degraded"].n_failed == 1
    assert dsc.summaries["PFNL3D"].n == 2  # the empty one counts
    assert dsc.n_empty["PFNL3D"] == 1
    with (tmp_path / "cases.csv").open() as file:
        assert {row["failure"] for row in csv.DictReader(file) if row["failure"]} == {
            killed.failure,
            empty.failure,
        }
    again = Threshold()
    repaired = score_cohort(masked, models, tmp_path, OPTIONS, segmenter=again)
    assert len(again.seen) == 1  # only what failed; an empty segmentation is a result
    assert not rows(repaired.cases)["test0", "degraded"].failure


def test_nothing_is_computed_twice_and_a_segmenter_may_come_later(
    masked: Manifest, models: dict[str, EnhancementModule], smoothed: Path, tmp_path: Path
) -> None:
    score_cohort(masked, models, tmp_path, OPTIONS)
    first = tmp_path / "volumes" / "test0" / "PFNL3D.nii.gz"
    before = first.stat().st_mtime_ns
    segmenter = Threshold()
    score_cohort(masked, models, tmp_path, OPTIONS, segmenter=segmenter)
    assert len(segmenter.seen) == 2 * 3
    more = Threshold()
    score_cohort(masked, models, tmp_path, OPTIONS, segmenter=more, enhanced={"smoothed": smoothed})
    assert len(more.seen) == 2  # the new folder's scans
    whole = (tmp_path / "cases.csv").read_bytes()
    none = Threshold()
    score_cohort(masked, models, tmp_path, OPTIONS, segmenter=none, enhanced={"smoothed": smoothed})
    assert not none.seen
    assert (tmp_path / "cases.csv").read_bytes() == whole
    assert first.stat().st_mtime_ns == before


def test_a_run_that_is_stopped_goes_on_with_the_next_scan(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    class Stopped(Threshold):
        def segment(self, scan: Volume) -> Mapping[str, np.ndarray[Any, np.dtype[np.bool_]]]:
            if len(self.seen) == 4:
                raise KeyboardInterrupt
            return super().segment(scan)

    with pytest.raises(KeyboardInterrupt):
        score_cohort(masked, models, tmp_path, OPTIONS, segmenter=Stopped())
    rest = Threshold()
    score_cohort(masked, models, tmp_path, OPTIONS, segmenter=rest)
    assert len(rest.seen) == 2


def test_another_segmenter_tolerance_or_folder_is_refused(
    masked: Manifest, models: dict[str, EnhancementModule], smoothed: Path, tmp_path: Path
) -> None:
    folders = {"smoothed": tmp_path / "copy"}
    shutil.copytree(smoothed, folders["smoothed"])
    score_cohort(masked, models, tmp_path / "e", OPTIONS, segmenter=Threshold(), enhanced=folders)
    with pytest.raises(ConflictError, match=r"\(segmentation\)"):
        score_cohort(masked, models, tmp_path / "e", OPTIONS, segmenter=Threshold(lowest=0), enhanced=folders)
    other = replace(OPTIONS, overlap=OverlapOptions(tolerance_mm=1))
    with pytest.raises(ConflictError, match=r"\(segmentation\)"):
        score_cohort(masked, models, tmp_path / "e", other, segmenter=Threshold(), enhanced=folders)
    with pytest.raises(ConflictError, match="smoothed on study test0"):
        score_cohort(masked, models, tmp_path / "e", OPTIONS, segmenter=Threshold())
    shutil.copy(smoothed / "test1.nii.gz", folders["smoothed"] / "test0.nii.gz")
    with pytest.raises(ConflictError, match=r"\(folder smoothed\)"):
        score_cohort(masked, models, tmp_path / "e", OPTIONS, segmenter=Threshold(), enhanced=folders)


def test_what_a_folder_lacks_or_spoils_fails_in_its_row(
    masked: Manifest, smoothed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    evaluated = tmp_path / "e"
    scan = read_volume(smoothed / "test0.nii.gz")
    write_volume(
        folder / "test0.nii.gz",
        ABDOMEN.normalize(scan.data.astype(np.float32)),
        like=replace(scan, storage=np.dtype(np.float32)),
    )
    result = rows(
        score_cohort(masked, {}, evaluated, OPTIONS, segmenter=Threshold(), enhanced={"other": folder}).cases
    )
    assert "windowed already" in result["test0", "other"].failure
    assert str(folder / "test1.nii.gz") in result["test1", "other"].failure
    assert math.isnan(result["test1", "other"].psnr_db)
    for name in ("test0", "test1"):
        shutil.copy(smoothed / f"{name}.nii.gz", folder)
    repaired = score_cohort(masked, {}, evaluated, OPTIONS, segmenter=Threshold(), enhanced={"other": folder})
    assert not [case for case in repaired.cases if case.failure]
    assert rows(repaired.cases)["test1", "other"].dsc > 0


def test_a_reference_mask_is_needed_or_the_clean_scans_segmentation_is_the_truth(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    bare = write_manifest(tmp_path / "bare.csv", [replace(study, masks={}) for study in masked])
    with pytest.raises(NotFoundError, match=r"split test .* pancreas"):
        score_cohort(bare, models, tmp_path / "e", OPTIONS, segmenter=Threshold())
    options = replace(OPTIONS, overlap=OverlapOptions(truth=Truth.REFERENCE_SCAN))
    segmenter = Threshold()
    result = score_cohort(bare, models, tmp_path / "e", options, segmenter=segmenter)
    assert list(result.overlap_tables[0].summaries) == ["degraded", "PFNL3D"]
    masks = [segmenter.segment(scan)["pancreas"] for scan in segmenter.seen[:3]]
    assert rows(result.cases)["test0", "PFNL3D"].dsc == pytest.approx(dice(masks[2], masks[0]))
    none = Threshold()
    score_cohort(bare, models, tmp_path / "e", options, segmenter=none)
    assert not none.seen
    half = write_manifest(tmp_path / "half.csv", [masked.studies[0], replace(masked.studies[1], masks={})])
    lacking = score_cohort(half, models, tmp_path / "half", OPTIONS, segmenter=Threshold())
    assert ("test1", "reference") not in rows(lacking.cases)  # there is nothing to compare it with
    assert not lacking.missing
    assert lacking.overlap_tables[0].summaries["degraded"].n == 1
    assert lacking.overlap_tables[0].summaries["degraded"].n_failed == 0


def test_the_structure_must_be_one_that_is_found(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    options = replace(OPTIONS, overlap=OverlapOptions("liver"))
    with pytest.raises(OptionError, match="liver"):
        score_cohort(masked, models, tmp_path, options, segmenter=Threshold())


def test_phantoms_that_the_phantom_weights_saw_are_refused(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    seen = [replace(study, study_id=f"phantom-{TRAINING_SEED}-{study.study_id}") for study in masked]
    manifest = write_manifest(tmp_path / "seen.csv", seen)
    with pytest.raises(ConflictError, match=f"phantom-{TRAINING_SEED}-test0"):
        score_cohort(manifest, models, tmp_path / "e", OPTIONS, segmenter=Threshold(notice="phantom weights"))


def test_provenance_says_how_it_was_segmented(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    score_cohort(masked, models, tmp_path, OPTIONS, segmenter=Threshold(notice="only a test"))
    whole = json.loads((tmp_path / "provenance.json").read_text())
    record = whole["segmentation"]
    assert whole["settings"]["target"] == Phase.PORTAL_VENOUS
    assert record["segmenter"]["notice"] == "only a test"
    assert record["tolerance_mm"] == 3.0
    assert record["truth"] == "mask"


def test_a_stop_between_the_mask_and_its_row_costs_nothing(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def stop(*arguments: Any) -> float:
        calls.append(arguments)
        if len(calls) in (1, 3):  # the clean scan's, and later another's
            raise KeyboardInterrupt
        return dice(*arguments)

    monkeypatch.setattr("mpfnl.evaluation.overlap.dice", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            score_cohort(masked, models, tmp_path, OPTIONS, segmenter=Threshold())
    result = score_cohort(masked, models, tmp_path, OPTIONS, segmenter=Threshold())
    assert len(result.cases) == 2 * 3
    assert not [case for case in result.cases if math.isnan(case.dsc)]


def test_masks_that_changed_are_noticed_and_may_be_added(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    bare = write_manifest(tmp_path / "a.csv", [replace(study, masks={}) for study in masked])
    score_cohort(bare, models, tmp_path / "e", OPTIONS)
    copied = []
    for study in masked:
        shutil.copy(study.masks["pancreas"], tmp_path / f"{study.study_id}.nii.gz")
        copied.append(
            replace(study, masks={**study.masks, "pancreas": tmp_path / f"{study.study_id}.nii.gz"})
        )
    manifest = write_manifest(tmp_path / "b.csv", copied)
    score_cohort(manifest, models, tmp_path / "e", OPTIONS, segmenter=Threshold())
    shutil.copy(masked.studies[0].masks["pancreas"], tmp_path / "test1.nii.gz")
    with pytest.raises(ConflictError, match="masks of study test1"):
        score_cohort(manifest, models, tmp_path / "e", OPTIONS, segmenter=Threshold())


def test_a_mask_that_cannot_be_used_fails_in_its_study(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    clean = read_volume(masked.studies[1].file(Phase.PORTAL_VENOUS))
    three = np.zeros(clean.shape, np.uint8)
    three[:4] = 2  # a tumour beside the organ, as some cohorts have it
    write_volume(tmp_path / "labels.nii.gz", three, like=clean, dtype=np.dtype(np.uint8))
    studies = [
        masked.studies[0],
        replace(masked.studies[1], masks={**masked.studies[1].masks, "pancreas": tmp_path / "labels.nii.gz"}),
    ]
    manifest = write_manifest(tmp_path / "cohort.csv", studies)
    result = score_cohort(manifest, models, tmp_path / "e", OPTIONS, segmenter=Threshold())
    found = rows(result.cases)
    assert "holds 0 and 1" in found["test1", "PFNL3D"].failure
    assert not found["test0", "PFNL3D"].failure
    assert len(result.missing) == 3


def test_another_target_phase_has_masks_of_its_own(masked: Manifest, tmp_path: Path) -> None:
    model = mpfnl.PFNL3D(features=8, blocks=1, target="arterial")
    with pytest.raises(NotFoundError, match="pancreas"):
        score_cohort(masked, {"arterial": model}, tmp_path / "none", OPTIONS, segmenter=Threshold())
    studies = [replace(study, masks={"arterial_pancreas": study.masks["pancreas"]}) for study in masked]
    manifest = write_manifest(tmp_path / "arterial.csv", studies)
    result = score_cohort(manifest, {"arterial": model}, tmp_path / "e", OPTIONS, segmenter=Threshold())
    assert result.overlap_tables[0].summaries["reference"].n == 2


def test_without_a_method_the_degraded_scans_are_made_for_others(
    masked: Manifest, smoothed: Path, tmp_path: Path
) -> None:
    first = score_cohort(masked, {}, tmp_path, OPTIONS)
    assert [case.method for case in first.cases] == ["degraded"] * 2
    assert (tmp_path / "volumes" / "test0" / "degraded_arterial.nii.gz").is_file()
    second = score_cohort(masked, {}, tmp_path, OPTIONS, enhanced={"theirs": smoothed})
    assert [case.method for case in second.cases] == ["degraded", "theirs"] * 2
    for study in masked:
        shutil.copy(study.file(Phase.PORTAL_VENOUS), smoothed.parent / f"{study.study_id}.nii.gz")
    clean = rows(score_cohort(masked, {}, tmp_path / "c", OPTIONS, enhanced={"clean": smoothed.parent}).cases)
    assert "is the clean scan itself" in clean["test0", "clean"].failure


def test_a_scan_that_was_deleted_is_made_again(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    score_cohort(masked, models, tmp_path, OPTIONS)
    (tmp_path / "volumes" / "test0" / "PFNL3D.nii.gz").unlink()
    result = score_cohort(masked, models, tmp_path, OPTIONS, segmenter=Threshold())
    assert not result.missing


def test_rows_without_their_record_are_refused(
    masked: Manifest, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    score_cohort(masked, models, tmp_path, OPTIONS)
    (tmp_path / "provenance.json").unlink()
    with pytest.raises(NotFoundError, match=r"provenance\.json"):
        score_cohort(masked, models, tmp_path, replace(OPTIONS, seed=9))


def test_rows_that_were_cut_off_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("study_id,method\n")
    with pytest.raises(FormatError, match=r"cases\.csv"):
        read_cases(tmp_path / "cases.csv")
