"""The eight changes of CONTRIBUTING.md, each made from outside of the package and run on a tiny phantom.

A window, a degradation, a network, a metric, a segmenter, a data set and a file format are plug-ins in the
test itself; a phase is one line in a copy of `mpfnl/phases.py`.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

import mpfnl
from mpfnl.cli import main
from mpfnl.data.manifest import Manifest, Study, read_manifest, write_manifest
from mpfnl.datasets import register_dataset
from mpfnl.datasets.cohort import SourceStudy, assemble_cohort
from mpfnl.evaluation.scoring import EvaluateOptions
from mpfnl.metrics import register_metric
from mpfnl.metrics.registry import unregister_metric
from mpfnl.networks import register_network
from mpfnl.phantoms import PhantomConfig, write_cohort
from mpfnl.phases import PHASES, Phase
from mpfnl.transforms import Degradation, Preset
from mpfnl.transforms.degradation.presets import register_preset
from mpfnl.volumes import Grid, Volume, register_format
from mpfnl.volumes.formats import REGISTERED, Format, StoredArray

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",  # one process is what a small test wants
    "ignore:.*isinstance.treespec, LeafSpec.*",  # inside Lightning
)

ROOT = Path(__file__).resolve().parents[1]
TINY = PhantomConfig(
    in_plane_mm=(6.0, 7.0), slice_mm=(8.0, 9.0), coverage_mm=(130.0, 140.0), depth_fraction=0.8
)
LIVER = mpfnl.Window(level=60, width=150)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of three tiny phantoms: one to train on, one to validate, one to test."""
    return write_cohort(tmp_path_factory.mktemp("phantoms"), 3, seed=77, config=TINY)


def fit(model: mpfnl.EnhancementModule, manifest: Path, **options: Any) -> mpfnl.EnhancementModule:
    """Trains for one step of two patches."""
    data = mpfnl.MultiphaseDataModule(
        manifest,
        phases=model.phases,
        batch_size=2,
        patch_size=12,
        patches_per_study=2,
        val_patches_per_study=1,
        workers=0,
        **options,
    )
    before = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(model, data)
    assert not torch.equal(torch.cat([weight.detach().flatten() for weight in model.parameters()]), before)
    return model


def evaluated(manifest: Path | Manifest, output: Path, **arguments: Any) -> list[dict[str, str]]:
    """The rows of `cases.csv` of an evaluation whose report was written."""
    mpfnl.evaluate(manifest, arguments.pop("models", {}), output, **arguments)
    assert (output / "report.html").is_file()
    with (output / "cases.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def row(rows: Sequence[dict[str, str]], method: str) -> dict[str, str]:
    (only,) = (row for row in rows if row["method"] == method)
    assert not only["failure"], only
    return only


def small_pfnl3d(**options: Any) -> mpfnl.PFNL3D:
    return mpfnl.PFNL3D(features=4, blocks=1, **options)


def test_a_phase(phantoms: Path, tmp_path: Path) -> None:
    """One line in `mpfnl/phases.py`: manifest, training, weights, command line and report follow."""
    package = tmp_path / "code" / "mpfnl"
    shutil.copytree(ROOT / "mpfnl", package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    source = package / "phases.py"
    last = '    DELAYED = "delayed"\n'
    assert source.read_text().count(last) == 1
    source.write_text(source.read_text().replace(last, last + '    NEPHROGRAPHIC = "nephrographic"\n'))
    script = tmp_path / "new_phase.py"
    script.write_text(
        """
import sys, warnings
from dataclasses import replace
from pathlib import Path
import mpfnl
from mpfnl.cli import main
from mpfnl.data.manifest import read_manifest, write_manifest
from mpfnl.phases import Phase
from lightning.pytorch import Trainer

warnings.simplefilter("ignore")
source, out = Path(sys.argv[1]), Path(sys.argv[2])
late = Phase.NEPHROGRAPHIC
studies = [
    replace(study, scans={**study.scans, late: study.file(Phase.PORTAL_VENOUS)})
    for study in read_manifest(source)
]
manifest = write_manifest(out / "cohort.csv", studies)
assert all(study.phases[-1] is late for study in read_manifest(manifest.path))
phases = ["portal_venous", "nephrographic"]
model = mpfnl.PFNL3D(phases=phases, features=4, blocks=1)
small = dict(patch_size=12, batch_size=1, patches_per_study=1, val_patches_per_study=1, workers=0)
data = mpfnl.MultiphaseDataModule(manifest.path, phases, **small)
quiet = dict(logger=False, enable_checkpointing=False, enable_progress_bar=False)
Trainer(max_steps=1, accelerator="cpu", **quiet).fit(model, data)
weights = model.save_pretrained(out / "weights")
assert mpfnl.load(weights).phases == (Phase.PORTAL_VENOUS, late)
files = studies[0].scans
words = ["--portal-venous", str(files[Phase.PORTAL_VENOUS]), "--nephrographic", str(files[late])]
assert main(["enhance", "--weights", str(weights), *words, "-o", str(out / "enhanced.nii.gz")]) == 0
mpfnl.evaluate(manifest, {"mine": weights}, out / "evaluation")
"""
    )
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    command = [sys.executable, str(script), str(phantoms), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "nephrographic" in (tmp_path / "evaluation" / "report.html").read_text()
    assert (tmp_path / "evaluation" / "volumes").is_dir()
    assert (tmp_path / "enhanced.nii.gz").is_file()


def test_a_window(phantoms: Path, tmp_path: Path) -> None:
    """An argument: a liver window through fit, save, load, enhance and evaluate."""
    model = fit(small_pfnl3d(window=LIVER), phantoms, window=LIVER)
    loaded = mpfnl.load(model.save_pretrained(tmp_path / "weights"))
    assert loaded.window == LIVER
    (study,) = read_manifest(phantoms).split("test")
    enhanced = mpfnl.enhance(loaded, dict(study.scans)).data
    source = mpfnl.read(study.file(Phase.PORTAL_VENOUS)).data
    air = source < -500
    np.testing.assert_array_equal(enhanced[air], source[air])
    evaluated(phantoms, tmp_path / "evaluation", models={"liver": tmp_path / "weights"})
    report = (tmp_path / "evaluation" / "report.html").read_text()
    assert "135" in report
    assert "275" not in report.replace("\u2212", "-").split("</style>")[-1].split("provenance")[0][:4000]


@dataclass(frozen=True)
class Ring(Degradation):
    """A ring artefact: a constant added within an annulus around the centre of each slice."""

    kind = "test-ring"
    hu: float

    def apply(self, hu: Tensor, spacing: Sequence[float]) -> Tensor:
        x, y = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2 for side in hu.shape[:2])
        radius = ((x * spacing[0]) ** 2)[:, None] + ((y * spacing[1]) ** 2)[None, :]
        ring = (radius.sqrt() - 12).abs() < 6
        return hu + self.hu * ring[:, :, None]


def test_a_degradation(phantoms: Path, tmp_path: Path) -> None:
    """A subclass in a registered preset: training, evaluation and command line take it, records replay it."""
    register_preset(Preset("test-ring-v1", 1, stages=(Ring(60.0),)), "test-ring")
    fit(small_pfnl3d(), phantoms, degradation="test-ring")
    (study,) = read_manifest(phantoms).split("test")
    clean = mpfnl.read(study.file(Phase.PORTAL_VENOUS)).data
    once, again = tmp_path / "once.nii.gz", tmp_path / "again.nii.gz"
    words = ["degrade", str(study.file(Phase.PORTAL_VENOUS))]
    record = str(tmp_path / "record.json")
    assert main([*words, "-o", str(once), "--preset", "test-ring", "--record", record]) == 0
    assert main([*words, "-o", str(again), "--replay", record]) == 0
    degraded = mpfnl.read(once).data
    assert set(np.unique(degraded.astype(int) - clean)) == {0, 60}
    np.testing.assert_array_equal(mpfnl.read(again).data, degraded)
    options = EvaluateOptions(degradation=mpfnl.transforms.find_preset("test-ring"))
    rows = evaluated(phantoms, tmp_path / "evaluation", options=options)
    assert float(row(rows, "degraded")["psnr_db"]) > 10


@register_network("test-two-layers")
class TwoLayers(nn.Module):
    """Two convolutions over the stacked phases, added to the target phase."""

    def __init__(self, phases: int, target: int, width: int = 4) -> None:
        super().__init__()
        self.target = target
        self.layers = nn.Sequential(
            nn.Conv3d(phases, width, 3, padding=1), nn.ReLU(), nn.Conv3d(width, 1, 3, padding=1)
        )

    def forward(self, phases: Tensor) -> Tensor:
        return phases[:, self.target : self.target + 1] + self.layers(phases)


def test_a_network(phantoms: Path, tmp_path: Path) -> None:
    """A registered module: it trains, saves, loads, enhances and is evaluated."""
    model = mpfnl.EnhancementModule("test-two-layers", options={"width": 3})
    weights = fit(model, phantoms).save_pretrained(tmp_path / "weights")
    loaded = mpfnl.load(weights)
    assert isinstance(loaded.network, TwoLayers)
    (study,) = read_manifest(phantoms).split("test")
    enhanced = mpfnl.enhance(weights, dict(study.scans), tmp_path / "enhanced.nii.gz")
    np.testing.assert_array_equal(mpfnl.read(tmp_path / "enhanced.nii.gz").data, enhanced.data)
    rows = evaluated(phantoms, tmp_path / "evaluation", models={"mine": weights})
    assert float(row(rows, "mine")["psnr_db"]) > 5


@pytest.fixture
def largest_error() -> Iterator[str]:
    register_metric("Largest error", lambda enhanced, clean: (enhanced - clean).abs().max(), decimals=3)
    yield "largest_error"
    unregister_metric("Largest error")


def test_a_metric(phantoms: Path, tmp_path: Path, largest_error: str) -> None:
    """A registered function: a column of `cases.csv`, a row of the summary and of the report."""
    rows = evaluated(phantoms, tmp_path / "evaluation", models={"mine": small_pfnl3d()})
    assert 0 < float(row(rows, "mine")[largest_error]) <= 1
    assert f"{largest_error},mine," in (tmp_path / "evaluation" / "summary.csv").read_text()
    assert "Largest error" in (tmp_path / "evaluation" / "report.html").read_text()


class BrightSegmenter:
    """Every voxel of more than 90 HU is pancreas."""

    structures = ("pancreas",)
    notice = ""

    def describe(self) -> dict[str, Any]:
        return {"software": "threshold", "hu": 90}

    def segment(self, scan: Volume) -> dict[str, np.ndarray]:
        return {"pancreas": scan.data > 90}


def test_a_segmenter(phantoms: Path, tmp_path: Path) -> None:
    """An object with four members: DSC and NSD of every method."""
    models = {"mine": small_pfnl3d()}
    rows = evaluated(phantoms, tmp_path / "evaluation", models=models, segmenter=BrightSegmenter())
    (study,) = read_manifest(phantoms).split("test")
    scan = mpfnl.read(study.file(Phase.PORTAL_VENOUS)).data
    mask = mpfnl.volumes.read_mask(study.masks["pancreas"])
    assert float(row(rows, "reference")["dsc"]) == pytest.approx(
        mpfnl.metrics.dice(scan > 90, mask), abs=1e-6
    )
    assert "threshold" in (tmp_path / "evaluation" / "provenance.json").read_text()


def test_a_data_set(phantoms: Path, tmp_path: Path) -> None:
    """A registered function: `mpfnl manifest NAME` writes its manifest, which trains a model."""

    @register_dataset("test-flat", "A folder of PATIENT_PHASE.nii.gz")
    def find_flat(root: Path, seed: int = 0, masks: Path | None = None) -> Any:
        patients = sorted({path.name.partition("_")[0] for path in root.glob("*_*.nii.gz")})
        studies = [
            SourceStudy(name, name, {phase: root / f"{name}_{phase}.nii.gz" for phase in PHASES})
            for name in patients
        ]
        return assemble_cohort(root, seed, studies=studies, excluded=[])

    root = tmp_path / "flat"
    root.mkdir()
    for number, study in enumerate(read_manifest(phantoms)):
        for phase, file in study.scans.items():
            shutil.copy(file, root / f"p{number}_{phase}.nii.gz")
    assert main(["manifest", "test-flat", str(root), "-o", str(tmp_path / "cohort.csv")]) == 0
    found = read_manifest(tmp_path / "cohort.csv")
    assert {study.split for study in found} == {"train", "val", "test"}
    fit(small_pfnl3d(), tmp_path / "cohort.csv")


class ArrayFile(Format):
    """HU and affine in a NumPy archive."""

    def matches(self, path: Path) -> bool:
        return path.suffix == ".npz" and path.is_file()

    def open(self, path: Path, name: str) -> StoredArray:
        with np.load(path) as content:
            return StoredArray(content["hu"], Grid(content["hu"].shape, content["affine"]))


@pytest.fixture
def array_files() -> Iterator[None]:
    added = register_format(ArrayFile())
    yield
    REGISTERED.remove(added)


def test_a_file_format(phantoms: Path, tmp_path: Path, array_files: None) -> None:
    """One entry: scans of the format are listed, trained on, enhanced and evaluated as any other."""
    studies = []
    for study in read_manifest(phantoms):
        scans = {}
        for phase, file in study.scans.items():
            scans[phase] = tmp_path / f"{study.study_id}_{phase}.npz"
            volume = mpfnl.read(file)
            np.savez(scans[phase], hu=volume.data, affine=volume.affine)
        studies.append(Study(study.study_id, study.patient_id, study.split, scans))
    manifest = write_manifest(tmp_path / "cohort.csv", studies)
    read_manifest(manifest.path)  # the files are found
    model = fit(small_pfnl3d(), manifest.path)
    (tested,) = manifest.split("test")
    (original,) = read_manifest(phantoms).split("test")
    enhanced = mpfnl.enhance(model, dict(tested.scans))
    np.testing.assert_array_equal(enhanced.data, mpfnl.enhance(model, dict(original.scans)).data)
    rows = evaluated(manifest, tmp_path / "evaluation", models={"mine": model})
    assert float(row(rows, "mine")["psnr_db"]) > 5
