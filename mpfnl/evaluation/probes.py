"""Probes of each model: undegraded phases, which it should not change, and lesions, which it should keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mpfnl.data.degradation import SampleSettings
from mpfnl.data.manifest import Study
from mpfnl.data.studies import load_study
from mpfnl.errors import InputError
from mpfnl.evaluation.folder import BASELINE, degraded_file
from mpfnl.evaluation.methods import EvaluatedModel
from mpfnl.evaluation.structure import LIVER, CleanScan, clipped
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study
from mpfnl.metrics.contrast import body_rmse, contrast, insert_lesion, shell, sphere_fraction
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume
from mpfnl.volumes.grid import Box
from mpfnl.volumes.intensity import Voxels, as_int16
from mpfnl.window import COVERED_FROM_HU

LESION_HU = -40.0
"""Contrast of the inserted lesions in HU: a dark metastasis in the portal venous phase."""

PLANNED = (
    ("inserted_12_mm_kept", 12.0, False),
    ("one_phase_12_mm_kept", 12.0, True),
    *(("inserted_8_mm_kept", 8.0, False),) * 2,
    *(("inserted_6_mm_kept", 6.0, False),) * 2,
)
"""Column, diameter in mm, and whether the target phase alone shows it, of each lesion; the largest first."""

APART_MM = 14.0
"""Least distance between the surfaces of two lesions in mm: twice the shell around each, and more."""

MARGIN_MM = 24.0
"""Margin of the box around the lesions that is enhanced, in mm."""

PROBE_COLUMNS = (
    "undegraded_rmse_hu",
    "undegraded_edge_ratio",
    *dict.fromkeys(column for column, _, _ in PLANNED),
)
"""Columns of `cases.csv` that the probes fill."""


@dataclass(frozen=True)
class Lesion:
    """A lesion that is inserted in homogeneous liver.

    Args:
        column: Column of `cases.csv` for the contrast that is kept.
        centre: Centre in voxel indices.
        diameter_mm: Diameter in mm.
        one_phase: Whether the target phase alone shows it.
    """

    column: str
    centre: tuple[int, int, int]
    diameter_mm: float
    one_phase: bool


@dataclass(frozen=True, eq=False)
class Probes:
    """The probes of an evaluation.

    Args:
        models: Models by name.
        folder: The evaluation folder, with the degraded phases.
        settings: Degradation, target and window.
        options: Settings of the enhancement.
    """

    models: Mapping[str, EvaluatedModel]
    folder: Path
    settings: SampleSettings
    options: EnhanceOptions

    def run(
        self, study: Study, clean: CleanScan, known: Mapping[str, Mapping[str, float]]
    ) -> dict[str, dict[str, float]]:
        """Values of the probes by method, those of earlier runs included.

        A model that cannot enhance a probe has no value; without homogeneous liver there is no lesion.

        Args:
            study: The study.
            clean: Its clean scan.
            known: Values of earlier runs by method; methods that are missing are left out.
        """
        names = [name for name in (BASELINE, *self.models) if name in known]
        values = {name: of_probes(known[name]) for name in names}
        lesions = place_lesions(clean.homogeneous[LIVER], clean.spacing) if LIVER in clean.homogeneous else []
        columns = {lesion.column for lesion in lesions}
        undegraded = [name for name in names if PROBE_COLUMNS[0] not in values[name]]
        unprobed = [name for name in names if columns - set(values[name])]
        if not (undegraded or unprobed):
            return values
        try:
            scans = self._clean_scans(study, clean.scan)
            for name in undegraded:
                values[name] |= self._undegraded(name, scans, clean)
            if unprobed:
                for name, kept in self._inserted(study, scans, clean, lesions, unprobed).items():
                    values[name] |= kept
        except InputError:
            pass  # the row of the scan itself names the fault
        return values

    def _clean_scans(self, study: Study, target: Volume) -> dict[Phase, Volume]:
        hu = load_study(study, self.settings.loaded).read_all()
        return {
            phase: replace(target, data=each, path=target.path, phase=phase, storage=each.dtype)
            for phase, each in zip(self.settings.loaded, hu, strict=True)
            if phase in study.phases
        }

    def _undegraded(self, name: str, scans: Mapping[Phase, Volume], clean: CleanScan) -> dict[str, float]:
        if not clean.body.any():
            return {}
        hu = clean.hu if name == BASELINE else self._enhanced(name, scans)
        values = {"undegraded_rmse_hu": body_rmse(hu, clean.hu, clean.body)}
        return values if clean.edges is None else values | {"undegraded_edge_ratio": clean.edges.ratio(hu)}

    def _inserted(
        self,
        study: Study,
        scans: Mapping[Phase, Volume],
        clean: CleanScan,
        lesions: Sequence[Lesion],
        names: Sequence[str],
    ) -> dict[str, dict[str, float]]:
        """Contrast of each lesion in the difference of two results of one draw: with lesions and without."""
        target, box = self.settings.target, box_of(lesions, clean.hu.shape, clean.spacing)
        without = self._degraded(study, scans, box)
        with_them = {
            phase: replace(scan, data=inserted(scan.data, clean.spacing, lesions, phase is target))
            for phase, scan in scans.items()
        }
        with_lesions = self._degrade(study, with_them, clean.spacing, box)
        masks = [_masks(lesion, clean.hu.shape, clean.spacing, box) for lesion in lesions]
        values: dict[str, dict[str, float]] = {}
        for name in names:
            if name == BASELINE:
                pair = [clipped(each[target], self.settings.window) for each in (with_lesions, without)]
            else:
                pair = [self._enhanced(name, each) for each in (with_lesions, without)]
            kept: dict[str, list[float]] = {}
            for lesion, (fraction, inside, around) in zip(lesions, masks, strict=True):
                full = contrast(LESION_HU * fraction, inside, around)
                kept.setdefault(lesion.column, []).append(contrast(pair[0] - pair[1], inside, around) / full)
            values[name] = {column: float(np.mean(each)) for column, each in kept.items()}
        return values

    def _degraded(self, study: Study, scans: Mapping[Phase, Volume], box: Box) -> dict[Phase, Volume]:
        files = {phase: degraded_file(self.folder, study.study_id, phase) for phase in scans}
        if all(file.is_file() for file in files.values()):
            return {phase: read_volume(file, phase).canonical().crop(box) for phase, file in files.items()}
        return self._degrade(study, scans, scans[self.settings.target].spacing, box)

    def _degrade(
        self,
        study: Study,
        scans: Mapping[Phase, Volume],
        spacing: Sequence[float],
        box: Box,
    ) -> dict[Phase, Volume]:
        """The phases degraded by the study's draw, cut to the box."""
        settings = replace(self.settings, phases=tuple(phase for phase in Phase if phase in scans))
        hu = [np.asarray(scans[phase].data, np.int16) for phase in settings.loaded]
        degraded = settings.degrade(hu, spacing, settings.parameters(study.study_id))
        return {
            phase: replace(scans[phase], data=as_int16(each.numpy())).crop(box)
            for phase, each in degraded.items()
        }

    def _enhanced(self, name: str, scans: Mapping[Phase, Volume]) -> NDArray[np.float32]:
        volume = enhance_study(self.models[name], scans, options=self.options).canonical()
        return clipped(volume, self.settings.window)


def of_probes(values: Mapping[str, float]) -> dict[str, float]:
    """The values that probes measured, without the others."""
    return {column: values[column] for column in PROBE_COLUMNS if column in values}


def place_lesions(liver: NDArray[np.bool_], spacing: Sequence[float]) -> list[Lesion]:
    """Places lesions where homogeneous liver has the most room, the largest first.

    A lesion that finds no room, or is not two voxels wide, is left out.

    Args:
        liver: Homogeneous liver, see `mpfnl.metrics.structure.OrganStructure`.
        spacing: Voxel size in mm.
    """
    if not liver.any():
        return []
    room = np.asarray(ndimage.distance_transform_edt(np.pad(liver, 1), sampling=list(spacing)))[
        1:-1, 1:-1, 1:-1
    ]
    places = np.ogrid[tuple(slice(0, side) for side in liver.shape)]
    lesions = []
    for column, diameter, one_phase in PLANNED:
        x, y, z = (int(index) for index in np.unravel_index(int(np.argmax(room)), room.shape))
        if room[x, y, z] < diameter / 2 or diameter < 2 * max(spacing):
            continue
        lesions.append(Lesion(column, (x, y, z), diameter, one_phase))
        squares = [
            ((axis - at) * step) ** 2 for axis, at, step in zip(places, (x, y, z), spacing, strict=True)
        ]
        room[np.sqrt(squares[0] + squares[1] + squares[2]) < diameter + APART_MM] = 0
    return lesions


def inserted(hu: Voxels, spacing: Sequence[float], lesions: Sequence[Lesion], is_target: bool) -> Voxels:
    """A clean phase with the lesions that it shows; voxels that it does not cover remain so."""
    with_them = hu
    for lesion in lesions:
        if is_target or not lesion.one_phase:
            with_them = insert_lesion(with_them, spacing, lesion.centre, lesion.diameter_mm, LESION_HU)
    return np.where(hu < COVERED_FROM_HU, hu, with_them)


def box_of(lesions: Sequence[Lesion], shape: Sequence[int], spacing: Sequence[float]) -> Box:
    """The box around all lesions and a margin, within the grid."""
    sides = []
    for axis, (side, step) in enumerate(zip(shape, spacing, strict=True)):
        margin = math.ceil(MARGIN_MM / step)
        centres = [lesion.centre[axis] for lesion in lesions]
        sides.append(slice(max(0, min(centres) - margin), min(side, max(centres) + margin + 1)))
    x, y, z = sides
    return x, y, z


def _masks(
    lesion: Lesion, shape: Sequence[int], spacing: Sequence[float], box: Box
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    fraction = sphere_fraction(shape, spacing, lesion.centre, lesion.diameter_mm)[box]
    inside = fraction >= 0.5
    return fraction, inside, shell(inside, spacing)
