"""Where the files of an evaluation folder lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mpfnl.evaluation.cases import BASELINE, REFERENCE
from mpfnl.phases import Phase

VOLUMES = "volumes"
"""The folder of the scans, with a folder for each study."""

MASKS = "masks"
"""The folder of the predicted masks in a study's folder."""


def volume_files(folder: Path, study_id: str, methods: Sequence[str], target: Phase) -> dict[str, Path]:
    """Where an evaluation's scans of a study's target phase lie, by method.

    Args:
        folder: The evaluation folder.
        study_id: The study.
        methods: The methods; the reference, whose scan is the study's own, is left out.
        target: The phase that was restored.
    """
    names = {name: f"{BASELINE}_{target}" if name == BASELINE else name for name in methods}
    names.pop(REFERENCE, None)
    return {method: folder / VOLUMES / study_id / f"{name}.nii.gz" for method, name in names.items()}


def mask_file(folder: Path, study_id: str, method: str, structure: str) -> Path:
    """Where the mask of a structure lies that was predicted in a method's scan.

    Args:
        folder: The evaluation folder.
        study_id: The study.
        method: The method; the reference has a predicted mask too.
        structure: The structure, by TotalSegmentator's name.
    """
    return folder / VOLUMES / study_id / MASKS / f"{method}_{structure}.nii.gz"
