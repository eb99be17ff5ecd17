"""A cohort of phantoms on disk: NIfTI studies and the manifest that names them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mpfnl.errors import InputError
from mpfnl.files import write_text
from mpfnl.phantoms.config import PhantomConfig
from mpfnl.phantoms.folder import claim_folder, cohort_settings, numbered, write_record, write_scans
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.study import PhantomStudy, generate_study
from mpfnl.phases import PHASES

_FILES = (*(p.value for p in PHASES), "pancreas", "labels")
_MANIFEST, _TRUTH = "cohort.csv", "truth.json"


@dataclass(frozen=True)
class SplitCounts:
    """How many patients each split holds; the patients are taken in their order."""

    train: int
    val: int
    test: int

    @classmethod
    def default(cls, patients: int) -> SplitCounts:
        """80, 10 and 10 %, with at least one patient in each as far as there are patients."""
        held_out = max(1, round(patients / 10)) if patients > 1 else 0
        val = held_out if patients > 2 else 0
        return cls(patients - val - held_out, val, held_out)

    def names(self) -> list[str]:
        """The split of each patient in turn."""
        return ["train"] * self.train + ["val"] * self.val + ["test"] * self.test


def write_cohort(
    folder: Path,
    patients: int,
    seed: int = 0,
    config: PhantomConfig | None = None,
    splits: SplitCounts | None = None,
    progress: bool = False,
) -> Path:
    """Writes phantom studies as NIfTI, with a manifest (`cohort.csv`) and a record (`phantom.json`).

    Each study is a folder with the three phases (int16 HU), the organ labels and the pancreas
    (uint8); it appears only when it is whole. A second run with the same settings goes on where the
    first stopped and leaves what is there alone; all files are the same, byte for byte.

    Args:
        folder: Where to write; made if it does not exist.
        patients: How many patients, one study each.
        seed: The cohort's seed.
        config: The settings of the phantoms; by default voxels of 1.5 to 2 mm in slices of
            2.5 to 5 mm, coarser in plane than a clinical scan.
        splits: How many patients go to train, val and test; 80/10/10 % if not given.
        progress: Whether to show a progress bar.

    Returns:
        The path of the manifest.

    Raises:
        InputError: If the counts do not fit, or the folder holds something else already.
    """
    config = PhantomConfig() if config is None else config
    splits = SplitCounts.default(patients) if splits is None else splits
    settings = cohort_settings(patients, seed, config, {"splits": asdict(splits)})
    if min(asdict(splits).values()) < 0 or len(splits.names()) != patients:
        raise InputError(f"the splits {asdict(splits)} do not add up to {patients} patients")
    folder = Path(folder)
    claim_folder(folder, settings)
    names = [f"phantom-{seed}-{patient:04d}" for patient in range(patients)]
    for patient in numbered(patients, progress):
        if not _complete(folder / names[patient]):
            _write_study(folder, names[patient], generate_study(seed, patient, config))
    truth = {name: json.loads((folder / name / _TRUTH).read_text("utf-8")) for name in names}
    write_record(folder, settings | {"truth": truth})
    return _write_manifest(folder, names, splits)


def _complete(study: Path) -> bool:
    return all((study / f"{name}.nii.gz").is_file() for name in _FILES) and (study / _TRUTH).is_file()


def _write_study(folder: Path, name: str, study: PhantomStudy) -> None:
    """Writes under a temporary name and renames, so that a study is there whole or not at all."""
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
    from mpfnl.data.manifest import Split, Study, write_manifest  # loads nibabel

    studies = []
    for name, split in zip(names, splits.names(), strict=True):
        scans = {phase: folder / name / f"{phase}.nii.gz" for phase in PHASES}
        masks = {mask: folder / name / f"{mask}.nii.gz" for mask in ("pancreas", "labels")}
        studies.append(Study(name, name, Split(split), scans, masks))
    return write_manifest(folder / _MANIFEST, studies).path
