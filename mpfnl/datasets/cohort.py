"""The cohort that an adapter finds in a data set, and the tables written from it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpfnl.data.manifest import MASKS, Split, Study, mask_column, split_patients, write_manifest
from mpfnl.errors import NotFoundError, OptionError, OutputError
from mpfnl.files import write_text
from mpfnl.phases import PHASES, Phase


@dataclass(frozen=True)
class Exclusion:
    """A study that is left out of the manifest.

    Args:
        study_id: Study name.
        reason: Reason without the study's name; equal reasons are counted together.
    """

    study_id: str
    reason: str


@dataclass(frozen=True)
class SeriesRecord:
    """The series that represents a phase of a study.

    Args:
        study_id: Study name.
        phase: Contrast phase.
        series: SeriesInstanceUID.
        slices: Number of files.
        spacing: Distance between slices in mm.
        candidates: Number of series that carry the phase.
        reason: Reason for the choice.
    """

    study_id: str
    phase: Phase
    series: str
    slices: int
    spacing: float
    candidates: int
    reason: str


@dataclass(frozen=True)
class SourceStudy:
    """A study of a data set, not yet assigned to a split.

    Args:
        study_id: Study name.
        patient_id: Patient name.
        scans: File or DICOM folder of each phase.
        masks: Mask files by manifest column.
    """

    study_id: str
    patient_id: str
    scans: Mapping[Phase, Path]
    masks: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Cohort:
    """The studies of a data set, and those left out.

    Args:
        studies: Studies with every required phase.
        excluded: The other studies.
        series: Series of each phase, where several could represent it.
        notes: Lines for the user.
    """

    studies: tuple[Study, ...]
    excluded: tuple[Exclusion, ...]
    series: tuple[SeriesRecord, ...] = ()
    notes: tuple[str, ...] = ()


def assemble_cohort(
    root: Path,
    seed: int,
    studies: Sequence[SourceStudy],
    excluded: Iterable[Exclusion],
    series: Iterable[SeriesRecord] = (),
    notes: Iterable[str] = (),
) -> Cohort:
    """Assigns the patients of a data set to splits.

    Args:
        root: Folder of the data set, which messages name.
        seed: Seed of the splits.
        studies: Studies with every required phase.
        excluded: The other studies.
        series: Series of each phase, where several could represent it.
        notes: Lines for the user.

    Raises:
        OptionError: The seed is negative.
        NotFoundError: There is no study.
    """
    excluded = tuple(excluded)
    if seed < 0:
        raise OptionError(f"--seed {seed}: give 0 or more")
    if not studies:
        raise NotFoundError(
            f"{root}: no study has every required phase ({', '.join(PHASES)}): {count_reasons(excluded)};"
            " check the folder"
        )
    splits = split_patients((study.patient_id for study in studies), seed)
    assigned = tuple(
        Study(study.study_id, study.patient_id, splits[study.patient_id], study.scans, study.masks)
        for study in studies
    )
    return Cohort(assigned, excluded, tuple(series), tuple(notes))


def count_reasons(excluded: Iterable[Exclusion]) -> str:
    """The reasons with their counts, the most frequent first."""
    counts = Counter(exclusion.reason for exclusion in excluded)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in ordered)


def find_masks(folder: Path | None, scans: Mapping[Phase, str]) -> dict[str, Path]:
    """The existing masks of a study, by manifest column.

    The folder holds one folder for each scan, with `pancreas.nii.gz` and `labels.nii.gz`, the layout of
    TotalSegmentator's output.

    Args:
        folder: Folder of masks; None if the user has none.
        scans: Name of each phase's scan.
    """
    if folder is None:
        return {}
    files = {
        mask_column(mask, phase): folder / scan / f"{mask}.nii.gz"
        for phase, scan in scans.items()
        for mask in MASKS
    }
    return {column: path for column, path in files.items() if path.is_file()}


def check_masks(folder: Path | None, studies: Iterable[SourceStudy], scan: str) -> None:
    """Refuses a folder of masks that fits no study.

    Args:
        folder: Folder of masks; None if the user has none.
        studies: Studies of the data set.
        scan: Pattern of a scan's folder name, for the message.

    Raises:
        NotFoundError: The folder holds no mask of any study.
    """
    if folder is not None and not any(study.masks for study in studies):
        raise NotFoundError(f"{folder}: holds no {scan}/{MASKS[0]}.nii.gz of any study; check --masks")


def check_output(output: Path) -> None:
    """Refuses a path for the manifest before the data set is read.

    Raises:
        OutputError: The name does not end in .csv, the parent folder is missing, or the path is a folder.
    """
    if output.suffix.lower() != ".csv":
        raise OutputError(f"{output}: the manifest's name must end in .csv; choose another name")
    if output.is_dir():
        raise OutputError(f"{output}: is a folder; give the name of a file in it")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: the folder {output.parent} does not exist; create it first")


def write_cohort_tables(output: Path, cohort: Cohort) -> str:
    """Writes NAME.csv (the manifest), NAME.excluded.csv and, where series were selected, NAME.series.csv.

    Each file appears whole or not at all, the manifest last.

    Args:
        output: Path of the manifest.
        cohort: Cohort to write.

    Returns:
        Summary for the terminal: studies, exclusions with their reasons, splits.

    Raises:
        OutputError: `output` cannot be written.
    """
    check_output(output)
    left_out = output.with_name(f"{output.stem}.excluded.csv")
    excluded = [(exclusion.study_id, exclusion.reason) for exclusion in cohort.excluded]
    _write_table(left_out, ("study_id", "reason"), excluded)
    if cohort.series:
        columns = ("study_id", "phase", "series", "slices", "spacing_mm", "candidates", "reason")
        rows = [
            (
                row.study_id,
                row.phase,
                row.series,
                row.slices,
                round(row.spacing, 3),
                row.candidates,
                row.reason,
            )
            for row in cohort.series
        ]
        _write_table(output.with_name(f"{output.stem}.series.csv"), columns, rows)
    write_manifest(output, cohort.studies)
    return "\n".join([*_summary(output, left_out, cohort), *cohort.notes])


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())


def _summary(output: Path, left_out: Path, cohort: Cohort) -> list[str]:
    count = len(cohort.studies)
    reasons = f": {count_reasons(cohort.excluded)}" if cohort.excluded else ""
    splits = {study.patient_id: study.split for study in cohort.studies}
    counts = Counter(splits.values())
    patients = ", ".join(f"{counts[split]} {split}" for split in Split)
    masked = sum("pancreas" in study.masks for study in cohort.studies)
    lines = [
        f"{output}: {count} studies, {len(cohort.excluded)} excluded (see {left_out}){reasons}",
        f"{len(splits)} patients: {patients}",
    ]
    return lines + ([f"{masked} of {count} studies have a pancreas mask"] if masked else [])
