"""The command line as a person uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import mpfnl
from mpfnl.cli import main
from mpfnl.cli.main import COMMANDS, TRAINER_COMMANDS
from mpfnl.volumes import read_volume

SMALL_FIT = [
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.precision=32-true",  # bfloat16 takes ten times as long on most processors
    "--model.features=8",
    "--model.blocks=1",
    "--data.patch_size=16",
    "--data.patches_per_study=2",
    "--data.batch_size=2",
    "--data.workers=0",
]


def run(*words: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the installed command in a process of its own."""
    command = [str(Path(sys.executable).with_name("mpfnl")), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in [*COMMANDS, *TRAINER_COMMANDS])
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == mpfnl.__version__


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_option_is_explained(name: str) -> None:
    parser = COMMANDS[name].parser()
    assert COMMANDS[name].summary
    for action in parser._actions:
        assert action.help, f"{name}: {action.dest}"
    assert "example:" in parser.format_help()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["polish"], "no command 'polish'"),
        (["enhance", "--weights", "nowhere", "-o", "out.nii.gz"], "nowhere"),
        (["evaluate", "none.csv", "--models", "A=b", "-o", "out"], "none.csv"),
        (
            ["enhance", "--weights", "logs/last.ckpt", "-o", "out.nii.gz"],
            "logs/last.ckpt: no such checkpoint",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")  # of Lightning and jsonargparse, as in a process of one's own
def test_fit_then_validate_test_and_evaluate(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The way of DESIGN: the paper's recipe by name, then the checkpoint in every other command.

    `fit` runs in a process of its own, as the installed command does; the others in this one, for speed.
    """
    monkeypatch.chdir(tmp_path)

    def here(*words: str) -> tuple[int, str, str]:
        status = main(list(words))
        return status, *capsys.readouterr()

    options = ["--data.manifest", str(cohort), *SMALL_FIT]
    fitted = run("fit", "--config", "pfnl3d.yaml", *options, folder=tmp_path)
    assert fitted.returncode == 0, fitted.stderr[-2000:]
    log = tmp_path / "lightning_logs" / "version_0"
    used = yaml.safe_load((log / "config.yaml").read_text())
    assert used["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 1e-3
    checkpoint = str(log / "checkpoints" / "last.ckpt")
    assert (log / "montages" / "epoch=0000.png").exists()
    config = ["--config", str(log / "config.yaml"), "--ckpt_path", checkpoint]
    for command in ("validate", "test"):
        status, output, error = here(command, *config)
        assert status == 0, error[-2000:]
        assert f"{command.removesuffix('idate')}_psnr" in output
    status, _, error = here("validate", "--config", str(log / "config.yaml"))
    assert status == 2
    assert "give --ckpt_path" in error
    status, _, error = here("predict", *config)
    assert status == 0, error[-2000:]
    written = sorted(tmp_path.rglob("predictions/*.nii.gz"))
    assert [path.name for path in written] == ["test0.nii.gz", "test1.nii.gz"]
    status, output, error = here(
        "evaluate", str(cohort), "--models", f"PFNL3D={checkpoint}", "-o", "evaluation"
    )
    assert status == 0, error
    assert "Table I: portal venous phase, n = 2 studies" in output
    enhanced = read_volume(tmp_path / "evaluation" / "volumes" / "test0" / "PFNL3D.nii.gz").data
    assert np.abs(read_volume(written[0]).data.astype(int) - enhanced).max() <= 1  # the same scan, two ways


def test_fit_names_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    result = run("fit", "--config", "rcan3d.yaml", "--data.manifest", "none.csv", folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr.strip().splitlines()[-1].startswith("mpfnl: error: none.csv")
    assert not list(tmp_path.iterdir())


def test_only_the_bare_name_of_a_recipe_means_the_shipped_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mpfnl.cli.training import with_recipes

    monkeypatch.chdir(tmp_path)
    assert with_recipes(["fit", "--config=pfnl3d.yaml"])[1].endswith("recipes/pfnl3d.yaml")
    assert with_recipes(["fit", "--config", "no/pfnl3d.yaml"])[2] == "no/pfnl3d.yaml"
    (tmp_path / "pfnl3d.yaml").write_text("model: {}")
    assert with_recipes(["fit", "--config", "pfnl3d.yaml"])[2] == "pfnl3d.yaml"


@pytest.mark.parametrize("recipe", ["pfnl3d", "rcan3d"])
def test_recipes_are_the_papers(recipe: str) -> None:
    from importlib.resources import files

    settings = yaml.safe_load((files("mpfnl") / "recipes" / f"{recipe}.yaml").read_text())
    assert settings["trainer"]["max_epochs"] == 1000
    assert settings["trainer"]["precision"] == "bf16-mixed"
    assert settings["data"]["batch_size"] == 8
    assert settings["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.Adam"
