"""Studies of a manifest: patient, split, scans and masks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mpfnl.errors import NotFoundError
from mpfnl.phases import Phase

MASKS = ("pancreas", "labels")
"""Masks that a study may have on each phase: the pancreas, and TotalSegmentator's label map."""


def mask_column(mask: str, phase: Phase) -> str:
    """The manifest column of a mask: `pancreas` on the portal venous scan, else `arterial_pancreas` etc.

    Args:
        mask: One of `MASKS`.
        phase: Phase whose scan the mask lies on.

    >>> mask_column("labels", Phase.PORTAL_VENOUS), mask_column("labels", Phase.ARTERIAL)
    ('labels', 'arterial_labels')
    """
    return mask if phase is Phase.PORTAL_VENOUS else f"{phase}_{mask}"


_MASK_PHASES = {mask_column(mask, phase): phase for phase in Phase for mask in MASKS}

MASK_COLUMNS = tuple(sorted(_MASK_PHASES, key=lambda column: column not in MASKS))
"""Manifest columns of all masks; those of the portal venous phase come first."""


def mask_phase(column: str) -> Phase:
    """The phase whose scan a mask lies on; the inverse of `mask_column`.

    Args:
        column: Manifest column, one of `MASK_COLUMNS`.

    >>> mask_phase("arterial_labels"), mask_phase("pancreas")
    (<Phase.ARTERIAL: 'arterial'>, <Phase.PORTAL_VENOUS: 'portal_venous'>)
    """
    return _MASK_PHASES[column]


_PHANTOM_NAME, _PHANTOM_RECORD = re.compile(r"phantom-\d+-\d{4,}"), "phantom.json"


class Split(StrEnum):
    """Use of a patient's studies.

    >>> [str(split) for split in Split]
    ['train', 'val', 'test']
    """

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Quality(StrEnum):
    """Verdict of the preparation: usable, usable after review, not usable."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Study:
    """One multiphase study.

    Args:
        study_id: Study name, unique in the manifest.
        patient_id: Patient name; all studies of a patient are in one split.
        split: Split of the patient.
        scans: File or DICOM folder of each phase that the study has.
        masks: Masks by manifest column, files or `FILE#LABEL`: `pancreas` and `labels` lie on the portal
            venous scan, `arterial_pancreas` and the like on the phase in their name.
        quality: Verdict of the preparation; None for a study that was not prepared.

    Raises:
        ValueError: A phase or a mask column is unknown.

    >>> study = Study("s1", "p1", Split.TRAIN, {Phase.ARTERIAL: Path("arterial.nii.gz")})
    >>> [str(phase) for phase in study.phases]
    ['arterial']
    """

    study_id: str
    patient_id: str
    split: Split
    scans: Mapping[Phase, Path] = field(hash=False)
    masks: Mapping[str, Path] = field(default_factory=dict, hash=False)
    quality: Quality | None = None

    def __post_init__(self) -> None:
        scans = {Phase(phase): path for phase, path in self.scans.items()}
        object.__setattr__(self, "scans", {phase: scans[phase] for phase in Phase if phase in scans})
        unknown = [column for column in self.masks if column not in MASK_COLUMNS]
        if unknown:
            raise ValueError(
                f"there is no mask column {unknown[0]!r}; the columns are {', '.join(MASK_COLUMNS)}"
            )
        masks = {column: self.masks[column] for column in MASK_COLUMNS if column in self.masks}
        object.__setattr__(self, "masks", masks)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of the study, in stacking order."""
        return tuple(self.scans)

    def file(self, phase: Phase) -> Path:
        """The file or DICOM folder of a phase.

        Raises:
            NotFoundError: The study has no such phase.
        """
        if phase not in self.scans:
            raise NotFoundError(
                f"study {self.study_id!r}: has no {phase.label} phase; fill in the manifest's column {phase},"
                " or leave the phase out of the model"
            )
        return self.scans[phase]

    def located(self, place: Callable[[str, Path], Path], quality: Quality | None = None) -> Study:
        """The same study with its files elsewhere.

        Args:
            place: Function of the manifest column and the file that returns the new file.
            quality: Verdict of the preparation there.
        """
        scans = {phase: place(phase.value, path) for phase, path in self.scans.items()}
        masks = {column: place(column, path) for column, path in self.masks.items()}
        return Study(self.study_id, self.patient_id, self.split, scans, masks, quality)


@dataclass(frozen=True)
class Manifest:
    """The studies of a cohort, in the order of the rows.

    Args:
        path: CSV file.
        studies: Studies of the cohort.

    >>> study = Study("s1", "p1", Split.TRAIN, {})
    >>> len(Manifest(Path("cohort.csv"), (study,)).split("test"))
    0
    """

    path: Path
    studies: tuple[Study, ...]

    def split(self, split: Split | str) -> Manifest:
        """The studies of one split.

        Raises:
            ValueError: There is no such split.
        """
        wanted = Split(split)
        return Manifest(self.path, tuple(study for study in self.studies if study.split is wanted))

    @property
    def failed(self) -> tuple[Study, ...]:
        """The studies whose preparation failed."""
        return tuple(study for study in self.studies if study.quality is Quality.FAIL)

    def usable(self) -> Manifest:
        """The studies without those whose preparation failed."""
        return Manifest(self.path, tuple(s for s in self.studies if s.quality is not Quality.FAIL))

    def needed(self, split: Split, include_failed: bool = False) -> tuple[Study, ...]:
        """The usable studies of a split, at least one.

        Args:
            split: Split of the studies.
            include_failed: Whether to include studies whose preparation failed.

        Raises:
            NotFoundError: There is none.
        """
        listed = self.split(split)
        used = listed if include_failed else listed.usable()
        if not listed.studies:
            raise NotFoundError(f"{self.path}: no study is in split {split}; assign one")
        if not used.studies:
            raise NotFoundError(
                f"{self.path}: the preparation of all {len(listed)} studies in split {split} failed; see"
                " their records, and prepare them again or assign others"
            )
        return used.studies

    def left_out(self) -> str:
        """One line that names the studies excluded by `usable`; empty if there are none."""
        if not self.failed:
            return ""
        count = f"{len(self.failed)} of {len(self)} {'study' if len(self) == 1 else 'studies'}"
        return f"{self.path.name}: {count} left out, preparation failed: {', '.join(_names(self.failed))}"

    def __len__(self) -> int:
        return len(self.studies)

    def __iter__(self) -> Iterator[Study]:
        return iter(self.studies)


def _names(studies: Sequence[Study], most: int = 10) -> list[str]:
    names = [study.study_id for study in studies]
    return names if len(names) <= most else [*names[:most], f"and {len(names) - most} more"]


def holds_phantoms(manifest: Manifest, studies: Sequence[Study]) -> bool:
    """Whether studies are phantoms of `mpfnl phantom`, by their names or the record beside the manifest.

    Results on phantoms must not pass as results on patients.

    Args:
        manifest: The cohort.
        studies: Studies of the cohort.
    """
    named = any(_PHANTOM_NAME.fullmatch(study.study_id) for study in studies)
    return named or (manifest.path.parent / _PHANTOM_RECORD).is_file()
