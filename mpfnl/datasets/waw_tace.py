"""WAW-TACE as Zenodo has it: one folder a patient, up to four NIfTI scans in it."""

from __future__ import annotations

import re
from pathlib import Path

from mpfnl.datasets.found import Entry, Exclusion, FoundCohort, found_cohort
from mpfnl.datasets.masks import check_masks, find_masks
from mpfnl.errors import InputError
from mpfnl.phases import PHASES, Phase

NUMBERS = {Phase.NONCONTRAST: 0, Phase.ARTERIAL: 1, Phase.PORTAL_VENOUS: 2, Phase.DELAYED: 3}
"""The numbers in the files' names: native, late arterial, portal venous, delayed."""


def find_waw_tace(root: Path, seed: int = 0, masks: Path | None = None) -> FoundCohort:
    """Finds the patients of WAW-TACE who have the three phases, with the delayed one where it is there.

    Args:
        root: The folder with `<pid>/<pid>_<0..3>_scan.nii.gz`.
        seed: Of the splits.
        masks: A folder with `<pid>_<0..3>/pancreas.nii.gz` and `labels.nii.gz`, where there are some.

    Raises:
        InputError: The folder is no WAW-TACE, or no patient has the three phases.
    """
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give the folder of WAW-TACE")
    entries, excluded = [], []
    for folder in sorted((path for path in root.iterdir() if _is_patient(path)), key=_natural):
        problems = [f"{phase.label} phase {fault}" for phase in PHASES if (fault := _fault(folder, phase))]
        if problems:
            excluded.append(Exclusion(folder.name, "; ".join(problems)))
            continue
        there = [phase for phase in Phase if phase in PHASES or not _fault(folder, phase)]
        files = {phase: _scan(folder, phase) for phase in there}
        scans = {phase: f"{folder.name}_{NUMBERS[phase]}" for phase in there}
        entries.append(Entry(folder.name, folder.name, files, find_masks(masks, scans)))
    if not entries and not excluded:
        raise InputError(
            f"{root}: holds no <pid>/<pid>_0_scan.nii.gz; give the folder with WAW-TACE's patient folders"
        )
    cohort = found_cohort(root, seed, entries, excluded)
    check_masks(masks, entries, "<pid>_<number>")
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
