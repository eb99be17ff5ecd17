"""Architecture or phases? Both networks, each with one phase and with three, trained on the same budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mpfnl.data.manifest import Manifest, Split
from mpfnl.errors import InputError
from mpfnl.evaluation import evaluate
from mpfnl.evaluation.overlap import OverlapOptions
from mpfnl.evaluation.scoring import EvaluateOptions, plan_segmentations
from mpfnl.evaluation.tables.printing import table_console
from mpfnl.experiments.budget import Machine, TrainingBudget
from mpfnl.experiments.candidates import Candidate, pfnl3d, rcan3d
from mpfnl.experiments.effects import Effect, Square, effects_table, measure_effects, write_effects
from mpfnl.experiments.training import TrainingRun, TrainingSet
from mpfnl.inference.tiling import Tiling
from mpfnl.models.loading import load_model
from mpfnl.phases import Phase
from mpfnl.segmentation.segmenter import Segmenter
from mpfnl.transforms.degradation import SECOND_ORDER_V1, Preset

EFFECTS = "ablation.csv"
EVALUATION = "evaluation"
SMALL_BUDGET = TrainingBudget(epochs=8, patches_per_study=10, batch_size=2)
"""The demonstration's: minutes on a CPU."""

SMALL_TILING = Tiling(32, 8)
"""Of the small models: tiles of the size of their training patches."""

SQUARE = Square()

NOTICE = (
    "Ablation: four networks, trained once each on the same patches with the same number of steps. Intervals "
    "and tests are over the studies; how far another training of the same network would end from this one "
    "is not in them."
)
SMALL_NOTICE = "The networks are small ones for tries, not of the published sizes."


@dataclass(frozen=True)
class AblationSettings:
    """How the four models are trained and evaluated.

    Args:
        budget: Of each training; also its seed is that of the evaluation.
        machine: Where.
        small: Small networks for tries, in place of those of the paper's sizes.
        tiling: Tile, overlap and halo in voxels, for whole scans; those that suit each model if None.
        overlap: How segmentations are compared, where there is a segmenter.
        degradation: What each phase is degraded with, in training and in the evaluation.
    """

    budget: TrainingBudget = field(default_factory=TrainingBudget)
    machine: Machine = field(default_factory=lambda: Machine(torch.device("cpu")))
    small: bool = False
    tiling: Tiling | None = None
    overlap: OverlapOptions = field(default_factory=OverlapOptions)
    degradation: Preset = SECOND_ORDER_V1


def candidates(small: bool = False) -> tuple[Candidate, ...]:
    """RCAN3D and PFNL3D with the portal venous phase alone, then both with three phases."""
    return tuple(
        make(names[place], phases, small=small)
        for place, phases in enumerate((1, 3))
        for make, names in ((rcan3d, SQUARE.rcan3d), (pfnl3d, SQUARE.pfnl3d))
    )


def run_ablation(
    manifest: Manifest,
    folder: Path,
    settings: AblationSettings | None = None,
    segmenter: Segmenter | None = None,
) -> list[Effect]:
    """Trains the four models, evaluates them, and tells what architecture and phases do.

    Started again in the same folder it goes on from what is finished: a model, an epoch, a study.

    Args:
        manifest: The cohort, clean, with studies to train on, to validate and to test.
        folder: For `weights/`, `training/`, `evaluation/` and `ablation.csv`.
        settings: How.
        segmenter: Of the evaluation; without one there is image quality only.

    Returns:
        The effects, as in `ablation.csv`.

    Raises:
        InputError: If the cohort cannot be used, a training diverged, or the folder holds trainings or an
            evaluation with other settings.
    """
    settings = settings or AblationSettings()
    options = _evaluation(settings)
    manifest.needed(Split.TEST)  # before days of training; and so the next
    plan_segmentations(manifest, Phase.PORTAL_VENOUS, options, segmenter)
    data = TrainingSet(manifest, settings.degradation)
    runs = [
        TrainingRun(candidate, data, folder, settings.budget, settings.machine)
        for candidate in candidates(settings.small)
    ]
    _check_same_settings(runs)
    console = table_console(run.candidate.name for run in runs)
    console.rule("1 of 3: training")
    weights = {run.candidate.name: run.train() for run in runs}
    console.rule("2 of 3: evaluation")
    loaded = {name: load_model(path).to(settings.machine.device) for name, path in weights.items()}
    notice = caution(settings)
    evaluation = evaluate(manifest, loaded, folder / EVALUATION, options, notice=notice, segmenter=segmenter)
    console.rule("3 of 3: architecture and phases")
    effects = measure_effects(evaluation.cases, SQUARE)
    warning = segmenter.notice if segmenter else ""
    write_effects(folder / EFFECTS, effects, warning)
    console.print(effects_table(evaluation.cases, effects, SQUARE, warning))
    console.print(notice, markup=False, highlight=False)
    console.print(f"effects: {folder / EFFECTS}", soft_wrap=True, markup=False)
    return effects


def _evaluation(settings: AblationSettings) -> EvaluateOptions:
    return EvaluateOptions(
        degradation=settings.degradation,
        seed=settings.budget.seed,
        tiling=settings.tiling,
        precision=settings.machine.precision,
        overlap=settings.overlap,
        progress=True,
    )


def _check_same_settings(runs: Sequence[TrainingRun]) -> None:
    for run in runs:
        differing = run.other_settings()
        if differing:
            raise InputError(
                f"{run.folder}: holds a training of {run.candidate.name} with other settings "
                f"({', '.join(differing)}); give another output folder"
            )


def caution(settings: AblationSettings) -> str:
    """What a reader of the report must know first.

    Args:
        settings: How the models are trained.
    """
    return f"{NOTICE} {SMALL_NOTICE}" if settings.small else NOTICE
