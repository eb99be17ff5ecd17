"""WAW-TACE, Zenodo's layout: one folder a patient with up to four NIfTI scans."""

from __future__ import annotations

import re
from pathlib import Path

from mpfnl.datasets.cohort import Cohort, Exclusion, SourceStudy, assemble_cohort, check_masks, find_masks
from mpfnl.datasets.registry import register_dataset
from mpfnl.errors import NotFoundError
from mpfnl.phases import PHASES, Phase

NUMBERS = {Phase.NONCONTRAST: 0, Phase.ARTERIAL: 1, Phase.PORTAL_VENOUS: 2, Phase.DELAYED: 3}
"""Phases that the data set holds (native, late arterial, portal venous, delayed) and their file numbers."""


@register_dataset("waw-tace", "WAW-TACE")
def find_waw_tace(root: Path, seed: int = 0, masks: Path | None = None) -> Cohort:
    """Finds the patients of WAW-TACE who have every required phase.

    Args:
        root: Folder with `<pid>/<pid>_<0..3>_scan.nii.gz`.
        seed: Seed of the splits.
        masks: Folder with `<pid>_<0..3>/pancreas.nii.gz` and `labels.nii.gz`, if there is one.

    Raises:
        InputError: The folder does not hold WAW-TACE, or no patient has every required phase.
    """
    if not root.is_dir():
        raise NotFoundError(f"{root}: there is no such folder; give the folder of WAW-TACE")
    studies, excluded = [], []
    for folder in sorted((path for path in root.iterdir() if _is_patient(path)), key=_natural):
        faults = {phase: fault for phase in NUMBERS if (fault := _fault(folder, phase))}
        problems = [f"{phase.label} phase {fault}" for phase, fault in faults.items() if phase in PHASES]
        if problems:
            excluded.append(Exclusion(folder.name, "; ".join(problems)))
            continue
        scans = {phase: _scan(folder, phase) for phase in NUMBERS if phase not in faults}
        names = {phase: f"{folder.name}_{NUMBERS[phase]}" for phase in scans}
        studies.append(SourceStudy(folder.name, folder.name, scans, find_masks(masks, names)))
    if not studies and not excluded:
        raise NotFoundError(
            f"{root}: holds no <pid>/<pid>_0_scan.nii.gz; give the folder with WAW-TACE's patient folders"
        )
    cohort = assemble_cohort(root, seed, studies, excluded)
    check_masks(masks, studies, "<pid>_<number>")
    return cohort


def _is_patient(path: Path) -> bool:
    return path.is_dir() and (path.name.isdecimal() or any(path.glob(f"{path.name}_[0-3]_scan.nii.gz")))


def _scan(folder: Path, phase: Phase) -> Path:
    return folder / f"{folder.name}_{NUMBERS[phase]}_scan.nii.gz"


def _fault(folder: Path, phase: Phase) -> str | None:
    scan = _scan(folder, phase)
    if not scan.is_file():
        return "missing"
    return None if scan.stat().st_size else "file empty"


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts 10 after 9."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name)]
