"""The phase-leak check of an evaluation: which organs of which scans drifted toward another phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpfnl.data.manifest import Study, mask_column
from mpfnl.errors import InputError
from mpfnl.evaluation.cases import BASELINE
from mpfnl.evaluation.files import volume_files
from mpfnl.evaluation.leaks.table import NOT_CHECKED, LeakRow, write_leak_table
from mpfnl.evaluation.masks import LABELS
from mpfnl.metrics.phase_leak import LeakRule, OrganZones, organ_drift, organ_zones
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Volume, read_volume
from mpfnl.volumes.grid import check_same_grid
from mpfnl.volumes.reading import read_label_volume
from mpfnl.window import ABDOMEN, Window

LEAK_TABLE = "phase_leak.csv"

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
"""The organs that are checked, and their numbers in the "total" task of TotalSegmentator 2."""

Masks: TypeAlias = Mapping[str, NDArray[np.bool_]]
"""Masks (x, y, z) by organ."""


def check_phase_leak(
    studies: Iterable[Study],
    methods: Sequence[str],
    folder: Path,
    target: Phase = Phase.PORTAL_VENOUS,
    organs: Callable[[Study], Masks] | None = None,
    window: Window = ABDOMEN,
    rule: LeakRule | None = None,
) -> list[LeakRow]:
    """Measures each organ in each scan of an evaluation and writes `phase_leak.csv`, as a whole.

    The degraded scan is measured too: what it has already is not the method's doing. What cannot be measured
    keeps a row that says why.

    Args:
        studies: The studies that were evaluated; their scans are the clean ones.
        methods: Names, as in `cases.csv`; the reference is left out.
        folder: The evaluation folder, with its volumes.
        target: The phase that was restored.
        organs: Gives the masks of a study on the grid of the target phase; by default they come from the
            label map that the manifest names for that phase, in TotalSegmentator's numbers.
        window: The HU window to which all scans are clipped.
        rule: From what on a drift counts.

    Returns:
        A row a study, method and organ, in this order.

    Raises:
        InputError: The table cannot be written.
    """
    rule = rule or LeakRule()
    source = organs or (lambda study: read_organs(study, target))
    rows: list[LeakRow] = []
    for study in studies:
        files = volume_files(folder, study.study_id, methods, target)
        degraded = volume_files(folder, study.study_id, [BASELINE], target)[BASELINE]
        try:
            clean = _read_clean(study, target, source, rule)
            baseline = clean.scan(degraded) if degraded.is_file() else None
        except InputError as error:
            rows.append(LeakRow(study.study_id, "", "", note=f"{NOT_CHECKED}{error}"))
            continue
        for method, path in files.items():
            rows += _check_scan(method, path, clean, baseline, window, rule)
    write_leak_table(folder / LEAK_TABLE, rows, target, rule)
    return rows


def read_organs(study: Study, target: Phase) -> dict[str, NDArray[np.bool_]]:
    """The masks of the organs from the study's label map.

    Raises:
        InputError: The manifest names no label map for the target phase, or it cannot be used.
    """
    column = mask_column(LABELS, target)
    if column not in study.masks:
        raise InputError(f"the manifest names no label map; name one in the column {column}")
    labels = read_label_volume(study.masks[column])
    check_same_grid(read_volume(study.file(target), target), [labels])
    return {name: np.asarray(labels.data == number) for name, number in ORGANS.items()}


@dataclass(frozen=True)
class _Clean:
    """A study's clean scans, and its organs: None where one is not in the scan."""

    study_id: str
    reference: Volume
    others: dict[Phase, Volume]
    zones: dict[str, OrganZones | None]

    def scan(self, path: Path) -> Volume:
        """Reads another scan of the target phase."""
        volume = read_volume(path)
        check_same_grid(self.reference, [volume])
        return volume


def _read_clean(study: Study, target: Phase, organs: Callable[[Study], Masks], rule: LeakRule) -> _Clean:
    masks = organs(study)
    reference = read_volume(study.file(target), target)
    others = {phase: read_volume(study.file(phase), phase) for phase in PHASES if phase is not target}
    check_same_grid(reference, list(others.values()))
    zones: dict[str, OrganZones | None] = {}
    for name, mask in masks.items():
        if mask.shape != reference.shape:
            raise InputError(
                f"study {study.study_id}: the mask of {name} has {mask.shape} voxels, the scan "
                f"{reference.shape}; give masks on the scan's grid"
            )
        zones[name] = organ_zones(mask, reference.spacing, rule) if mask.any() else None
    return _Clean(study.study_id, reference, others, zones)


def _check_scan(
    method: str, path: Path, clean: _Clean, degraded: Volume | None, window: Window, rule: LeakRule
) -> list[LeakRow]:
    if not path.is_file():
        return [LeakRow(clean.study_id, method, "", note=f"{NOT_CHECKED}there is no scan")]
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
            drift = organ_drift(scan.data, clean.reference.data, others, zones, baseline, window, rule)
            rows.append(replace(row, drift=drift))
    return rows
