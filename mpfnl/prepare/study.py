"""Preparation of one study: read, crop, register, resample, measure, write."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from mpfnl.data.manifest import Quality, Study, mask_phase
from mpfnl.errors import GridError, InputError, InputWarning
from mpfnl.files import atomic_file, file_digest, write_text
from mpfnl.inference.coverage import CoverageMeter
from mpfnl.phases import Phase
from mpfnl.prepare.alignment import Alignment
from mpfnl.prepare.cropping import find_box, scan_body
from mpfnl.prepare.quality import PhaseQuality, measure, study_verdict
from mpfnl.prepare.record import RECORD, SHEET, file_name, versions, without_paths
from mpfnl.prepare.registration import register
from mpfnl.prepare.resampling import (
    Image,
    isotropic_grid,
    resample,
    to_image,
    to_voxels,
)
from mpfnl.prepare.review import draw_sheet
from mpfnl.prepare.settings import PrepareSettings
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.volumes.grid import Box, check_same_grid
from mpfnl.volumes.intensity import as_int16
from mpfnl.volumes.masks import read_label_volume, split_labels
from mpfnl.window import AIR_HU, COVERED_FROM_HU, UNCOVERED_HU

REFERENCE = Phase.PORTAL_VENOUS
"""The phase to which the others are registered."""

SHEET_MM = 2.0  # voxel size of the contact sheet
LEAST_COVERAGE = 0.05  # share of the reference's field of view that a phase must cover

_INTERPOLATORS = {"linear": sitk.sitkLinear, "bspline": sitk.sitkBSpline}


@dataclass(frozen=True)
class RegisteredPhase:
    """A phase on the portal venous grid, its quality, and its contact sheet.

    The study uses it unless its verdict is `fail`.

    Args:
        hu: `(x, y, z)`, int16.
        masks: Masks of the phase by manifest column, on the portal venous grid.
        quality: Quality of the registration.
        sheet: Both scans on the grid of the contact sheet.
    """

    hu: NDArray[np.int16]
    masks: dict[str, NDArray[Any]]
    quality: PhaseQuality
    sheet: Alignment


def prepare_study(study: Study, settings: PrepareSettings, key: str, folder: Path) -> dict[str, Any]:
    """Prepares one study into an empty folder.

    Args:
        study: Study of the raw manifest, with a portal venous scan and any other phases.
        settings: Settings of the preparation.
        key: Key of the work, which the record holds.
        folder: Folder for the phases (`<phase>.nii`, int16), the masks, `sheet.png` and `record.json`.

    Returns:
        The record. Its verdict is the worst of the phases that are used; it is `warn` at best where a phase
        is left out, or a scan was changed on reading (a tilted gantry). `left_out` holds the reasons of the
        phases whose own verdict is `fail`, whose files are in the folder for review, and of those that cannot
        be registered, of which there are no files.

    Raises:
        InputError: A scan cannot be used; the message names its file and phase.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputWarning)
        record = _prepare(study, settings, key, folder)
    doubts = [without_paths(study, str(w.message)) for w in caught if issubclass(w.category, InputWarning)]
    if doubts:
        record["reasons"] = [*dict.fromkeys(doubts), *record["reasons"]]
        if record["quality"] == Quality.PASS:
            record["quality"] = Quality.WARN.value
    write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return record


def _prepare(study: Study, settings: PrepareSettings, key: str, folder: Path) -> dict[str, Any]:
    target = read_volume(study.file(REFERENCE), REFERENCE).canonical().detached()
    box = find_box(target, settings)
    reference = target.crop(box)
    arrays: dict[str, NDArray[Any]] = {REFERENCE.value: whole_hu(np.maximum(reference.data, AIR_HU))}
    for column, path in study.masks.items():
        if mask_phase(column) is REFERENCE:
            arrays[column] = _mask(path, target).crop(box).data
    registered: dict[Phase, RegisteredPhase] = {}
    left_out: dict[Phase, str] = {}
    for phase in study.phases:
        if phase is not REFERENCE:
            scan = read_volume(study.file(phase), phase).canonical()
            scan_body(scan)
            try:
                transform = _register(scan, reference, study, settings)
            except InputError as error:
                left_out[phase] = without_paths(study, str(error))
                continue
            registered[phase] = _move(study, scan, reference, transform, settings)
            arrays[phase.value] = registered[phase].hu
            arrays |= registered[phase].masks
            if registered[phase].quality.verdict is Quality.FAIL:
                left_out[phase] = "; ".join(registered[phase].quality.reasons)
    for column, voxels in arrays.items():
        write_volume(folder / file_name(column), voxels, like=reference, dtype=voxels.dtype)
    qualities = {phase: each.quality for phase, each in registered.items()}
    if registered:
        sheets = {phase: each.sheet for phase, each in registered.items()}
        with atomic_file(folder / SHEET) as file:
            file.write(draw_sheet(study.study_id, sheets, qualities))
    record = _record(study, key, reference, qualities, left_out, box)
    record["files"] = {file.name: file_digest(file) for file in sorted(folder.iterdir())}
    return record


def whole_hu(hu: NDArray[Any]) -> NDArray[np.int16]:
    """HU as prepared scans hold them: whole numbers, none below that of air but where nothing was scanned."""
    return np.where(hu < COVERED_FROM_HU, np.int16(UNCOVERED_HU), as_int16(np.maximum(hu, AIR_HU)))


def _register(scan: Volume, reference: Volume, study: Study, settings: PrepareSettings) -> sitk.Transform:
    """The transform from points of the reference to points of the scan.

    Raises:
        InputError: The scan cannot be registered; the message names its file and phase.
    """
    fixed = to_image(reference.data, reference.affine)
    moving = to_image(np.maximum(scan.data, AIR_HU), scan.affine)
    _check_overlap(scan, moving, isotropic_grid(fixed, settings.grid_mm), study)
    with TemporaryDirectory() as work:
        try:
            return register(fixed, moving, settings.registration, settings.grid_mm, Path(work), settings.seed)
        except InputError as error:
            raise type(error)(f"{scan.name}: {error}") from error


def _move(
    study: Study, scan: Volume, reference: Volume, transform: sitk.Transform, settings: PrepareSettings
) -> RegisteredPhase:
    """The scan of a phase and its masks on the reference's grid, and the quality of the registration."""
    fixed = to_image(reference.data, reference.affine)
    moving = to_image(np.maximum(scan.data, AIR_HU).astype(np.float32), scan.affine)
    view = to_image(_covered(scan).astype(np.uint8), scan.affine)
    hu = to_voxels(resample(moving, fixed, transform, _INTERPOLATORS[settings.interpolation], UNCOVERED_HU))
    covered = to_voxels(resample(view, fixed, transform, sitk.sitkNearestNeighbor, 0)) > 0
    masks = {}
    for column, path in study.masks.items():
        if mask_phase(column) is scan.phase:
            mask = _mask(path, scan)
            moved = resample(to_image(mask.data, mask.affine), fixed, transform, sitk.sitkNearestNeighbor, 0)
            masks[column] = to_voxels(moved)
    quality = measure(Alignment.on_grid(fixed, moving, transform, view=view))
    sheet = Alignment.on_grid(fixed, moving, transform, SHEET_MM, view)
    return RegisteredPhase(whole_hu(np.where(covered, hu, UNCOVERED_HU)), masks, quality, sheet)


def _covered(scan: Volume) -> NDArray[np.bool_]:
    """Where a scan has voxels: not where it holds no HU, nor in blank end slices."""
    meter = CoverageMeter()
    meter(0, scan.data, scan.shape[2])
    covered = scan.data >= COVERED_FROM_HU
    covered[:, :, : meter.slices.start] = covered[:, :, meter.slices.stop :] = False
    return covered


def _check_overlap(scan: Volume, moving: Image, grid: Image, study: Study) -> None:
    size = moving.GetSize()
    view = sitk.Image(2, 2, 2, sitk.sitkUInt8) + 1  # a coarse box over the scan's field of view
    view.SetDirection(moving.GetDirection())
    view.SetSpacing([n * s / 2 for n, s in zip(size, moving.GetSpacing(), strict=True)])
    view.SetOrigin(moving.TransformContinuousIndexToPhysicalPoint([n / 4 - 0.5 for n in size]))
    share = float(to_voxels(resample(view, grid, None, sitk.sitkNearestNeighbor, 0)).mean())
    if share < LEAST_COVERAGE:
        raise GridError(
            f"{scan.name}: shows only {share:.0%} of the field of view of the portal venous phase"
            f" ({study.file(REFERENCE)}); check that both are of one study and in scanner coordinates"
        )


def _mask(path: Path, like: Volume) -> Volume:
    file, _ = split_labels(path)  # the whole label map is kept, and the manifest names its labels again
    mask = read_label_volume(file).canonical()
    check_same_grid(like, [mask])
    return mask


def _record(
    study: Study,
    key: str,
    reference: Volume,
    qualities: Mapping[Phase, PhaseQuality],
    left_out: Mapping[Phase, str],
    box: Box,
) -> dict[str, Any]:
    used = {phase: each for phase, each in qualities.items() if phase not in left_out}
    return {
        "study_id": study.study_id,
        "key": key,
        "quality": study_verdict(qualities, left_out).value,
        "reasons": [
            *(f"{phase.label} phase left out: {reason}" for phase, reason in left_out.items()),
            *(f"{phase.label} phase: {reason}" for phase, each in used.items() for reason in each.reasons),
        ],
        "left_out": {phase.value: reason for phase, reason in left_out.items()},
        "phases": {phase.value: each.to_json() for phase, each in qualities.items()},
        "shape": list(reference.shape),
        "spacing_mm": [round(s, 6) for s in reference.spacing],
        "versions": versions(),
        "kept_voxels": [[side.start, side.stop] for side in box],
    }
