"""A phantom cohort's folder: its record, its scans, and that settings are never mixed in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpfnl.errors import InputError
from mpfnl.files import write_text
from mpfnl.phantoms.config import PhantomConfig
from mpfnl.phantoms.labels import LABELS

if TYPE_CHECKING:
    from mpfnl.volumes.grid import Affine
    from mpfnl.volumes.intensity import Voxels

GENERATOR = 1
"""Raised whenever the same seed gives other voxels than before."""

NOTICE = "These are phantoms, made by a program. Nothing shown on them is evidence about patients."

_RECORD = "phantom.json"


def cohort_settings(
    patients: int, seed: int, config: PhantomConfig, others: Mapping[str, Any]
) -> dict[str, Any]:
    """What the record says before any study is made.

    Args:
        patients: How many.
        seed: The cohort's seed.
        config: The settings of the phantoms.
        others: What else was asked for, as plain JSON.

    Raises:
        InputError: The number of patients or the seed is out of range.
    """
    if patients < 1:
        raise InputError(f"{patients} patients were asked for: ask for at least one")
    if not 0 <= seed < 2**32:
        raise InputError(f"the seed is {seed}: give one from 0 to {2**32 - 1}")
    settings = {
        "notice": NOTICE,
        "generator": GENERATOR,
        "patients": patients,
        "seed": seed,
        "config": asdict(config),
        **others,
        "labels": {str(number): name for number, name in LABELS.items()},
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))  # as a later run reads it
    return plain


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Marks the folder with the settings, or checks that it was marked with the same.

    Raises:
        InputError: It is a file, or holds something else or a cohort with other settings.
    """
    record = folder / _RECORD
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: this is a file; name a folder for the phantom cohort")
    if not record.exists():
        if folder.is_dir() and any(p for p in folder.iterdir() if not p.name.startswith(".")):
            raise InputError(f"{folder}: it holds something other than a phantom cohort; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder, settings)
        return
    try:
        found = json.loads(record.read_text("utf-8"))
        same = {key: found.get(key) for key in settings}
    except (ValueError, AttributeError):
        raise InputError(f"{record}: this is not a phantom cohort's record; name another folder") from None
    for key, value in settings.items():
        if same[key] != value:
            raise InputError(
                f"{folder}: its phantom cohort has other settings ({key} differs); name another folder"
            )


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the cohort's record."""
    write_text(folder / _RECORD, json.dumps(record, indent=1) + "\n")


def write_scans(folder: Path, scans: Mapping[str, Voxels], affine: Affine) -> None:
    """Writes arrays on one grid as NAME.nii.gz."""
    from mpfnl.volumes import Volume, write_volume  # loads nibabel

    for name, voxels in scans.items():
        path = folder / f"{name}.nii.gz"
        write_volume(path, voxels, like=Volume.from_array(voxels, affine, path))


def numbered(patients: int, progress: bool) -> Iterator[int]:
    """The patients' numbers, with a progress bar where one is asked for."""
    if not progress:
        return iter(range(patients))
    from mpfnl.progress import track  # loads rich

    return track(range(patients), patients, "phantoms")
