"""The evaluation folder: complete, repeatable, resumable."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import mpfnl
from mpfnl.data.manifest import Split, read_manifest
from mpfnl.errors import ConflictError, InputError, OptionError
from mpfnl.evaluation import evaluate
from mpfnl.evaluation.cases import read_cases
from mpfnl.evaluation.scoring import EvaluateOptions, score_cohort
from mpfnl.inference.tiling import Tiling
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phases import Phase
from mpfnl.transforms import find_preset
from mpfnl.transforms.seeds import Sharing
from mpfnl.volumes import read_volume

OPTIONS = EvaluateOptions(tiling=Tiling(48, 8))


@pytest.fixture(scope="module")
def models() -> dict[str, EnhancementModule]:
    torch.manual_seed(0)
    pfnl3d = mpfnl.PFNL3D(features=8, blocks=1)
    for parameter in pfnl3d.network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return {"RCAN3D": mpfnl.RCAN3D(channels=16, groups=1, blocks=1), "PFNL3D": pfnl3d}


@pytest.fixture(scope="module")
def folder(
    cohort: Path, models: dict[str, EnhancementModule], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("study") / "evaluation"
    evaluate(read_manifest(cohort), models, folder, OPTIONS, notice="A test.")
    return folder


def test_the_folder_is_complete(folder: Path) -> None:
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    expected = {"cases.csv", "summary.csv", "summary.json", "report.html", "provenance.json"}
    assert expected | {"figures/image_quality.png", "figures/case_worst.png"} <= names
    assert not [name for name in names if "partial" in name or "tmp" in name]


def test_scores_are_scikit_images_on_the_written_files(cohort: Path, folder: Path) -> None:
    studies = {study.study_id: study for study in read_manifest(cohort)}
    cases = read_cases(folder / "cases.csv")
    assert len(cases) == 2 * 3
    for case in cases:
        name = "degraded_portal_venous" if case.method == "degraded" else case.method
        scan = read_volume(folder / "volumes" / case.study_id / f"{name}.nii.gz").data
        clean = read_volume(studies[case.study_id].file(Phase.PORTAL_VENOUS)).data
        unit, target = (np.clip((hu + 175.0) / 450.0, 0, 1) for hu in (scan, clean))
        assert case.psnr_db == pytest.approx(peak_signal_noise_ratio(target, unit, data_range=1.0), abs=1e-3)
        ssim = structural_similarity(
            target, unit, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert case.ssim == pytest.approx(ssim, abs=1e-4)


def test_the_report_holds_everything_and_asks_for_nothing(folder: Path) -> None:
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "A test." in html
    assert html.count("data:image/png;base64,") == 3  # quality, and two studies
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)", html)
    assert "n = 2 studies" in html
    assert "not a medical device" in html


def test_provenance_says_what_defines_the_results(folder: Path) -> None:
    record = json.loads((folder / "provenance.json").read_text())
    settings = record["settings"]
    assert settings["window_hu"] == {"level": 50.0, "width": 450.0}
    assert set(record["studies"]) == {"test0", "test1"}
    assert record["left_out"]["train0"] == "split train"
    assert settings["precision"] in ("bfloat16", "float32")
    assert settings["degradation"]["name"] == "second-order-v1"
    assert all(len(model["weights_sha256"]) == 16 for model in record["models"].values())


def test_started_again_it_does_only_what_is_missing(
    cohort: Path, models: dict[str, EnhancementModule], tmp_path: Path, folder: Path
) -> None:
    manifest = read_manifest(cohort)
    score_cohort(manifest, models, tmp_path / "again", OPTIONS)
    table = tmp_path / "again" / "cases.csv"
    whole = table.read_bytes()
    assert whole == (folder / "cases.csv").read_bytes()  # the same run gives the same rows
    rows = whole.decode().splitlines(keepends=True)
    table.write_text("".join(row for row in rows if not row.startswith("test1,")))
    first = tmp_path / "again" / "volumes" / "test0" / "PFNL3D.nii.gz"
    before = first.stat().st_mtime_ns
    score_cohort(manifest, models, tmp_path / "again", OPTIONS)
    assert table.read_bytes() == whole
    assert first.stat().st_mtime_ns == before


def test_a_study_that_was_repaired_does_not_cost_the_others(
    cohort: Path, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    copy = tmp_path / "cohort"
    shutil.copytree(cohort.parent, copy)
    broken = copy / "test1" / "arterial.nii.gz"
    good = broken.read_bytes()
    broken.write_bytes(good[:-500])
    first = score_cohort(read_manifest(copy / "cohort.csv"), models, tmp_path / "e", OPTIONS)
    assert {case.study_id for case in first.missing} == {"test1"}
    assert all("test1/arterial.nii.gz (arterial phase)" in case.failure for case in first.missing)
    broken.write_bytes(good)
    evaluation = score_cohort(read_manifest(copy / "cohort.csv"), models, tmp_path / "e", OPTIONS)
    assert len(evaluation.cases) == 6
    shutil.copy(copy / "train0" / "arterial.nii.gz", broken)
    with pytest.raises(ConflictError, match="study test1"):
        score_cohort(read_manifest(copy / "cohort.csv"), models, tmp_path / "e", OPTIONS)


def test_other_settings_are_refused_in_the_same_folder(
    cohort: Path, models: dict[str, EnhancementModule], folder: Path
) -> None:
    with pytest.raises(ConflictError, match=r"\(seed\)"):
        score_cohort(read_manifest(cohort), models, folder, EvaluateOptions(tiling=Tiling(48, 8), seed=1))
    severe = replace(OPTIONS, degradation=find_preset("severe"))
    with pytest.raises(ConflictError, match=r"\(degradation\)"):
        score_cohort(read_manifest(cohort), models, folder, severe)
    with pytest.raises(ConflictError, match=r"\(sharing\)"):
        score_cohort(read_manifest(cohort), models, folder, replace(OPTIONS, sharing=Sharing.ACQUISITION))
    other = {"RCAN3D": mpfnl.RCAN3D(channels=16, groups=1, blocks=1), "PFNL3D": models["PFNL3D"]}
    with pytest.raises(ConflictError, match=r"\(model RCAN3D\)"):
        score_cohort(read_manifest(cohort), other, folder, OPTIONS)


def test_what_cannot_be_evaluated_is_refused(
    cohort: Path, models: dict[str, EnhancementModule], tmp_path: Path
) -> None:
    manifest = read_manifest(cohort)
    targets = {"a": models["RCAN3D"], "b": mpfnl.RCAN3D(channels=16, groups=1, target="arterial")}
    with pytest.raises(ConflictError, match=r"a: portal venous; b: arterial"):
        score_cohort(manifest, targets, tmp_path / "e")
    for name in ("degraded", "degraded_arterial", "a/b", "..", ""):
        with pytest.raises(OptionError, match=re.escape(repr(name))):
            score_cohort(manifest, {name: models["RCAN3D"]}, tmp_path / "e")
    empty = manifest.split(Split.TRAIN)
    with pytest.raises(InputError, match="split test"):
        score_cohort(empty, models, tmp_path / "e")
    assert not (tmp_path / "e").exists()
