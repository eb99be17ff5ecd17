"""The first half of an evaluation: studies are degraded and enhanced, and the scans scored as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpfnl.data.manifest import Study
from mpfnl.data.recipe import Recipe, degrade_study
from mpfnl.data.studies import load_study
from mpfnl.errors import InputError
from mpfnl.evaluation.cases import BASELINE, Case
from mpfnl.evaluation.files import VOLUMES
from mpfnl.evaluation.given import EvaluatedModel
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study
from mpfnl.metrics.image import psnr, ssim
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.volumes.grid import check_same_grid
from mpfnl.window import Window

SSIM_WINDOW = 11  # voxels


@dataclass(frozen=True)
class Methods:
    """What is compared with the reference, beside the degraded scan.

    Args:
        models: Names and models; each enhances the degraded phases.
        folders: Names and folders with scans that something else enhanced, one STUDY.nii.gz a study, in HU on
            the reference's grid.
    """

    models: Mapping[str, EvaluatedModel]
    folders: Mapping[str, Path]

    @property
    def names(self) -> list[str]:
        """All that have image quality, in the order of the tables."""
        return [BASELINE, *self.models, *self.folders]


def score_images(
    study: Study,
    methods: Methods,
    wanted: Sequence[str],
    folder: Path,
    recipe: Recipe,
    options: EnhanceOptions,
) -> list[Case]:
    """Makes a study's scans by the methods that are wanted, writes them, and scores them.

    Scans from a folder are copied, so that the evaluation holds all that it speaks of.

    Args:
        study: The study.
        methods: All methods.
        wanted: The names of those that are to be made now; the reference is never among them.
        folder: The evaluation folder.
        recipe: How the study is degraded.
        options: How it is enhanced.

    Returns:
        A row for each method that is wanted.

    Raises:
        InputError: If a file of the study cannot be used. A model or a file of a folder that cannot be used
            is a failure in its row instead.
    """
    reference = read_volume(study.file(recipe.target), recipe.target)
    if min(reference.shape) < SSIM_WINDOW:
        raise InputError(
            f"{reference.name}: {'x'.join(map(str, reference.shape))} voxels; SSIM needs {SSIM_WINDOW} a side"
        )
    place = folder / VOLUMES / study.study_id
    place.mkdir(parents=True, exist_ok=True)
    degraded: dict[Phase, Volume] = {}
    if set(wanted) & {BASELINE, *methods.models}:
        degraded = _degrade(study, reference, recipe)
    cases = []
    for name in wanted:
        case = Case(study.study_id, study.patient_id, name)
        if name in methods.folders:
            cases.append(_scored_file(case, methods.folders[name], reference, place, recipe.window))
        else:
            try:
                scan = _made(name, methods, degraded, place, recipe.target, options)
            except InputError as error:
                cases.append(replace(case, failure=str(error)))
            else:
                cases.append(_scored(case, scan.data, reference.data, recipe.window))
    return cases


def _made(
    name: str,
    methods: Methods,
    degraded: Mapping[Phase, Volume],
    place: Path,
    target: Phase,
    options: EnhanceOptions,
) -> Volume:
    if name in methods.models:
        return enhance_study(methods.models[name], degraded, place / f"{name}.nii.gz", options)
    for phase, volume in degraded.items():
        write_volume(place / f"{BASELINE}_{phase}.nii.gz", volume.data, like=volume)
    return degraded[target]


def _degrade(study: Study, reference: Volume, recipe: Recipe) -> dict[Phase, Volume]:
    degraded = degrade_study(load_study(study, recipe.loaded), recipe)
    return {
        phase: replace(reference, data=hu, path=study.file(phase), phase=phase, storage=hu.dtype)
        for phase, hu in degraded.items()
    }


def _scored_file(case: Case, folder: Path, reference: Volume, place: Path, window: Window) -> Case:
    """Scores a scan that something else enhanced, of which a copy is kept."""
    try:
        scan = read_volume(folder / f"{case.study_id}.nii.gz", reference.phase)
        check_same_grid(reference, [scan])
    except InputError as error:
        return replace(case, failure=str(error))
    if np.array_equal(scan.data, reference.data):
        return replace(
            case, failure=f"{scan.name}: is the clean scan itself; give what was made of the degraded"
        )
    write_volume(place / f"{case.method}.nii.gz", scan.data, like=scan)
    return _scored(case, scan.data, reference.data, window)


def _scored(case: Case, hu: NDArray[Any], reference: NDArray[Any], window: Window) -> Case:
    unit, clean = (window.normalize(torch.as_tensor(scan).float())[None, None] for scan in (hu, reference))
    return replace(case, psnr_db=float(psnr(unit, clean)), ssim=float(ssim(unit, clean)))
