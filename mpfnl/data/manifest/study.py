"""A study of the manifest: its patient, its split, its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from mpfnl.errors import InputError
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


class Split(StrEnum):
    """What a patient's studies are used for."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class Quality(StrEnum):
    """What the preparation found: usable, to be looked at, not to be used."""

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
        masks: Mask files by manifest column: `pancreas` and `labels` lie on the portal venous scan,
            `arterial_pancreas` and the like on the phase in their name.
        quality: Verdict of the preparation; None for a study that was not prepared.

    Raises:
        ValueError: If a phase or a mask column is unknown.
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
        """The phases that the study has, in stacking order."""
        return tuple(self.scans)

    def file(self, phase: Phase) -> Path:
        """The file or DICOM folder of a phase.

        Raises:
            InputError: If the study has no such phase.
        """
        if phase not in self.scans:
            raise InputError(
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
        path: The CSV.
        studies: Its studies.
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
            split: The split.
            include_failed: Whether to take those whose preparation failed, too.

        Raises:
            InputError: There is none.
        """
        listed = self.split(split)
        used = listed if include_failed else listed.usable()
        if not listed.studies:
            raise InputError(f"{self.path}: no study is in split {split}; put one there")
        if not used.studies:
            raise InputError(
                f"{self.path}: no study is left in split {split}, since the preparation of all its"
                f" {len(listed)} failed; see their records, and prepare them again or put others there"
            )
        return used.studies

    def left_out(self) -> str:
        """One line that names the studies that `usable` leaves out; empty if there is none."""
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
