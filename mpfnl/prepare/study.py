"""One study: read, crop, register, resample, measure, write."""

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
from mpfnl.errors import InputError, InputWarning
from mpfnl.files import atomic_file, file_digest, write_text
from mpfnl.phases import Phase
from mpfnl.prepare.body import abdomen_box, find_body
from mpfnl.prepare.images import (
    Image,
    isotropic_grid,
    resample,
    to_image,
    to_voxels,
)
from mpfnl.prepare.measured import Measured, observe
from mpfnl.prepare.names import RECORD, SHEET, file_name
from mpfnl.prepare.private import without_paths
from mpfnl.prepare.quality import PhaseQuality, measure, study_verdict
from mpfnl.prepare.register import register
from mpfnl.prepare.segmented import organ_box
from mpfnl.prepare.settings import Crop, Interpolation, PrepareSettings, versions
from mpfnl.prepare.sheet import draw_sheet
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.volumes.grid import Box, check_same_grid
from mpfnl.volumes.intensity import Voxels, as_int16
from mpfnl.volumes.reading import read_label_volume
from mpfnl.window import AIR_HU

COARSE_MM = 3.0  # the abdomen is looked for on voxels of about this size
DRAWN_MM = 2.0  # voxels of the contact sheet
LEAST_COVERAGE = 0.05  # of the body that a phase must show

_INTERPOLATORS = {Interpolation.LINEAR: sitk.sitkLinear, Interpolation.BSPLINE: sitk.sitkBSpline}


@dataclass(frozen=True)
class PreparedPhase:
    """A phase on the portal venous grid, what was measured, and what to draw.

    Args:
        hu: `(x, y, z)`, int16.
        masks: The masks that lay on it, by column, on the portal venous grid.
        quality: What was found.
        drawn: What the contact sheet shows.
    """

    hu: NDArray[np.int16]
    masks: dict[str, NDArray[Any]]
    quality: PhaseQuality
    drawn: Measured


def prepare_study(study: Study, settings: PrepareSettings, key: str, folder: Path) -> dict[str, Any]:
    """Prepares one study into an empty folder.

    Args:
        study: A row of the raw manifest.
        settings: What to do.
        key: What the work is known by; goes into the record.
        folder: Gets the three phases (`<phase>.nii`, int16), the masks, `sheet.png` and `record.json`.

    Returns:
        The record. Its verdict is `warn` at best where a scan is used but not as it stands (a tilted gantry).

    Raises:
        InputError: A scan cannot be used, naming its file and phase.
    """
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", InputWarning)
        record = _prepare(study, settings, key, folder)
    doubts = [without_paths(study, str(w.message)) for w in noted if issubclass(w.category, InputWarning)]
    if doubts:
        record["reasons"] = [*dict.fromkeys(doubts), *record["reasons"]]
        if record["quality"] == Quality.PASS:
            record["quality"] = Quality.WARN.value
    write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return record


def _prepare(study: Study, settings: PrepareSettings, key: str, folder: Path) -> dict[str, Any]:
    target = read_volume(study.file(Phase.PORTAL_VENOUS), Phase.PORTAL_VENOUS).canonical()
    box = find_box(target, settings)
    reference = target.crop(box)
    arrays: dict[str, NDArray[Any]] = {Phase.PORTAL_VENOUS.value: stored_hu(reference.data)}
    for column, path in study.masks.items():
        if mask_phase(column) is Phase.PORTAL_VENOUS:
            arrays[column] = _mask(path, target).crop(box).data
    prepared: dict[Phase, PreparedPhase] = {}
    for phase in study.phases:
        if phase is not Phase.PORTAL_VENOUS:
            prepared[phase] = _prepare_phase(study, phase, reference, settings)
            arrays[phase.value] = prepared[phase].hu
            arrays |= prepared[phase].masks
    for name, voxels in arrays.items():
        write_volume(folder / file_name(name), voxels, like=reference, dtype=voxels.dtype)
    qualities = {phase: found.quality for phase, found in prepared.items()}
    drawn = {phase: found.drawn for phase, found in prepared.items()}
    with atomic_file(folder / SHEET) as file:
        file.write(draw_sheet(study.study_id, drawn, qualities))
    record = _record(study, key, reference, qualities, box)
    record["files"] = {file.name: file_digest(file) for file in sorted(folder.iterdir())}
    return record


def find_box(target: Volume, settings: PrepareSettings) -> Box:
    """The part of a scan to keep, as its settings say.

    Args:
        target: The portal venous scan, its axes towards right, anterior and superior.
        settings: How.

    Raises:
        InputError: There is no body in it.
    """
    hu, spacing, steps = _thinned(target)
    body = _find_body(target)
    if settings.crop is Crop.NONE:
        return slice(0, target.shape[0]), slice(0, target.shape[1]), slice(0, target.shape[2])
    if settings.crop is Crop.SEGMENTATION:
        return organ_box(target, settings.margin_mm)
    x, y, z = (
        slice(part.start * step, min(part.stop * step, size))
        for part, step, size in zip(
            abdomen_box(hu, body, spacing, settings.margin_mm), steps, target.shape, strict=True
        )
    )
    return x, y, z


def _thinned(scan: Volume) -> tuple[Voxels, list[float], list[int]]:
    """Every few voxels of a scan, their spacing, and how many each step is."""
    steps = [max(1, round(COARSE_MM / spacing)) for spacing in scan.spacing]
    spacing = [step * size for step, size in zip(steps, scan.spacing, strict=True)]
    return scan.data[:: steps[0], :: steps[1], :: steps[2]], spacing, steps


def _find_body(scan: Volume) -> NDArray[np.bool_]:
    hu, spacing, _ = _thinned(scan)
    try:
        return find_body(hu, spacing)
    except InputError as error:
        raise InputError(f"{scan.name}: {error}") from None


def stored_hu(hu: NDArray[Any]) -> NDArray[np.int16]:
    """HU as prepared scans hold them: whole, and no darker than air."""
    return as_int16(np.maximum(hu, AIR_HU))


def _prepare_phase(study: Study, phase: Phase, reference: Volume, settings: PrepareSettings) -> PreparedPhase:
    scan = read_volume(study.file(phase), phase).canonical()
    _find_body(scan)
    fixed = to_image(reference.data, reference.affine)
    moving = to_image(np.maximum(scan.data, AIR_HU), scan.affine)
    _check_overlap(scan, moving, isotropic_grid(fixed, settings.grid_mm), study)
    with TemporaryDirectory() as work:
        try:
            transform = register(fixed, moving, settings.steps, settings.grid_mm, Path(work), settings.seed)
        except InputError as error:
            raise InputError(f"{scan.name}: {error}") from error
    floating = sitk.Cast(moving, sitk.sitkFloat32)
    found = to_voxels(resample(floating, fixed, transform, _INTERPOLATORS[settings.interpolation]))
    masks = {}
    for column, path in study.masks.items():
        if mask_phase(column) is phase:
            mask = _mask(path, scan)
            moved = resample(to_image(mask.data, mask.affine), fixed, transform, sitk.sitkNearestNeighbor, 0)
            masks[column] = to_voxels(moved)
    quality = measure(observe(fixed, floating, transform))
    return PreparedPhase(stored_hu(found), masks, quality, observe(fixed, floating, transform, DRAWN_MM))


def _check_overlap(scan: Volume, moving: Image, grid: Image, study: Study) -> None:
    size = moving.GetSize()
    inside = sitk.Image(2, 2, 2, sitk.sitkUInt8) + 1  # a coarse box over the scan's field of view
    inside.SetDirection(moving.GetDirection())
    inside.SetSpacing([n * s / 2 for n, s in zip(size, moving.GetSpacing(), strict=True)])
    inside.SetOrigin(moving.TransformContinuousIndexToPhysicalPoint([n / 4 - 0.5 for n in size]))
    share = float(to_voxels(resample(inside, grid, None, sitk.sitkNearestNeighbor, 0)).mean())
    if share < LEAST_COVERAGE:
        raise InputError(
            f"{scan.name}: shows only {share:.0%} of the field of view of the portal venous phase"
            f" ({study.file(Phase.PORTAL_VENOUS)}); check that both are of one study and in scanner"
            " coordinates"
        )


def _mask(path: Path, like: Volume) -> Volume:
    mask = read_label_volume(path).canonical()
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
            f"{phase.label} phase: {reason}" for phase, found in qualities.items() for reason in found.reasons
        ],
        "phases": {phase.value: found.to_json() for phase, found in qualities.items()},
        "shape": list(reference.shape),
        "spacing_mm": [round(s, 6) for s in reference.spacing],
        "versions": versions(),
        "kept_voxels": [[part.start, part.stop] for part in box],
    }
