"""mpfnl enhance: what it tells, what it writes, what it refuses."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import mpfnl
from mpfnl.cli import main
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study
from mpfnl.inference.tiling import Tiling
from mpfnl.models.loading import load_model
from mpfnl.phases import Phase
from mpfnl.volumes import read_volume


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("w") / "RCAN3D"
    return mpfnl.RCAN3D(channels=16, groups=1, blocks=1).save_pretrained(folder)


@pytest.fixture
def source(cohort: Path) -> Path:
    return cohort.parent / "test0" / "portal_venous.nii.gz"


def enhance(weights: Path, source: Path, output: Path, *options: str) -> int:
    words = ["enhance", "--weights", str(weights), "--portal-venous", str(source), "-o", str(output)]
    return main([*words, *options])


def test_enhance_writes_the_scan(source: Path, weights: Path, tmp_path: Path) -> None:
    """The installed command, in a process of its own."""
    command = [str(Path(sys.executable).with_name("mpfnl")), "enhance", "--weights", str(weights)]
    command += ["--portal-venous", str(source), "-o", "out.nii.gz"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    used, memory, written = result.stdout.splitlines()
    assert "portal venous" in used
    assert re.search(r"[\d.]+ GB.*[\d.]+ GB.*64", memory)
    assert written.startswith("out.nii.gz: ")
    assert "portal venous" in written
    assert "40x36x30" in written
    expected = load_model(weights).enhance({"portal_venous": source})
    assert (read_volume(tmp_path / "out.nii.gz").data == expected.data).all()


@pytest.mark.parametrize(
    ("options", "tiling", "ensemble"),
    [
        (["--tile", "24"], Tiling(24, 11, 4), False),
        (["--tile", "24", "--overlap", "6"], Tiling(24, 6, 2), False),
        (["--tile", "24", "--overlap", "0", "--self-ensemble"], Tiling(24, 0, 0), True),
    ],
)
def test_options(
    source: Path, weights: Path, tmp_path: Path, options: list[str], tiling: Tiling, ensemble: bool
) -> None:
    assert enhance(weights, source, tmp_path / "out.nii.gz", "--precision", "fp32", *options) == 0
    how = EnhanceOptions(tiling, torch.float32, self_ensemble=ensemble)
    expected = enhance_study(load_model(weights), {Phase.PORTAL_VENOUS: source}, options=how)
    assert (read_volume(tmp_path / "out.nii.gz").data == expected.data).all()


@pytest.mark.parametrize(
    "kind", ["output is input", "missing file", "windowed", "phase missing", "no such device"]
)
def test_enhance_refuses_and_leaves_nothing(
    source: Path, weights: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = tmp_path / "pv.nii.gz"
    original = nib.load(source)
    values = np.asanyarray(original.dataobj)
    if kind == "windowed":
        values = np.clip((values + 175) / 450, 0, 1).astype(np.float32)
    nib.save(nib.Nifti1Image(values, original.affine), scan)
    if kind == "missing file":
        scan.unlink()
    before = scan.read_bytes() if scan.exists() else b""
    output = scan if kind == "output is input" else tmp_path / "out.nii.gz"
    phase = "--arterial" if kind == "phase missing" else "--portal-venous"
    words = ["enhance", "--weights", str(weights), phase, str(scan), "-o", str(output)]
    if kind == "no such device":
        words += ["--device", "cuda:99"]
    assert main(words) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    named = {"no such device": "cuda:99", "output is input": str(scan)}
    assert named.get(kind, "portal venous phase") in error
    assert (scan.read_bytes() if scan.exists() else b"") == before
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tile", "0"], "--tile 0"),
        (["--tile", "16", "--overlap", "16"], "--overlap 16"),
        (["--max-memory", "0"], "--max-memory 0"),
        (["--max-memory", "0.01"], "--max-memory"),
        (["--tile", "64", "--max-memory", "0.01"], "0.01 GB"),
    ],
)
def test_options_that_cannot_be(
    source: Path,
    weights: Path,
    tmp_path: Path,
    options: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert enhance(weights, source, tmp_path / "out.nii.gz", *options) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert words in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("phases", [["--phase", "portal_venous=FILE"], ["--portal-venous", "FILE"]])
def test_a_phase_has_a_long_and_a_short_option(
    source: Path, weights: Path, tmp_path: Path, phases: list[str]
) -> None:
    words = [word.replace("FILE", str(source)) for word in phases]
    assert main(["enhance", "--weights", str(weights), *words, "-o", str(tmp_path / "out.nii.gz")]) == 0
    assert (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--phase", "venous=a.nii.gz"], ["--phase venous=a.nii.gz", *Phase]),
        (["--phase", "arterial=a.nii.gz", "arterial=b.nii.gz"], ["--phase arterial=b.nii.gz", *Phase]),
        (["--phase", "arterial=a.nii.gz", "--arterial", "b.nii.gz"], ["--phase arterial=b.nii.gz", *Phase]),
        (["--phase", "a.nii.gz"], ["--phase a.nii.gz"]),
    ],
)
def test_a_phase_that_is_unknown_or_named_twice_is_refused(
    weights: Path, tmp_path: Path, words: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["enhance", "--weights", str(weights), *words, "-o", str(tmp_path / "out.nii.gz")]) == 2
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert all(text in error for text in named)


def test_every_phase_of_the_enumeration_has_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["enhance", "--help"])
    shown = capsys.readouterr().out
    assert all(f"--{phase.replace('_', '-')} FILE" in shown for phase in Phase)
    assert "-175" not in shown  # the window is the model's
