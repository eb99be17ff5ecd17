"""The installed wheel without extras: what works, and what it says of the rest."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from bare_environment import BareEnvironment

import mpfnl

OF_EXTRAS = ("ants", "totalsegmentator", "distributed", "huggingface_hub")
SMALL_FIT = ["--trainer.max_epochs=1", "--model.features=8", "--model.blocks=1", "--data.patch_size=16"]
SMALL_FIT += ["--data.patches_per_study=1", "--data.batch_size=1", "--data.workers=0"]
CHECKPOINT = "lightning_logs/version_0/checkpoints/last.ckpt"
PREPARE = ["prepare", "cohort.csv", "-o", "out"]
EVALUATE = ["evaluate", "cohort.csv", "-o", "out", "--split", "val"]
SCHEDULER = ["--scheduler", "tcp://127.0.0.1:9"]
DEMO = """
from pathlib import Path
from mpfnl.data.manifest import SplitCounts
from mpfnl.experiments.budget import TrainingBudget
from mpfnl.experiments.demo import DemoSettings, run_demo
patients = SplitCounts(train=1, val=1, test=1)
budget = TrainingBudget(epochs=1, patches_per_study=1, batch_size=1, patch_size=16)
small = DemoSettings(patients, budget=budget)
run_demo(Path("demo"), settings=small)
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def study(bare: BareEnvironment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the smallest demonstration was run; not to be written to."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "printed.txt").write_text(succeed(bare.run("python", "-c", DEMO, folder=folder)))
    return folder


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_it_is_the_wheel_and_has_no_extras(bare: BareEnvironment, tmp_path: Path) -> None:
    script = f"""
import importlib.util, sys, mpfnl
assert "torch" not in sys.modules, "the import is not cheap"
print(mpfnl.__file__)
print(*(name for name in {OF_EXTRAS} if importlib.util.find_spec(name)))
import torch
print(tuple(mpfnl.PFNL3D()(torch.rand(1, 3, 8, 8, 8)).shape))
"""
    file, extras, shape = succeed(bare.run("python", "-c", script, folder=tmp_path)).splitlines()
    assert Path(file).is_relative_to(bare.site_packages)
    assert not extras
    assert shape == "(1, 1, 8, 8, 8)"


def test_help_and_version(bare: BareEnvironment, tmp_path: Path) -> None:
    assert "  prepare " in succeed(bare.run("mpfnl", "--help", folder=tmp_path))
    assert succeed(bare.run("mpfnl", "--version", folder=tmp_path)).strip() == mpfnl.__version__


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("register", PREPARE),
        ("segment", [*PREPARE, "--steps", "none", "--crop", "segmentation"]),
        ("cluster", [*PREPARE, "--steps", "none", *SCHEDULER]),
        ("segment", [*EVALUATE, "--segment", "full"]),
        ("segment", [*EVALUATE, "--segment", "fast", "--phantom-weights"]),
        ("hub", [*EVALUATE, "--models", "M=owner/name"]),
        ("hub", ["enhance", "--weights", "owner/name", "--portal-venous", "pv.nii.gz", "-o", "out.nii.gz"]),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[0]} {' '.join(value[4:])}",
)
def test_a_missing_extra_is_one_line(
    bare: BareEnvironment, study: Path, tmp_path: Path, extra: str, words: list[str]
) -> None:
    cohort = study / "demo" / "cohort" / "cohort.csv"
    done = bare.run("mpfnl", *(cohort if word == "cohort.csv" else word for word in words), folder=tmp_path)
    assert done.returncode == 2, done.stderr[-2000:]
    (line,) = done.stderr.splitlines()
    assert line.startswith("mpfnl: error: ")
    assert f"pip install 'mpfnl[{extra}]'" in line
    assert not done.stdout
    assert not list(tmp_path.iterdir())


def test_the_demonstration_leaves_table_ii_out(study: Path) -> None:
    told = (study / "printed.txt").read_text()
    assert "Table II is left out: this needs TotalSegmentator" in told
    assert "pip install 'mpfnl[segment]'" in told
    assert "Table I: " in told
    assert (study / "demo" / "evaluation" / "report.html").is_file()


def test_the_other_commands_work(bare: BareEnvironment, study: Path, tmp_path: Path) -> None:
    cohort = study / "demo" / "cohort" / "cohort.csv"
    (portal_venous, *_) = sorted(cohort.parent.glob("*/portal_venous.nii.gz"))
    scans = [f"--{phase}={portal_venous.with_name(phase)}.nii.gz" for phase in ("noncontrast", "arterial")]
    for words in (
        ["degrade", portal_venous, "-o", "low.nii.gz", "--record", "params.json"],
        ["prepare", cohort, "-o", "prepared", "--steps", "none"],
        ["fit", "--config", "pfnl3d.yaml", "--data.manifest", "prepared/cohort.csv", *SMALL_FIT],
        ["enhance", "--weights", CHECKPOINT, *scans, "--portal-venous", portal_venous, "-o", "high.nii.gz"],
        ["evaluate", cohort, "-o", "evaluation"],
    ):
        succeed(bare.run("mpfnl", *words, folder=tmp_path))
    made = ["low.nii.gz", "prepared/index.html", CHECKPOINT, "high.nii.gz", "evaluation/report.html"]
    assert all((tmp_path / name).is_file() for name in made)
