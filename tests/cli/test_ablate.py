"""mpfnl ablate: what its words mean, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mpfnl.cli.ablation import ablate
from mpfnl.cli.parsing import Command
from mpfnl.errors import InputError
from mpfnl.evaluation.overlap import Truth
from mpfnl.experiments import ablation
from mpfnl.experiments.ablation import AblationSettings
from mpfnl.experiments.budget import SMALL_BUDGET, TrainingBudget
from mpfnl.transforms.degradation import find_preset

COMMAND = Command(ablate, "mpfnl ablate cohort.csv --small -o ablation")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the command asks the study for."""
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(ablation, "run_ablation", lambda *arguments: calls.append(arguments))
    return calls


def settings_of(asked: list[tuple[Any, ...]]) -> AblationSettings:
    ((_, _, settings, _),) = asked
    assert isinstance(settings, AblationSettings)
    return settings


def test_the_papers_training_is_the_default(cohort: Path, asked: list[tuple[Any, ...]]) -> None:
    COMMAND.run([str(cohort), "-o", "out"])
    manifest, folder, settings, segmenter = asked[0]
    assert (manifest.path, folder, segmenter) == (cohort, Path("out"), None)
    assert settings.budget == TrainingBudget(epochs=1000, batch_size=8)
    assert not settings.small
    assert settings.tiling is None
    assert settings.machine.precision is None
    assert settings.degradation is find_preset("paper")


def test_small_is_another_default_and_what_is_said_goes_first(
    cohort: Path, asked: list[tuple[Any, ...]]
) -> None:
    COMMAND.run([str(cohort), "-o", "out", "--small", "--epochs", "3", "--seed", "4", "--truth", "mask"])
    settings = settings_of(asked)
    assert settings.small
    assert settings.budget.epochs == 3
    assert settings.budget.seed == 4
    assert settings.budget.batch_size == SMALL_BUDGET.batch_size
    assert settings.overlap.truth is Truth.MASK


def test_every_word_reaches_the_study(cohort: Path, asked: list[tuple[Any, ...]]) -> None:
    words = "--patches-per-study 5 --batch-size 4 --patch-size 24 --device cpu --precision fp32"
    others = ["--truth", "reference-scan", "--degradation", "mild"]
    COMMAND.run([str(cohort), "-o", "out", *words.split(), *others])
    settings = settings_of(asked)
    assert settings.budget == TrainingBudget(patches_per_study=5, batch_size=4, patch_size=24)
    assert settings.machine.device == torch.device("cpu")
    assert settings.machine.precision is torch.float32
    assert settings.degradation is find_preset("mild")
    assert settings.overlap.truth is Truth.REFERENCE_SCAN


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "--epochs 0"),
        (["--patch-size", "8"], "--patch-size 8: .*11"),
        (["--patches-per-study", "-2", "--small"], "--patches-per-study -2"),
        (["--seed", "-1"], "--seed -1"),
        (["--device", "cuda:99"], "--device cuda:99"),
        (["--phantom-weights"], "--phantom-weights"),
    ],
)
def test_what_cannot_be_is_one_line(
    cohort: Path, asked: list[tuple[Any, ...]], words: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        COMMAND.run([str(cohort), "-o", "out", *words])
    assert "\n" not in str(caught.value)
    assert not asked


def test_every_option_is_explained() -> None:
    parser = COMMAND.parser()
    assert all(action.help for action in parser._actions)
    assert "None" not in parser.format_help()
