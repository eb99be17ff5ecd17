"""The phase-leak check of an evaluation: the organs that drifted toward another phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpfnl.data.manifest import Study, mask_column
from mpfnl.errors import GridError, InputError, NotFoundError
from mpfnl.evaluation.folder import LEAK_TABLE, degraded_file, volume_files
from mpfnl.evaluation.leaks.table import NOT_CHECKED, LeakRow, write_leak_table
from mpfnl.evaluation.overlap import LABELS
from mpfnl.metrics.phase_leak import LeakRule, OrganZones, organ_drift, organ_zones
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume
from mpfnl.volumes.grid import check_same_grid
from mpfnl.volumes.masks import read_label_volume, split_labels
from mpfnl.window import Window

ORGANS: dict[str, int] = {
    "aorta": 52,
    "inferior_vena_cava": 63,
    "portal_vein_and_splenic_vein": 64,
    "liver": 5,
    "spleen": 1,
    "kidney_left": 3,
    "kidney_right": 2,
    "pancreas": 7,
}
"""The organs of the check, and their numbers in the "total" task of TotalSegmentator 2."""

OrganMasks: TypeAlias = Mapping[str, NDArray[np.bool_]]
"""Masks (x, y, z) by organ."""


def check_phase_leak(
    studies: Sequence[Study],
    methods: Sequence[str],
    folder: Path,
    target: Phase,
    window: Window,
    organs: Callable[[Study], OrganMasks] | None = None,
    rule: LeakRule | None = None,
) -> list[LeakRow]:
    """Measures each organ in each scan of an evaluation and writes `phase_leak.csv`, as a whole.

    Each scan is compared with the clean scans of all phases of its study. The degraded scan is measured too,
    since a drift of the input is not the method's. An organ or scan that cannot be measured keeps a row with
    the reason.

    Args:
        studies: Evaluated studies; their scans are the clean ones.
        methods: Methods, as in `cases.csv`; the reference is left out.
        folder: The evaluation folder, with its volumes.
        target: The phase that was restored.
        window: HU window to which all scans are clipped.
        organs: Function of a study that returns its organ masks on the grid of the target phase, its axes
            nearest to right, anterior and superior; by default
            they come from the label map that the manifest names for that phase, in TotalSegmentator's
            numbers.
        rule: Thresholds of the check.

    Returns:
        A row for each study, method and organ, in this order.

    Raises:
        OutputError: The table cannot be written.
    """
    rule = rule or LeakRule()
    source = organs or (lambda study: read_organs(study, target))
    rows: list[LeakRow] = []
    for study in studies:
        files = volume_files(folder, study.study_id, methods, target)
        degraded = degraded_file(folder, study.study_id, target)
        try:
            clean = _read_clean(study, target, source, rule)
            baseline = clean.scan(degraded) if degraded.is_file() else None
        except InputError as error:
            rows.append(LeakRow(study.study_id, "", "", note=f"{NOT_CHECKED}{error}"))
            continue
        for method, path in files.items():
            rows += _check_scan(method, path, clean, baseline, window, rule)
    write_leak_table(folder / LEAK_TABLE, rows, other_phases(studies, target), rule)
    return rows


def other_phases(studies: Iterable[Study], target: Phase) -> list[Phase]:
    """The phases of the studies besides the target, in stacking order."""
    available = {phase for study in studies for phase in study.phases}
    return [phase for phase in Phase if phase in available and phase is not target]


def read_organs(study: Study, target: Phase) -> dict[str, NDArray[np.bool_]]:
    """Organ masks from the study's label map.

    Raises:
        NotFoundError: The manifest names no label map for the target phase.
        InputError: The label map cannot be used.
    """
    column = mask_column(LABELS, target)
    if column not in study.masks:
        raise NotFoundError(f"the manifest names no label map; name one in the column {column}")
    file, _ = split_labels(study.masks[column])  # a label named there is that of another structure
    labels = read_label_volume(file).canonical()
    check_same_grid(read_volume(study.file(target), target).canonical(), [labels])
    return {name: np.asarray(labels.data == number) for name, number in ORGANS.items()}


@dataclass(frozen=True)
class _Clean:
    """A study's clean scans, and the zones of its organs: None where an organ is not in the scan."""

    study_id: str
    reference: Volume
    others: dict[Phase, Volume]
    zones: dict[str, OrganZones | None]

    def scan(self, path: Path) -> Volume:
        """Reads another scan of the target phase."""
        volume = read_volume(path).canonical()
        check_same_grid(self.reference, [volume])
        return volume


def _read_clean(study: Study, target: Phase, organs: Callable[[Study], OrganMasks], rule: LeakRule) -> _Clean:
    masks = organs(study)
    reference = read_volume(study.file(target), target).canonical()
    others = {
        phase: read_volume(study.file(phase), phase).canonical() for phase in other_phases([study], target)
    }
    check_same_grid(reference, list(others.values()))
    zones: dict[str, OrganZones | None] = {}
    for name, mask in masks.items():
        if mask.shape != reference.shape:
            raise GridError(
                f"study {study.study_id}: the mask of {name} has {mask.shape} voxels, the scan "
                f"{reference.shape}; give masks on the scan's grid"
            )
        zones[name] = organ_zones(mask, reference.spacing, rule) if mask.any() else None
    return _Clean(study.study_id, reference, others, zones)


def _check_scan(
    method: str, path: Path, clean: _Clean, degraded: Volume | None, window: Window, rule: LeakRule
) -> list[LeakRow]:
    if not path.is_file():
        return [LeakRow(clean.study_id, method, "", note=f"{NOT_CHECKED}no scan")]
    try:
        scan = clean.scan(path)
    except InputError as error:
        return [LeakRow(clean.study_id, method, "", note=f"{NOT_CHECKED}{error}")]
    others = {phase: volume.data for phase, volume in clean.others.items()}
    baseline = None if degraded is None else degraded.data
    rows = []
    for name, zones in clean.zones.items():
        row = LeakRow(clean.study_id, method, name)
        if zones is None:
            rows.append(replace(row, note="not in the scan"))
        elif zones.core_ml < rule.least_ml:
            rows.append(
                replace(row, note=f"too small: {zones.core_ml:.1f} mL deeper than {rule.core_mm:g} mm")
            )
        else:
            drift = organ_drift(
                scan.data, clean.reference.data, others, zones, baseline, window=window, rule=rule
            )
            rows.append(replace(row, drift=drift))
    return rows
