"""The swap test on some studies of an evaluation, kept in `swap.csv` so that none is done twice."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from statistics import fmean

from mpfnl.data.manifest import Study
from mpfnl.errors import InputError
from mpfnl.evaluation.cases import BASELINE
from mpfnl.evaluation.files import VOLUMES
from mpfnl.evaluation.given import EvaluatedModel
from mpfnl.evaluation.leaks.check import Masks, read_organs
from mpfnl.evaluation.leaks.swap import SwapRow, swap_test
from mpfnl.files import write_text
from mpfnl.inference.enhancement import EnhanceOptions
from mpfnl.phases import Phase
from mpfnl.volumes import read_volume

SWAP_TABLE = "swap.csv"


@dataclass(frozen=True)
class SwapCase:
    """What one input phase gave to one region of one study's enhanced scan.

    Args:
        study_id: The study.
        method: The model.
        swapped: The phase that was taken away.
        by: The phase whose scan stood in.
        region: An organ's core, or the body.
        given_hu: Mean change, in HU.
        rms_hu: Its root mean square.
    """

    study_id: str
    method: str
    swapped: str
    by: str
    region: str
    given_hu: float
    rms_hu: float


def swap_studies(
    studies: Sequence[Study],
    models: Mapping[str, EvaluatedModel],
    folder: Path,
    options: EnhanceOptions,
) -> list[SwapCase]:
    """Runs the swap test of the models that take several phases, on the degraded scans in the folder.

    Args:
        studies: Which; those that `swap.csv` has already are not done again.
        models: The models.
        folder: The evaluation folder.
        options: How to enhance.

    Returns:
        The rows of these studies and models; they stand in `swap.csv`, too.
    """
    kept = _read(folder / SWAP_TABLE)
    found: list[SwapCase] = []
    for study in studies:
        for name, model in models.items():
            if len(model.phases) == 1:
                continue
            known = [case for case in kept if (case.study_id, case.method) == (study.study_id, name)]
            if not known:
                known = _swap(study, name, model, folder, options)
                kept += known
                _write(folder / SWAP_TABLE, kept)
            found += known
    return found


def mean_over_studies(cases: Sequence[SwapCase]) -> dict[str, list[SwapRow]]:
    """The rows of each method, averaged over the studies."""

    def kind(case: SwapCase) -> tuple[str, str, str, str]:
        return case.method, case.swapped, case.by, case.region

    order = list(dict.fromkeys(map(kind, cases)))
    means: dict[str, list[SwapRow]] = {}
    for key, group in groupby(sorted(cases, key=lambda case: order.index(kind(case))), kind):
        method, swapped, by, region = key
        rows = list(group)
        given, rms = (fmean(getattr(row, name) for row in rows) for name in ("given_hu", "rms_hu"))
        means.setdefault(method, []).append(SwapRow(Phase(swapped), Phase(by), region, given, rms))
    return means


def _swap(
    study: Study, name: str, model: EvaluatedModel, folder: Path, options: EnhanceOptions
) -> list[SwapCase]:
    place = folder / VOLUMES / study.study_id
    scans = {phase: read_volume(place / f"{BASELINE}_{phase}.nii.gz", phase) for phase in model.phases}
    rows = swap_test(model, scans, _organs(study, model.target), options)
    return [SwapCase(study.study_id, name, **asdict(row)) for row in rows]


def _organs(study: Study, target: Phase) -> Masks:
    """The study's organs; none where it has no label map: then the body stands alone."""
    try:
        return read_organs(study, target)
    except InputError:
        return {}


def _read(path: Path) -> list[SwapCase]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != [field.name for field in fields(SwapCase)]:
            raise InputError(f"{path}: not a table of swap tests; delete it")
        return [
            SwapCase(
                row["study_id"],
                row["method"],
                row["swapped"],
                row["by"],
                row["region"],
                float(row["given_hu"]),
                float(row["rms_hu"]),
            )
            for row in reader
        ]


def _write(path: Path, cases: Sequence[SwapCase]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(SwapCase)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(case) for case in cases)
    write_text(path, text.getvalue())
