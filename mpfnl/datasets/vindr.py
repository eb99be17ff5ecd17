"""VinDr-Multiphase, PhysioNet's layout: labels.csv states the phase of each DICOM series."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpfnl.data.csv_table import read_csv, turned_into_number
from mpfnl.datasets.cohort import (
    Cohort,
    Exclusion,
    SeriesRecord,
    SourceStudy,
    assemble_cohort,
    check_masks,
    find_masks,
)
from mpfnl.datasets.headers import SeriesHeader, read_series_header, series_files
from mpfnl.datasets.registry import register_dataset
from mpfnl.datasets.selection import Candidate, exclusion_reason, select_series
from mpfnl.errors import ConflictError, FormatError, InputError, NotFoundError
from mpfnl.phases import PHASES, Phase

COLUMNS = ("StudyInstanceUID", "SeriesInstanceUID", "Label")

LABELS: dict[str, Phase | None] = {
    "noncontrast": Phase.NONCONTRAST,
    "aterial": Phase.ARTERIAL,  # the data set's spelling
    "arterial": Phase.ARTERIAL,
    "venous": Phase.PORTAL_VENOUS,
    "other": None,
}
"""Labels in lower case without spaces, hyphens and underscores; None stands for series of other phases."""

HELD = tuple(phase for phase in Phase if phase in LABELS.values())
"""Phases that the data set holds."""

_SELECTION_ORDER = sorted(HELD, key=lambda phase: phase is not Phase.PORTAL_VENOUS)

GROUPED = "patients: studies with the same DICOM PatientID are one patient"
NOT_GROUPED = (
    "patients: the DICOM headers do not distinguish patients; each study counts as a patient of its own"
)

_Series = dict[str, Phase | None]


@dataclass(frozen=True)
class _LabelledStudy:
    """A study with the selected series of each phase."""

    study_id: str
    series: Mapping[Phase, Candidate]
    records: Sequence[SeriesRecord]

    @property
    def patient(self) -> str:
        """The PatientID in the headers of the portal venous series; may be empty."""
        return self.series[Phase.PORTAL_VENOUS].header.patient

    def source(self, patient_id: str, masks: Path | None) -> SourceStudy:
        """The study under its patient's name, with the user's masks."""
        scans = {phase: candidate.folder for phase, candidate in self.series.items()}
        names = {phase: candidate.series for phase, candidate in self.series.items()}
        return SourceStudy(self.study_id, patient_id, scans, find_masks(masks, names))


@register_dataset("vindr", "VinDr-Multiphase")
def find_vindr(root: Path, seed: int = 0, masks: Path | None = None) -> Cohort:
    """Finds the studies of VinDr-Multiphase that have every required phase.

    Where several series carry a phase, `select_series` takes one. Studies with the same PatientID are one
    patient, named by the patient's first study; no file repeats the PatientID. Where no study has one, or all
    have the same (a placeholder), each study is a patient of its own.

    Args:
        root: Folder of the data set, or its folder `abdomen_phases`.
        seed: Seed of the splits.
        masks: Folder with `<SeriesInstanceUID>/pancreas.nii.gz` and `labels.nii.gz`, if there is one.

    Raises:
        InputError: The folder does not hold VinDr-Multiphase, labels.csv cannot be used, a study lies in two
            batches, or no study has every required phase.
    """
    folder = next((path for path in (root / "abdomen_phases", root) if (path / "labels.csv").is_file()), None)
    if folder is None:
        raise NotFoundError(
            f"{root}: holds no abdomen_phases/labels.csv; give the folder of VinDr-Multiphase"
        )
    labels = read_labels(folder / "labels.csv")
    places = _places(folder, labels)
    results = [_study(study_id, series, places.get(study_id)) for study_id, series in sorted(labels.items())]
    labelled = [result for result in results if isinstance(result, _LabelledStudy)]
    excluded = [result for result in results if isinstance(result, Exclusion)]
    patients, note = _patients(labelled)
    studies = [study.source(patients[study.study_id], masks) for study in labelled]
    records = [record for study in labelled for record in study.records]
    cohort = assemble_cohort(folder, seed, studies, excluded, records, [note])
    check_masks(masks, studies, "<SeriesInstanceUID>")
    return cohort


def read_labels(path: Path) -> dict[str, _Series]:
    """Reads labels.csv: the phase of each series of each study; None stands for another phase.

    Raises:
        FormatError: The file is not a CSV (see `read_csv`), a column or cell is missing, a UID cannot name a
            folder, or a label is unknown.
        ConflictError: A series has two labels or two studies.
    """
    labels: dict[str, _Series] = {}
    owners: dict[str, str] = {}
    for number, study, series, label in _rows(path):
        key = re.sub(r"[\s_-]", "", label).lower()
        if key not in LABELS:
            raise FormatError(
                f"{path}: row {number} has the unknown label {label!r};"
                " the labels are Non-contrast, Aterial (or Arterial), Venous and Other"
            )
        for uid in (study, series):
            if turned_into_number(uid):
                raise FormatError(
                    f"{path}: row {number} has the UID {uid!r}, a number that a spreadsheet rounded;"
                    " download the file again, and open it with that column as text"
                )
            if not re.fullmatch(r"\w[\w.-]*", uid):
                raise FormatError(f"{path}: row {number} has the UID {uid!r}, which cannot name a folder")
        known = labels.setdefault(study, {})
        if owners.setdefault(series, study) != study or known.setdefault(series, LABELS[key]) != LABELS[key]:
            raise ConflictError(
                f"{path}: row {number} gives the series {series} another label or study than a row above"
                "; keep one"
            )
    if not labels:
        raise FormatError(f"{path}: names no series; download it again")
    return labels


def _rows(path: Path) -> list[tuple[int, str, str, str]]:
    """Row number (the header's is 1), study, series and label."""
    table = read_csv(path, COLUMNS)
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing:
        raise FormatError(f"{path}: has no column {missing[0]}; its columns must be {', '.join(COLUMNS)}")
    rows = []
    for row in table.rows:
        study, series, label = (row.cells[column] for column in COLUMNS)
        empty = [column for column in COLUMNS if not row.cells[column]]
        if empty:
            raise FormatError(f"{path}: row {row.number} has no {empty[0]}; it needs {', '.join(COLUMNS)}")
        rows.append((row.number, study, series, label))
    return rows


def _places(folder: Path, labels: Mapping[str, _Series]) -> dict[str, Path]:
    """The folder of each downloaded study."""
    batches = sorted(path for path in folder.glob("batch*") if path.is_dir())
    if not batches:
        raise NotFoundError(f"{folder}: holds no batch folder with DICOM studies; download and unpack them")
    places: dict[str, Path] = {}
    for batch in batches:
        for study in sorted(labels):
            if (batch / study).is_dir() and places.setdefault(study, batch / study) != batch / study:
                raise ConflictError(
                    f"{batch / study}: the study is in {places[study].parent} as well; remove one of the two"
                )
    return places


def _study(study_id: str, series: _Series, place: Path | None) -> _LabelledStudy | Exclusion:
    if place is None:
        return Exclusion(study_id, "study folder missing")
    problems: dict[Phase, str] = {}
    selected: dict[Phase, Candidate] = {}
    records: dict[Phase, SeriesRecord] = {}
    for phase in _SELECTION_ORDER:
        uids = sorted(uid for uid, label in series.items() if label is phase)
        candidates, faults = _candidates(uids, place)
        reference = selected.get(Phase.PORTAL_VENOUS)
        selection = select_series(candidates, reference.header if reference else None)
        if selection is None:
            problems[phase] = _problem(phase, uids, candidates, faults)
            continue
        unread = [f"{count} with its {fault}" for fault, count in sorted(Counter(faults).items())]
        reason = "; ".join([selection.reason, *unread])
        selected[phase] = selection.candidate
        records[phase] = _record(study_id, phase, selection.candidate, len(uids), reason)
    missing = [problems[phase] for phase in PHASES if phase in problems]
    if missing:
        return Exclusion(study_id, "; ".join(missing))
    ordered = {phase: selected[phase] for phase in HELD if phase in selected}
    return _LabelledStudy(study_id, ordered, [records[phase] for phase in ordered])


def _record(study_id: str, phase: Phase, series: Candidate, candidates: int, reason: str) -> SeriesRecord:
    header = series.header
    return SeriesRecord(
        study_id, phase, series.series, header.slices, header.spacing or 0.0, candidates, reason
    )


def _candidates(uids: Sequence[str], place: Path) -> tuple[list[Candidate], list[str]]:
    """The readable series, and the faults of the others."""
    candidates, faults = [], []
    for uid in uids:
        header = _header(place / uid)
        if isinstance(header, str):
            faults.append(header)
        else:
            candidates.append(Candidate(uid, place / uid, header))
    return candidates, faults


def _header(folder: Path) -> SeriesHeader | str:
    """The header of a series, or the fault of its folder."""
    if not folder.is_dir():
        return "folder missing"
    try:
        files = series_files(folder)
        return read_series_header(files) if files else "folder empty"
    except InputError:
        return "DICOM unreadable"


def _problem(
    phase: Phase, uids: Sequence[str], candidates: Sequence[Candidate], faults: Sequence[str]
) -> str:
    if not uids:
        return f"no {phase.label} phase"
    reasons = {*faults, *(exclusion_reason(candidate.header) or "" for candidate in candidates)}
    return f"no usable {phase.label} phase ({', '.join(sorted(reasons))})"


def _patients(studies: Sequence[_LabelledStudy]) -> tuple[dict[str, str], str]:
    """The patient of each study, named by the patient's first study; and a note on how they were grouped."""
    if len({study.patient for study in studies}) < 2:
        return {study.study_id: study.study_id for study in studies}, NOT_GROUPED
    first: dict[str, str] = {}
    for study in sorted(studies, key=lambda study: study.study_id):
        if study.patient:
            first.setdefault(study.patient, study.study_id)
    return {study.study_id: first.get(study.patient, study.study_id) for study in studies}, GROUPED
