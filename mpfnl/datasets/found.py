"""What an adapter finds in a dataset, and the tables made of it."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mpfnl.data.manifest import Split, Study, write_manifest
from mpfnl.datasets.splits import split_patients
from mpfnl.errors import InputError
from mpfnl.files import write_text
from mpfnl.phases import Phase


@dataclass(frozen=True)
class Exclusion:
    """A study that is left out.

    Args:
        study_id: Its name.
        reason: Why, in words that name no study: they are counted.
    """

    study_id: str
    reason: str


@dataclass(frozen=True)
class Pick:
    """The series taken for a phase.

    Args:
        study_id: The study.
        phase: The phase.
        series: The series' SeriesInstanceUID.
        slices: The number of its files.
        spacing: Distance between its slices in mm.
        candidates: How many series carry the phase.
        reason: Why this one.
    """

    study_id: str
    phase: Phase
    series: str
    slices: int
    spacing: float
    candidates: int
    reason: str


@dataclass(frozen=True)
class Entry:
    """A study with its three phases, before it has a split.

    Args:
        study_id: Its name.
        patient_id: Its patient.
        files: The file or DICOM folder of each phase, the delayed one where there is one.
        masks: Its masks, by the manifest's column.
    """

    study_id: str
    patient_id: str
    files: Mapping[Phase, Path]
    masks: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class FoundCohort:
    """A dataset's studies, and what was left out.

    Args:
        studies: The studies with the three phases.
        excluded: The others.
        picks: The series taken, where there was something to choose from.
        notes: Lines that a person should read.
    """

    studies: tuple[Study, ...]
    excluded: tuple[Exclusion, ...]
    picks: tuple[Pick, ...] = ()
    notes: tuple[str, ...] = ()


def found_cohort(
    root: Path,
    seed: int,
    entries: Sequence[Entry],
    excluded: Iterable[Exclusion],
    picks: Iterable[Pick] = (),
    notes: Iterable[str] = (),
) -> FoundCohort:
    """Draws the splits and puts the cohort together.

    Args:
        root: The dataset's folder, for the message.
        seed: Of the splits.
        entries: The studies with the three phases.
        excluded: The others.
        picks: The series taken.
        notes: Lines that a person should read.

    Raises:
        InputError: No study is left, or the seed is negative.
    """
    excluded = tuple(excluded)
    if seed < 0:
        raise InputError(f"--seed {seed}: give 0 or more")
    if not entries:
        raise InputError(
            f"{root}: no study has the three phases ({counted_reasons(excluded)}); check the folder"
        )
    splits = split_patients((entry.patient_id for entry in entries), seed)
    studies = tuple(_study(entry, splits[entry.patient_id]) for entry in entries)
    return FoundCohort(studies, excluded, tuple(picks), tuple(notes))


def _study(entry: Entry, split: Split) -> Study:
    return Study(entry.study_id, entry.patient_id, split, entry.files, entry.masks)


def counted_reasons(excluded: Iterable[Exclusion]) -> str:
    """The reasons with their counts, the most frequent first."""
    counts = Counter(exclusion.reason for exclusion in excluded)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in ordered)


def check_table(output: Path) -> None:
    """Refuses a place for the manifest before the dataset is read.

    Raises:
        InputError: The name does not end in .csv, its folder is missing, or it is a folder.
    """
    if output.suffix.lower() != ".csv":
        raise InputError(f"{output}: the manifest's name must end in .csv; choose another name")
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give the name of a file in it")
    if not output.parent.is_dir():
        raise InputError(f"{output}: the folder {output.parent} does not exist; make it first")


def write_found(output: Path, found: FoundCohort) -> str:
    """Writes the manifest NAME.csv, NAME.excluded.csv and, where series were picked, NAME.series.csv.

    Each file appears whole or not at all, the manifest last.

    Args:
        output: The manifest.
        found: What to write.

    Returns:
        A few lines for the terminal: what was found, what was left out and why.

    Raises:
        InputError: `output` cannot be written.
    """
    check_table(output)
    left_out = output.with_name(f"{output.stem}.excluded.csv")
    excluded = [(exclusion.study_id, exclusion.reason) for exclusion in found.excluded]
    _write_table(left_out, ("study_id", "reason"), excluded)
    if found.picks:
        columns = ("study_id", "phase", "series", "slices", "spacing_mm", "candidates", "reason")
        _write_table(
            output.with_name(f"{output.stem}.series.csv"),
            columns,
            [
                (p.study_id, p.phase, p.series, p.slices, round(p.spacing, 3), p.candidates, p.reason)
                for p in found.picks
            ],
        )
    write_manifest(output, found.studies)
    return "\n".join([*_summary(output, left_out, found), *found.notes])


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())


def _summary(output: Path, left_out: Path, found: FoundCohort) -> list[str]:
    count = len(found.studies)
    why = f": {counted_reasons(found.excluded)}" if found.excluded else ""
    splits = {study.patient_id: study.split for study in found.studies}
    counts = Counter(splits.values())
    shares = ", ".join(f"{counts[split]} {split}" for split in Split)
    masked = sum("pancreas" in study.masks for study in found.studies)
    lines = [
        f"{output}: {count} studies, {len(found.excluded)} excluded (see {left_out}){why}",
        f"{len(splits)} patients: {shares}",
    ]
    return lines + ([f"{masked} of {count} studies have a pancreas mask"] if masked else [])
