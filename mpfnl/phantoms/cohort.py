"""A cohort of phantoms on disk: NIfTI studies, the manifest and a record of the settings."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mpfnl.data.manifest import MASKS, SplitCounts, Study, write_manifest
from mpfnl.errors import ConflictError, OptionError, OutputError
from mpfnl.files import write_text
from mpfnl.phantoms.config import PhantomConfig
from mpfnl.phantoms.labels import LABELS, NUMBERS
from mpfnl.phantoms.study import PhantomStudy, generate_study
from mpfnl.phases import PHASES

if TYPE_CHECKING:
    from mpfnl.volumes.grid import Affine
    from mpfnl.volumes.intensity import Voxels

GENERATOR = 1
"""Version of the generator; it is raised whenever a seed gives other voxels than before."""

NOTICE = "These are phantoms, made by a program. Nothing shown on them is evidence about patients."

_RECORD = "phantom.json"
_FILES = (*(phase.value for phase in PHASES), *MASKS)
_MANIFEST, _TRUTH = "cohort.csv", "truth.json"


def write_cohort(
    folder: Path,
    patients: int,
    seed: int = 0,
    config: PhantomConfig | None = None,
    splits: SplitCounts | None = None,
    progress: bool = False,
) -> Path:
    """Writes phantom studies as NIfTI, with a manifest (`cohort.csv`) and a record (`phantom.json`).

    Each study is a folder with its phases (int16 HU), the organ labels and the pancreas (uint8); it appears
    only when it is complete. A second run with the same settings continues where the first stopped and
    leaves finished studies alone; all files are equal byte for byte.

    Args:
        folder: Folder of the cohort, created if missing.
        patients: Number of patients, one study each.
        seed: Seed of the cohort.
        config: Settings of the phantoms; the default has voxels of 1.5 to 2 mm in slices of 2.5 to 5 mm,
            coarser in plane than a clinical scan.
        splits: Numbers of patients in train, val and test; the default is 80, 10 and 10 %.
        progress: Whether to show a progress bar.

    Returns:
        Path of the manifest.

    Raises:
        OptionError: The numbers do not fit.
        OutputError: The folder holds other files, or a cohort with other settings.

    >>> from tempfile import TemporaryDirectory
    >>> coarse = PhantomConfig(in_plane_mm=(12.0, 12.0), slice_mm=(20.0, 20.0))
    >>> with TemporaryDirectory() as folder:
    ...     manifest = write_cohort(Path(folder) / "phantoms", patients=1, config=coarse)
    ...     print(manifest.name, sorted(path.name for path in manifest.parent.iterdir()))
    cohort.csv ['cohort.csv', 'phantom-0-0000', 'phantom.json']
    """
    config = PhantomConfig() if config is None else config
    splits = SplitCounts.default(patients) if splits is None else splits
    settings = cohort_settings(patients, seed, config, {"splits": asdict(splits)})
    if min(asdict(splits).values()) < 0 or len(splits.assignment()) != patients:
        raise OptionError(f"the splits {asdict(splits)} do not add up to {patients} patients")
    folder = Path(folder)
    claim_folder(folder, settings)
    names = [f"phantom-{seed}-{patient:04d}" for patient in range(patients)]
    for patient in patient_numbers(patients, progress):
        if not _complete(folder / names[patient]):
            _write_study(folder, names[patient], generate_study(seed, patient, config))
    truth = {name: json.loads((folder / name / _TRUTH).read_text("utf-8")) for name in names}
    write_record(folder, settings | {"truth": truth})
    return _write_manifest(folder, names, splits)


def _complete(study: Path) -> bool:
    return all((study / f"{name}.nii.gz").is_file() for name in _FILES) and (study / _TRUTH).is_file()


def _write_study(folder: Path, name: str, study: PhantomStudy) -> None:
    """Writes under a temporary name and renames, so that a study is complete or absent."""
    partial, final = folder / f".{name}.partial", folder / name
    for leftover in (partial, final):
        if leftover.exists():
            shutil.rmtree(leftover)
    partial.mkdir()
    pancreas = (study.labels == NUMBERS["pancreas"]).astype(np.uint8)
    scans = {phase.value: scan for phase, scan in study.phases.items()}
    write_scans(partial, scans | {"pancreas": pancreas, "labels": study.labels}, study.affine)
    write_text(partial / _TRUTH, json.dumps(study.truth, indent=1) + "\n")
    os.replace(partial, final)


def _write_manifest(folder: Path, names: list[str], splits: SplitCounts) -> Path:
    studies = []
    for name, split in zip(names, splits.assignment(), strict=True):
        scans = {phase: folder / name / f"{phase}.nii.gz" for phase in PHASES}
        masks = {mask: folder / name / f"{mask}.nii.gz" for mask in MASKS}
        studies.append(Study(name, name, split, scans, masks))
    return write_manifest(folder / _MANIFEST, studies).path


def cohort_settings(
    patients: int, seed: int, config: PhantomConfig, others: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of a cohort as its record holds them.

    Args:
        patients: Number of patients.
        seed: Seed of the cohort.
        config: Settings of the phantoms.
        others: Further settings, as plain JSON.

    Raises:
        OptionError: The number of patients or the seed is out of range.
    """
    if patients < 1:
        raise OptionError(f"{patients} patients were requested; give 1 or more")
    if not 0 <= seed < 2**32:
        raise OptionError(f"the seed is {seed}; give a number from 0 to {2**32 - 1}")
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
    """Writes the settings into the folder, or checks that it holds a cohort with the same settings.

    Raises:
        OutputError: The path is a file, or the folder holds other files.
        ConflictError: The folder holds a cohort with other settings.
    """
    record = folder / _RECORD
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: is a file; name a folder for the phantom cohort")
    if not record.exists():
        if folder.is_dir() and any(p for p in folder.iterdir() if not p.name.startswith(".")):
            raise OutputError(f"{folder}: holds files other than a phantom cohort; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_record(folder, settings)
        return
    try:
        recorded = json.loads(record.read_text("utf-8"))
        same = {key: recorded.get(key) for key in settings}
    except (ValueError, AttributeError):
        raise OutputError(f"{record}: is not the record of a phantom cohort; name another folder") from None
    for key, value in settings.items():
        if same[key] != value:
            raise ConflictError(
                f"{folder}: holds a phantom cohort with other settings ({key} differs); name another folder"
            )


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes the record of a cohort."""
    write_text(folder / _RECORD, json.dumps(record, indent=1) + "\n")


def write_scans(folder: Path, scans: Mapping[str, Voxels], affine: Affine) -> None:
    """Writes arrays on one grid as NAME.nii.gz."""
    from mpfnl.volumes import Volume, write_volume  # loads nibabel

    for name, voxels in scans.items():
        path = folder / f"{name}.nii.gz"
        write_volume(path, voxels, like=Volume.from_array(voxels, affine, path))


def patient_numbers(patients: int, progress: bool) -> Iterator[int]:
    """The numbers of the patients, with a progress bar on request."""
    if not progress:
        return iter(range(patients))
    from mpfnl.progress import track  # loads rich

    return track(range(patients), patients, "phantoms")
