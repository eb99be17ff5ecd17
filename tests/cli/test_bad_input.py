"""Every kind of bad input, from the command line: one line with file and phase, status 2, nothing written."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import mpfnl
from mpfnl.cli import main
from mpfnl.cli.main import COMMANDS
from mpfnl.errors import (
    DamagedError,
    FormatError,
    GridError,
    InputError,
    IntensityError,
    NotFoundError,
)
from mpfnl.phases import PHASES, Phase

AFFINE = np.diag([-1.5, -1.5, 2.5, 1.0])


def scan(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-200, 300, (20, 18, 16)).astype(np.int16)


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, 1)
    nib.save(image, path)


def patch_header(path: Path, offset: int, value: float) -> None:
    """Writes one float32 of the header past nibabel, which would repair it."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw[offset : offset + 4] = np.float32(value).tobytes()
    path.write_bytes(gzip.compress(bytes(raw)))


def with_value(value: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        values = scan().astype(np.float32)
        values[3, 4, 5] = value
        save(path, values)

    return spoil


def moved(shift: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        affine = AFFINE.copy()
        affine[0, 3] = shift
        save(path, scan(), affine)

    return spoil


def sheared(path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 2] = 0.6
    save(path, scan(), affine)


def folder(path: Path, content: bytes | None = None) -> None:
    """Puts a folder in the scan's place, empty or with one file of a DICOM series in it."""
    path.unlink()
    path.mkdir()
    if content is not None:
        (path / "IM1.dcm").write_bytes(content)


PIXDIM_X = 80  # byte offset of pixdim[1] in a NIfTI-1 header
SPOILED: dict[str, tuple[Callable[[Path], object], type[InputError]]] = {
    "missing": (Path.unlink, NotFoundError),
    "not an image": (lambda path: path.write_text("a letter"), FormatError),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-400]), DamagedError),
    "NaN": (with_value(np.nan), IntensityError),
    "Inf": (with_value(np.inf), IntensityError),
    "2-D": (lambda path: save(path, scan()[:, :, 0]), GridError),
    "4-D": (lambda path: save(path, np.stack([scan(), scan()], axis=-1)), GridError),
    "different grid": (moved(2.0), GridError),
    "no overlap": (moved(5000.0), GridError),
    "zero spacing": (lambda path: patch_header(path, PIXDIM_X, 0.0), GridError),
    "negative spacing": (lambda path: patch_header(path, PIXDIM_X, -1.5), GridError),
    "sheared": (sheared, GridError),
    "folder without DICOM": (folder, NotFoundError),
    "unreadable DICOM": (lambda path: folder(path, bytes(128) + b"DICM"), DamagedError),
    "windowed": (lambda path: save(path, ((scan() + 200) / 500).astype(np.float32)), IntensityError),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    return mpfnl.PFNL3D(features=8, blocks=1).save_pretrained(folder / "PFNL3D")


def enhance_words(folder: Path, weights: Path, output: Path) -> list[str]:
    files = [
        word for name in PHASES for word in (f"--{name.replace('_', '-')}", str(folder / f"{name}.nii.gz"))
    ]
    return ["--weights", str(weights), *files, "-o", str(output)]


def run_enhance(folder: Path, weights: Path, output: Path) -> int:
    return main(["enhance", *enhance_words(folder, weights, output)])


@pytest.mark.parametrize("kind", list(SPOILED))
@pytest.mark.parametrize("phase", ["arterial", "portal_venous"])
def test_enhance(
    tmp_path: Path, weights: Path, kind: str, phase: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in PHASES:
        save(tmp_path / f"{name}.nii.gz", scan())
    spoil, error = SPOILED[kind]
    bad = tmp_path / f"{phase}.nii.gz"
    spoil(bad)
    before = sorted(tmp_path.iterdir())
    assert run_enhance(tmp_path, weights, tmp_path / "out.nii.gz") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    # Against the others' grid the target phase is the reference: any of the other two may be named.
    named = PHASES[:2] if kind in ("different grid", "no overlap") and phase == "portal_venous" else [phase]
    assert any(f"{name}.nii.gz" in line and f"{Phase(name).label} phase" in line for name in named), line
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(error, match=r"\.nii\.gz"):
        COMMANDS["enhance"].run(enhance_words(tmp_path, weights, tmp_path / "out.nii.gz"))


@pytest.mark.parametrize("name", PHASES)
def test_output_that_is_an_input(
    tmp_path: Path, weights: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for phase in PHASES:
        save(tmp_path / f"{phase}.nii.gz", scan())
    target = tmp_path / f"{name}.nii.gz"
    before = target.read_bytes()
    (tmp_path / "alias.nii.gz").symlink_to(target)
    for output in (target, tmp_path / "alias.nii.gz"):
        assert run_enhance(tmp_path, weights, output) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert str(output) in line
    assert target.read_bytes() == before


HEADER = "study_id,patient_id,split,noncontrast,arterial,portal_venous"
MANIFESTS = {
    "empty": ("", "empty"),
    "no rows": (f"{HEADER}\n", "no studies"),
    "patient in two splits": (f"{HEADER}\ns1,p1,train,a,a,a\ns2,p1,test,a,a,a\n", "p1"),
    "unknown column": (f"{HEADER},pancraes\ns1,p1,test,a,a,a,a\n", "pancraes"),
    "missing phase": (f"{HEADER}\ns1,p1,test,a,a,\n", "portal_venous"),
}


@pytest.mark.parametrize("kind", list(MANIFESTS))
def test_manifest(tmp_path: Path, weights: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, word = MANIFESTS[kind]
    save(tmp_path / "scan.nii.gz", scan())
    (tmp_path / "cohort.csv").write_text(re.sub(r",a\b", ",scan.nii.gz", text))
    words = [
        "evaluate",
        str(tmp_path / "cohort.csv"),
        "--models",
        f"A={weights}",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cohort.csv" in line
    assert word in line
    assert not (tmp_path / "out").exists()
