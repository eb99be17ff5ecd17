"""Evaluates models on a cohort: degrades each study, enhances it, scores it against the clean scan."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mpfnl.data.manifest import Manifest, Split, Study
from mpfnl.data.recipe import Recipe, degrade_study
from mpfnl.data.studies import load_study
from mpfnl.errors import InputError
from mpfnl.inference.enhance import EnhanceOptions, enhance_study
from mpfnl.inference.progress import track
from mpfnl.inference.tiling import Tiling, preferred_precision
from mpfnl.metrics.image import psnr, ssim
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phases import PHASES, Phase, Window
from mpfnl.study.cases import Case, read_cases, write_cases
from mpfnl.study.provenance import check_same_run, provenance
from mpfnl.study.tables import BASELINE, MetricTable, tabulate, write_summary
from mpfnl.transforms import Sharing
from mpfnl.transforms.degradation import SECOND_ORDER_V1, Preset
from mpfnl.volumes import Volume, read_volume, write_volume

CASES = "cases.csv"
SSIM_WINDOW = 11  # voxels
VOLUMES = "volumes"


@dataclass(frozen=True)
class EvaluateOptions:
    """How a cohort is evaluated.

    Args:
        split: Which studies.
        degradation: What each phase is degraded with.
        sharing: What the degraded phases of a study have in common.
        seed: Of the degradation.
        tiling: Tile and overlap in voxels.
        precision: Of the convolutions; chosen by the device if None.
        progress: Show a progress bar.
    """

    split: Split = Split.TEST
    degradation: Preset = SECOND_ORDER_V1
    sharing: Sharing = Sharing.NOTHING
    seed: int = 0
    tiling: Tiling = field(default_factory=Tiling)
    precision: torch.dtype | None = None
    progress: bool = False


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Args:
        folder: The evaluation folder.
        cases: One row a study and method.
        tables: PSNR and SSIM over the methods.
    """

    folder: Path
    cases: list[Case]
    tables: list[MetricTable]


def evaluate(
    manifest: Manifest,
    models: Mapping[str, EnhancementModule],
    folder: Path,
    options: EvaluateOptions | None = None,
) -> Evaluation:
    """Scores models on the studies of one split, against the clean scan and the degraded one.

    Each phase of a study is degraded by its own draw; the models get the degraded phases; PSNR and SSIM
    compare the target phase with the clean scan over the whole volume, windowed to [0, 1]. Scans are written
    to `volumes/STUDY/`, rows to `cases.csv` after each study. Started again in the same folder with the same
    cohort, weights and settings, it does only what is missing.

    Args:
        manifest: The cohort, clean; studies whose preparation failed are left out.
        models: Names and models, all of one target phase.
        folder: The evaluation folder; created.
        options: How.

    Raises:
        InputError: If no study of the split is usable, a name or a target does not fit, a file cannot be
            used, or the folder holds the results of another cohort, model or setting.
    """
    options = options or EvaluateOptions()
    studies = manifest.needed(options.split)
    target = _common_target(models)
    device = next(iter(models.values())).device
    enhancing = EnhanceOptions(options.tiling, options.precision or preferred_precision(device))
    recipe = Recipe(PHASES, target, options.degradation, seed=options.seed, sharing=options.sharing)
    folder.mkdir(parents=True, exist_ok=True)
    cases = read_cases(folder / CASES)
    record = provenance(manifest, studies, models, recipe, enhancing)
    check_same_run(folder, record, finished={case.study_id for case in cases})
    steps = track(studies, len(studies), "evaluating") if options.progress else studies
    for study in steps:
        if any(case.study_id == study.study_id for case in cases):
            continue
        cases += _evaluate_study(study, models, folder / VOLUMES / study.study_id, recipe, enhancing)
        write_cases(folder / CASES, cases)
    tables = tabulate(cases)
    write_summary(folder, tables)
    return Evaluation(folder, cases, tables)


def _common_target(models: Mapping[str, EnhancementModule]) -> Phase:
    targets = {model.target for model in models.values()}
    if not models:
        raise InputError("there is no model to evaluate; give at least one")
    if len(targets) != 1:
        raise InputError(
            f"the models restore different phases ({', '.join(sorted(targets))}); evaluate them apart"
        )
    for name in models:
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith((BASELINE, ".")):
            raise InputError(
                f"a model cannot be named {name!r}, since it names a file: take letters, digits, '+', '-' "
                f"and '_', and do not begin with {BASELINE!r}"
            )
    return targets.pop()


def _evaluate_study(
    study: Study,
    models: Mapping[str, EnhancementModule],
    folder: Path,
    recipe: Recipe,
    options: EnhanceOptions,
) -> list[Case]:
    reference = read_volume(study.file(recipe.target), recipe.target)
    if min(reference.shape) < SSIM_WINDOW:
        raise InputError(
            f"{reference.name}: {'x'.join(map(str, reference.shape))} voxels; SSIM needs {SSIM_WINDOW} a side"
        )
    degraded = _degrade(study, reference, recipe)
    folder.mkdir(parents=True, exist_ok=True)
    for phase, volume in degraded.items():
        write_volume(folder / f"{BASELINE}_{phase}.nii.gz", volume.data, like=volume)
    results = {BASELINE: degraded[recipe.target].data}
    for name, model in models.items():
        output = folder / f"{name}.nii.gz"
        results[name] = enhance_study(model, degraded, output, options).data
    return [_score(study, method, hu, reference.data, recipe.window) for method, hu in results.items()]


def _degrade(study: Study, reference: Volume, recipe: Recipe) -> dict[Phase, Volume]:
    degraded = degrade_study(load_study(study, recipe.loaded), recipe)
    return {
        phase: replace(reference, data=hu, path=study.file(phase), phase=phase, storage=hu.dtype)
        for phase, hu in degraded.items()
    }


def _score(
    study: Study, method: str, hu: NDArray[np.generic], reference: NDArray[np.generic], window: Window
) -> Case:
    unit, clean = (window.normalize(torch.as_tensor(scan).float())[None, None] for scan in (hu, reference))
    return Case(study.study_id, study.patient_id, method, float(psnr(unit, clean)), float(ssim(unit, clean)))


def volume_files(folder: Path, study_id: str, methods: Sequence[str], target: Phase) -> dict[str, Path]:
    """Where an evaluation's scans of a study's target phase lie, by method."""
    names = {method: f"{BASELINE}_{target}" if method == BASELINE else method for method in methods}
    return {method: folder / VOLUMES / study_id / f"{name}.nii.gz" for method, name in names.items()}
