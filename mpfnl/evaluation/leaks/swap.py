"""The swap test: the change of the enhanced scan where one input phase loses its own contrast."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import groupby
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from mpfnl.data.manifest import Study
from mpfnl.errors import InputError
from mpfnl.evaluation.folder import SWAP_TABLE, degraded_file, number, read_table, write_table
from mpfnl.evaluation.leaks.check import OrganMasks, read_organs
from mpfnl.evaluation.methods import EvaluatedModel
from mpfnl.inference.enhancement import EnhanceOptions, Enhancer, enhance_study
from mpfnl.inference.selection import needed_phases
from mpfnl.metrics.phase_leak import LeakRule, organ_zones
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume
from mpfnl.window import COVERED_FROM_HU, UNCOVERED_HU, Window

BODY = "body"
"""Name of the region of all soft tissue."""

BODY_MARGIN_HU = 25.0
"""Least distance of soft tissue, in HU, above the window's lower end, to which air is clipped."""


@dataclass(frozen=True)
class SwapRow:
    """Contribution of one input phase to one region of the enhanced scan.

    Args:
        swapped: Phase that was replaced.
        by: Phase whose scan replaced it.
        region: Organ (its core), or `body`.
        given_hu: Mean of enhanced minus enhanced without that phase, in HU; above 0 if the phase brightens.
        rms_hu: Root mean square of the same difference, in HU.
    """

    swapped: Phase
    by: Phase
    region: str
    given_hu: float
    rms_hu: float


@dataclass(frozen=True)
class SwapCase:
    """Contributions of one input phase to one region of one study's enhanced scan.

    Args:
        study_id: The study.
        method: The model.
        row: The contribution.
    """

    study_id: str
    method: str
    row: SwapRow


COLUMNS = ["study_id", "method", *(field.name for field in fields(SwapRow))]


def swap_test(
    model: Enhancer,
    scans: Mapping[Phase, Volume],
    organs: OrganMasks,
    options: EnhanceOptions | None = None,
    by: Phase | None = None,
    rule: LeakRule | None = None,
) -> list[SwapRow]:
    """Enhances a study again with each other input phase replaced in turn, and measures the change.

    Replaced by the target's degraded scan where it covers it, an input phase has no contrast of its own any
    more. The change of
    an organ came from that phase: wanted, where it compensated noise, or leaked. No network was trained on
    such an input, so the numbers are an indication. Outside the window nothing changes, since the input's HU
    are kept.

    Args:
        model: Model; one that takes a single phase has no rows.
        scans: Degraded scans of the phases that the model takes and the study has.
        organs: Masks (x, y, z) by organ on the scans' grid; organs whose core is too small are left out.
        options: Settings of the enhancement.
        by: Phase that replaces the others; the target by default.
        rule: Depth and least volume of an organ's core.

    Returns:
        For each replaced phase a row an organ, and one of the body: the soft tissue of the target's scan.

    Raises:
        InputError: The study cannot be enhanced, see `enhance_study`.
        ValueError: The model does not take the phase `by`, or a mask lies on another grid.
    """
    rule = rule or LeakRule()
    stand_in = model.target if by is None else by
    if stand_in not in model.phases:
        raise ValueError(f"the model takes {', '.join(model.phases)}, not {stand_in}")
    swapped = [phase for phase in model.phases if phase in scans and phase not in (model.target, stand_in)]
    if not swapped:
        return []
    regions = _regions(scans[model.target], organs, model.window, rule)
    whole = enhance_study(model, scans, options=options).data.astype(np.float32)
    rows = []
    for phase in swapped:
        hu = np.where(scans[phase].data < COVERED_FROM_HU, UNCOVERED_HU, scans[stand_in].data)
        replaced = {**scans, phase: replace(scans[stand_in], data=hu, phase=phase)}
        change = whole - enhance_study(model, replaced, options=options).data
        rows += [_row(phase, stand_in, name, change[mask]) for name, mask in regions.items()]
    return rows


def _row(swapped: Phase, by: Phase, region: str, change: NDArray[np.float32]) -> SwapRow:
    values = change.astype(np.float64)
    return SwapRow(swapped, by, region, float(values.mean()), float(np.sqrt(np.mean(values**2))))


def _regions(
    target: Volume, organs: OrganMasks, window: Window, rule: LeakRule
) -> dict[str, NDArray[np.bool_]]:
    regions = {}
    for name, mask in organs.items():
        if mask.shape != target.shape:
            raise ValueError(f"the mask of {name} is {mask.shape}, the scan is {target.shape}")
        if not mask.any():
            continue
        zones = organ_zones(mask, target.spacing, rule)
        if zones.core_ml >= rule.least_ml:
            regions[name] = np.zeros(mask.shape, dtype=np.bool_)
            regions[name][zones.box] = zones.core
    smooth = gaussian_filter(target.data.clip(window.lower, window.upper).astype(np.float32), 2.0)
    body = smooth > window.lower + BODY_MARGIN_HU
    return {**regions, BODY: body} if body.any() else regions


def swap_studies(
    studies: Sequence[Study],
    models: Mapping[str, EvaluatedModel],
    folder: Path,
    options: EnhanceOptions,
) -> list[SwapCase]:
    """Runs the swap test of the models that take several phases, on the degraded scans in the folder.

    A phase that a study lacks is not replaced, and a model that needs it is not tested.

    Args:
        studies: Studies of the test; those that `swap.csv` has already are not tested again.
        models: Models by name.
        folder: The evaluation folder.
        options: Settings of the enhancement.

    Returns:
        The rows of these studies and models, which `swap.csv` holds too.

    Raises:
        FormatError: The folder's `swap.csv` has other columns.
    """
    path = folder / SWAP_TABLE
    finished = _read(path)
    cases: list[SwapCase] = []
    for study in studies:
        for name, model in models.items():
            if len(model.phases) == 1 or needed_phases(model, study.phases):
                continue
            rows = [case for case in finished if (case.study_id, case.method) == (study.study_id, name)]
            if not rows:
                rows = [SwapCase(study.study_id, name, row) for row in _swap(study, model, folder, options)]
                finished += rows
                _write(path, finished)
            cases += rows
    return cases


def mean_over_studies(cases: Sequence[SwapCase]) -> dict[str, list[SwapRow]]:
    """The rows of each method, averaged over the studies."""

    def kind(case: SwapCase) -> tuple[str, Phase, Phase, str]:
        return case.method, case.row.swapped, case.row.by, case.row.region

    order = list(dict.fromkeys(map(kind, cases)))
    means: dict[str, list[SwapRow]] = {}
    for (method, swapped, by, region), group in groupby(
        sorted(cases, key=lambda case: order.index(kind(case))), kind
    ):
        rows = [case.row for case in group]
        mean, rms = fmean(row.given_hu for row in rows), fmean(row.rms_hu for row in rows)
        means.setdefault(method, []).append(SwapRow(swapped, by, region, mean, rms))
    return means


def _swap(study: Study, model: EvaluatedModel, folder: Path, options: EnhanceOptions) -> list[SwapRow]:
    phases = [phase for phase in model.phases if phase in study.phases]
    files = {phase: degraded_file(folder, study.study_id, phase) for phase in phases}
    scans = {phase: read_volume(path, phase).canonical().detached() for phase, path in files.items()}
    return swap_test(model, scans, _organs(study, model.target), options)


def _organs(study: Study, target: Phase) -> OrganMasks:
    """The study's organs; none without a label map, where the body alone is measured."""
    try:
        return read_organs(study, target)
    except InputError:
        return {}


def _read(path: Path) -> list[SwapCase]:
    return [
        SwapCase(
            cells["study_id"],
            cells["method"],
            SwapRow(
                Phase(cells["swapped"]),
                Phase(cells["by"]),
                cells["region"],
                number(cells["given_hu"]),
                number(cells["rms_hu"]),
            ),
        )
        for cells in read_table(path, COLUMNS)
    ]


def _write(path: Path, cases: Sequence[SwapCase]) -> None:
    rows = ({"study_id": case.study_id, "method": case.method} | asdict(case.row) for case in cases)
    write_table(path, COLUMNS, rows)
