"""What may be chosen about a preparation, and what a study's work is known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mpfnl.data.manifest import Study
from mpfnl.errors import InputError
from mpfnl.files import file_digest
from mpfnl.phases import Phase
from mpfnl.prepare.presets import Step, find_steps
from mpfnl.volumes.fileio import scan_name
from mpfnl.volumes.scan import content_files

PREPARATION = 1
"""Raised whenever the same scans and settings give other files than before."""


class Crop(StrEnum):
    """How the abdomen is found on the portal venous scan."""

    NONE = "none"
    BODY = "body"
    SEGMENTATION = "segmentation"


class Interpolation(StrEnum):
    """How voxels between voxels are looked up; linear never leaves the range of its neighbours."""

    LINEAR = "linear"
    BSPLINE = "bspline"


@dataclass(frozen=True)
class PrepareSettings:
    """What is done to every study.

    Args:
        steps: The stages of the registration; none keeps the scanner's coordinates.
        grid_mm: Voxel size of the grid on which the phases are registered and compared.
        interpolation: Of the non-contrast and the arterial scan.
        crop: How the abdomen is found.
        margin_mm: Kept around it.
        seed: Of the registration's sampling.

    Raises:
        ValueError: If a size is not positive.
    """

    steps: tuple[Step, ...] = find_steps(("rigid", "affine", "deformable"))
    grid_mm: float = 4.0
    interpolation: Interpolation = Interpolation.LINEAR
    crop: Crop = Crop.BODY
    margin_mm: float = 10.0
    seed: int = 1

    def __post_init__(self) -> None:
        if not (self.grid_mm > 0 and self.margin_mm >= 0):
            raise ValueError(f"grid_mm is {self.grid_mm}, margin_mm {self.margin_mm}; give a size in mm")

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return {"preparation": PREPARATION, **plain}


def study_key(study: Study, settings: PrepareSettings) -> str:
    """What a prepared study is known by: a hash over the content of its inputs and the settings.

    Where the files lie and what they are called plays no part, nor do the versions of the libraries: a newer
    one does not undo finished work.

    Raises:
        InputError: A file cannot be read.
    """
    inputs = {phase.value: _content(study.file(phase), phase) for phase in study.phases}
    inputs |= {column: _content(path) for column, path in study.masks.items()}
    return _digest({"inputs": inputs, "settings": settings.to_json()})


def _content(path: Path, phase: Phase | None = None) -> list[str]:
    try:
        return sorted(file_digest(file) for file in content_files(path))
    except InputError as error:
        raise InputError(str(error).replace(str(path), scan_name(path, phase), 1)) from None


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str | None]:
    """The versions of what does the work, for the record."""
    names = ("antspyx", "SimpleITK", "numpy", "scipy")
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
