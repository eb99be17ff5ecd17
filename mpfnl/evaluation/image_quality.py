"""Image quality: a study is degraded and enhanced, and each scan compared with the clean one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mpfnl.data.degradation import SampleSettings, degrade_study
from mpfnl.data.manifest import Study
from mpfnl.data.studies import load_study
from mpfnl.errors import ConflictError, GridError, InputError, NotFoundError
from mpfnl.evaluation.cases import Case
from mpfnl.evaluation.folder import BASELINE, VOLUMES, degraded_file
from mpfnl.evaluation.methods import Methods
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study
from mpfnl.inference.selection import needed_phases
from mpfnl.metrics.registry import image_metrics
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.volumes.grid import check_same_grid
from mpfnl.window import Window

SSIM_WINDOW = 11
"""Edge of SSIM's local window in voxels."""


def score_images(
    study: Study,
    methods: Methods,
    wanted: Sequence[str],
    folder: Path,
    settings: SampleSettings,
    options: EnhanceOptions,
) -> list[Case]:
    """Makes a study's scans by the wanted methods, writes them, and scores them.

    The study's phases are degraded, and a model receives those that it takes. Scans from a folder are copied,
    so that the evaluation folder holds every scan that a number comes from.

    Args:
        study: The study.
        methods: All methods.
        wanted: Names of the methods to score; the reference is never among them.
        folder: The evaluation folder.
        settings: Degradation, target and window.
        options: Settings of the enhancement.

    Returns:
        A row for each wanted method.

    Raises:
        InputError: A file of the study cannot be used. A model or a file of a folder that cannot be used is a
            failure in its row instead.
    """
    reference = read_volume(study.file(settings.target), settings.target).canonical()
    if min(reference.shape) < SSIM_WINDOW:
        raise GridError(
            f"{reference.name}: {'x'.join(map(str, reference.shape))} voxels; SSIM needs at least"
            f" {SSIM_WINDOW} along each axis"
        )
    (folder / VOLUMES / study.study_id).mkdir(parents=True, exist_ok=True)
    degraded: dict[Phase, Volume] = {}
    if set(wanted) & {BASELINE, *methods.models}:
        degraded = _degrade(study, reference, settings)
    cases = []
    for name in wanted:
        case = Case(study.study_id, study.patient_id, name)
        try:
            scan = _scan(case, methods, degraded, reference, folder, options)
        except InputError as error:
            cases.append(replace(case, failure=str(error)))
        else:
            cases.append(_scored(case, scan.data, reference.data, settings.window))
    return cases


def _degrade(study: Study, reference: Volume, settings: SampleSettings) -> dict[Phase, Volume]:
    settings = replace(settings, phases=study.phases)
    degraded = degrade_study(load_study(study, settings.loaded), settings)
    return {
        phase: replace(reference, data=hu, path=study.file(phase), phase=phase, storage=hu.dtype)
        for phase, hu in degraded.items()
    }


def _scan(
    case: Case,
    methods: Methods,
    degraded: Mapping[Phase, Volume],
    reference: Volume,
    folder: Path,
    options: EnhanceOptions,
) -> Volume:
    """The scan of a method, written to the evaluation folder."""
    path = folder / VOLUMES / case.study_id / f"{case.method}.nii.gz"
    if case.method in methods.models:
        model = methods.models[case.method]
        if needed := needed_phases(model, degraded):
            raise NotFoundError(
                f"study {case.study_id!r}: has no {' and no '.join(phase.label for phase in needed)} phase,"
                f" which {case.method} ({model.name}) needs; leave the study or the model out"
            )
        return enhance_study(model, degraded, path, options).canonical()
    if case.method in methods.folders:
        return _copied(methods.folders[case.method] / f"{case.study_id}.nii.gz", path, reference)
    for phase, volume in degraded.items():
        write_volume(degraded_file(folder, case.study_id, phase), volume.data, like=volume)
    return next(volume for phase, volume in degraded.items() if phase is reference.phase)


def _copied(source: Path, path: Path, reference: Volume) -> Volume:
    """A scan that other software enhanced, copied to the evaluation folder."""
    scan = read_volume(source, reference.phase).canonical()
    check_same_grid(reference, [scan])
    if np.array_equal(scan.data, reference.data):
        raise ConflictError(f"{scan.name}: is the clean scan itself; enhance the degraded scans")
    write_volume(path, scan.data, like=reference, dtype=scan.storage)
    return scan


def _scored(case: Case, hu: NDArray[Any], reference: NDArray[Any], window: Window) -> Case:
    scans = (torch.from_numpy(np.array(scan, np.float32, order="C")) for scan in (hu, reference))
    unit, clean = (window.normalize(scan)[None, None] for scan in scans)
    scores = {metric.column: metric(unit, clean) for metric in image_metrics()}
    return replace(case, psnr_db=scores.pop("psnr_db"), ssim=scores.pop("ssim"), added=scores)
