"""`mpfnl evaluate`: its options, and what they refuse before any work."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

import mpfnl
from mpfnl.cli import main
from mpfnl.data.manifest import SplitCounts, read_manifest, write_manifest
from mpfnl.evaluation.cases import read_cases
from mpfnl.phantoms import write_cohort
from mpfnl.phantoms.config import THREE_MM
from mpfnl.phases import Phase
from mpfnl.segmentation import process
from mpfnl.volumes import read_volume, write_volume

QUICK = (sys.executable, str(Path(__file__).parents[1] / "support" / "quick_worker.py"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "RCAN3D"
    mpfnl.RCAN3D(channels=16, groups=1, blocks=1).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--enhanced", "other"], "--enhanced other"),
        (["--overlap", "8"], "--overlap 8"),
        (["--tile", "8", "--overlap", "8"], "--tile 8 --overlap 8"),
        (["--enhanced", "other=nowhere"], "--enhanced other=nowhere"),
        (["--models", "RCAN3D"], "--models RCAN3D"),
        (["--nsd-tolerance", "-1"], "--nsd-tolerance -1.0"),
        (["--phantom-weights"], "--segment fast"),
        (["--segment", "fast", "--phantom-weights", "--structure", "aorta"], "'aorta'"),
        (["--segment", "full", "--structure", "pancras"], "'pancras'"),
        (["--segment", "full"], "totalseg_download_weights -t total"),
        (["--segment", "fast"], "totalseg_download_weights -t total_fast"),
    ],
)
def test_what_is_refused_is_one_line_and_leaves_nothing(
    options: list[str],
    named: str,
    cohort: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "home"))
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(cohort), "-o", "out", *options]) == 2
    error = capsys.readouterr().err
    assert named in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_another_programs_scans_stand_beside_the_models(
    cohort: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    clean_scans = {study.study_id: study.file(Phase.PORTAL_VENOUS) for study in read_manifest(cohort)}
    for study in read_manifest(cohort).split("test"):
        scan = read_volume(study.file(Phase.PORTAL_VENOUS))
        write_volume(folder / f"{study.study_id}.nii.gz", scan.data + 5, like=scan)
    command = ["evaluate", str(cohort), "--models", f"RCAN3D={weights}", "--enhanced", f"theirs={folder}"]
    assert main([*command, "-o", str(tmp_path / "out"), "--tile", "48", "--overlap", "8"]) == 0
    printed = capsys.readouterr().out
    cases = read_cases(tmp_path / "out" / "cases.csv")
    assert {case.method for case in cases} == {"degraded", "RCAN3D", "theirs"}
    for case in cases:
        if case.method == "theirs":
            clean, other = (
                ((read_volume(path).data.astype(float) + 175) / 450).clip(0, 1)
                for path in (clean_scans[case.study_id], folder / f"{case.study_id}.nii.gz")
            )
            expected = peak_signal_noise_ratio(clean, other, data_range=1.0)
            assert case.psnr_db == pytest.approx(expected, abs=1e-3)
    assert "theirs" in printed
    assert "Table II" not in printed
    assert "theirs" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_phantoms_are_segmented_by_the_real_api_and_every_kind_of_failure_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One study is as it should be, one has no mask, and another program's scans fail in two ways."""
    monkeypatch.setattr(process, "COMMAND", QUICK)
    path = write_cohort(tmp_path / "cohort", 2, seed=5_151, config=THREE_MM, splits=SplitCounts(0, 0, 2))
    good, bare = read_manifest(path).studies
    manifest = write_manifest(tmp_path / "cohort" / "two.csv", [good, replace(bare, masks={})])
    folder = tmp_path / "theirs"
    folder.mkdir()
    scan = read_volume(good.file(Phase.PORTAL_VENOUS))
    raw = (scan.data + 1024).clip(0).astype(np.int16)  # the intercept was forgotten
    write_volume(folder / f"{good.study_id}.nii.gz", raw, like=scan)
    arguments = [
        "evaluate",
        str(manifest.path),
        "--enhanced",
        f"theirs={folder}",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main([*arguments, "--segment", "fast", "--phantom-weights"]) == 1  # some failed
    printed = capsys.readouterr().out
    assert "Table II: pancreas" in printed
    assert "phantom weights" in printed
    cases = {(case.study_id, case.method): case for case in read_cases(tmp_path / "out" / "cases.csv")}
    reference = cases[good.study_id, "reference"]
    assert reference.dsc > 0.7
    assert 0 < reference.nsd <= 1
    assert not reference.failure
    assert cases[good.study_id, "degraded"].dsc > 0
    assert "HU" in cases[good.study_id, "theirs"].failure
    assert f"{bare.study_id}.nii.gz" in cases[bare.study_id, "theirs"].failure
    assert (bare.study_id, "reference") not in cases
    assert "Phantoms, not patients" in printed
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for case in cases.values():
        if case.failure:
            assert case.failure in printed
    assert report.count("phantom weights") > 4
    assert "above HU" in report
