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
        The record. Its verdict is `warn` at best where a scan was changed on reading (a tilted gantry).

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
    for phase in study.phases:
        if phase is not REFERENCE:
            registered[phase] = _register_phase(study, phase, reference, settings)
            arrays[phase.value] = registered[phase].hu
            arrays |= registered[phase].masks
    for column, voxels in arrays.items():
        write_volume(folder / file_name(column), voxels, like=reference, dtype=voxels.dtype)
    qualities = {phase: each.quality for phase, each in registered.items()}
    if registered:
        sheets = {phase: each.sheet for phase, each in registered.items()}
        with atomic_file(folder / SHEET) as file:
            file.write(draw_sheet(study.study_id, sheets, qualities))
    record = _record(study, key, reference, qualities, box)
    record["files"] = {file.name: file_digest(file) for file in sorted(folder.iterdir())}
    return record


def whole_hu(hu: NDArray[Any]) -> NDArray[np.int16]:
    """HU as prepared scans hold them: whole numbers, none below that of air but where nothing was scanned."""
    return np.where(hu < COVERED_FROM_HU, np.int16(UNCOVERED_HU), as_int16(np.maximum(hu, AIR_HU)))


def _register_phase(
    study: Study, phase: Phase, reference: Volume, settings: PrepareSettings
) -> RegisteredPhase:
    scan = read_volume(study.file(phase), phase).canonical()
    scan_body(scan)
    fixed = to_image(reference.data, reference.affine)
    moving = to_image(np.maximum(scan.data, AIR_HU), scan.affine)
    _check_overlap(scan, moving, isotropic_grid(fixed, settings.grid_mm), study)
    with TemporaryDirectory() as work:
        try:
            transform = register(
                fixed, moving, settings.registration, settings.grid_mm, Path(work), settings.seed
            )
        except InputError as error:
            raise type(error)(f"{scan.name}: {error}") from error
    floating = sitk.Cast(moving, sitk.sitkFloat32)
    interpolator = _INTERPOLATORS[settings.interpolation]
    hu = to_voxels(resample(floating, fixed, transform, interpolator, UNCOVERED_HU))
    hu = np.where(_covered(scan, fixed, transform), hu, UNCOVERED_HU)
    masks = {}
    for column, path in study.masks.items():
        if mask_phase(column) is phase:
            mask = _mask(path, scan)
            moved = resample(to_image(mask.data, mask.affine), fixed, transform, sitk.sitkNearestNeighbor, 0)
            masks[column] = to_voxels(moved)
    quality = measure(Alignment.on_grid(fixed, floating, transform))
    sheet = Alignment.on_grid(fixed, floating, transform, SHEET_MM)
    return RegisteredPhase(whole_hu(hu), masks, quality, sheet)


def _covered(scan: Volume, fixed: Image, transform: sitk.Transform) -> NDArray[np.bool_]:
    """Where a scan has voxels, on the fixed grid: not beyond its field of view, nor in blank end slices."""
    meter = CoverageMeter()
    meter(0, scan.data, scan.shape[2])
    covered = scan.data >= COVERED_FROM_HU
    covered[:, :, : meter.slices.start] = covered[:, :, meter.slices.stop :] = False
    mask = to_image(covered.astype(np.uint8), scan.affine)
    return to_voxels(resample(mask, fixed, transform, sitk.sitkNearestNeighbor, 0)).astype(np.bool_)


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
    study: Study, key: str, reference: Volume, qualities: Mapping[Phase, PhaseQuality], box: Box
) -> dict[str, Any]:
    return {
        "study_id": study.study_id,
        "key": key,
        "quality": study_verdict(qualities).value,
        "reasons": [
            f"{phase.label} phase: {reason}" for phase, each in qualities.items() for reason in each.reasons
        ],
        "phases": {phase.value: each.to_json() for phase, each in qualities.items()},
        "shape": list(reference.shape),
        "spacing_mm": [round(s, 6) for s in reference.spacing],
        "versions": versions(),
        "kept_voxels": [[side.start, side.stop] for side in box],
    }
