"""Ablation of architecture and phases: two networks with one phase and with several, on one budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mpfnl.data.manifest import Manifest, Split
from mpfnl.errors import ConflictError
from mpfnl.evaluation import evaluate
from mpfnl.evaluation.overlap import OverlapOptions
from mpfnl.evaluation.scoring import EvaluateOptions, plan_segmentations
from mpfnl.evaluation.tables.printing import table_console
from mpfnl.experiments.budget import Machine, TrainingBudget
from mpfnl.experiments.candidates import Candidate, new_candidate
from mpfnl.experiments.effects import Effect, Square, effects_table, measure_effects, write_effects
from mpfnl.experiments.training import TrainingRun, TrainingSet
from mpfnl.inference.tiling import Tiling
from mpfnl.models.loading import load_model
from mpfnl.phases import PHASES, Phase
from mpfnl.segmentation.segmenter import Segmenter
from mpfnl.transforms.degradation import SECOND_ORDER_V1, Preset

EFFECTS = "ablation.csv"
EVALUATION = "evaluation"
SQUARE = Square()

NOTICE = (
    "Ablation: four networks, trained once each on the same patches with the same number of steps. Intervals "
    "and tests cover the variation between studies, not that between repeated trainings of a network."
)
SMALL_NOTICE = "The networks are smaller than the published ones."


@dataclass(frozen=True)
class AblationSettings:
    """Settings of an ablation.

    Args:
        budget: Training budget of each model; its seed is also that of the evaluation.
        machine: Device and precision.
        small: Whether to train small networks instead of those of the paper's sizes.
        tiling: Tile, overlap and halo in voxels for whole scans; chosen for each model if None.
        overlap: Comparison of the segmentations, where there is a segmenter.
        degradation: Degradation of each phase, in training and in the evaluation.
    """

    budget: TrainingBudget = field(default_factory=TrainingBudget)
    machine: Machine = field(default_factory=lambda: Machine(torch.device("cpu")))
    small: bool = False
    tiling: Tiling | None = None
    overlap: OverlapOptions = field(default_factory=OverlapOptions)
    degradation: Preset = SECOND_ORDER_V1


def candidates(small: bool = False) -> tuple[Candidate, ...]:
    """RCAN3D and PFNL3D with the target phase alone, then both with the paper's phases."""
    return tuple(
        new_candidate(network, phases, name=names[column], small=small)
        for column, phases in enumerate((1, len(PHASES)))
        for network, names in (("RCAN3D", SQUARE.rcan3d), ("PFNL3D", SQUARE.pfnl3d))
    )


def run_ablation(
    manifest: Manifest,
    folder: Path,
    settings: AblationSettings | None = None,
    segmenter: Segmenter | None = None,
) -> list[Effect]:
    """Trains the four models, evaluates them, and measures the effects of architecture and phases.

    A repeated run in the same folder continues after the last finished model, epoch or study.

    Args:
        manifest: Cohort of clean scans with studies in the splits train, val and test.
        folder: Output folder of `weights/`, `training/`, `evaluation/` and `ablation.csv`.
        settings: Settings; the defaults if None.
        segmenter: Segmenter of the evaluation; without one, only image quality is evaluated.

    Returns:
        The effects, as in `ablation.csv`.

    Raises:
        InputError: The cohort cannot be used, or a training diverged.
        ConflictError: The folder holds trainings or an evaluation with other settings.
    """
    settings = settings or AblationSettings()
    options = _evaluation(settings)
    manifest.needed(Split.TEST)  # this and the next line refuse a cohort before days of training
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
            raise ConflictError(
                f"{run.folder}: holds a training of {run.candidate.name} with other settings "
                f"({', '.join(differing)}); give another output folder"
            )


def caution(settings: AblationSettings) -> str:
    """Caution at the top of the report.

    Args:
        settings: Settings of the ablation.
    """
    return f"{NOTICE} {SMALL_NOTICE}" if settings.small else NOTICE
