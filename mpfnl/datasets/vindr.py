"""VinDr-Multiphase as PhysioNet has it: labels.csv names the phase of DICOM series in batch folders."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mpfnl.datasets.found import Entry, Exclusion, FoundCohort, Pick, found_cohort
from mpfnl.datasets.headers import SeriesHeader, read_series_header, series_files
from mpfnl.datasets.masks import check_masks, find_masks
from mpfnl.datasets.picking import Candidate, pick_series, unusable
from mpfnl.errors import InputError
from mpfnl.phases import PHASES, Phase

COLUMNS = ("StudyInstanceUID", "SeriesInstanceUID", "Label")

LABELS: dict[str, Phase | None] = {
    "noncontrast": Phase.NONCONTRAST,
    "aterial": Phase.ARTERIAL,  # so it is spelt in the dataset
    "arterial": Phase.ARTERIAL,
    "venous": Phase.PORTAL_VENOUS,
    "other": None,
}
"""The labels in small letters without spaces, hyphens and underscores; None is no phase of ours."""

_PICKING_ORDER = (Phase.PORTAL_VENOUS, Phase.NONCONTRAST, Phase.ARTERIAL)

GROUPED = "patients: studies with the same DICOM PatientID are one patient"
NOT_GROUPED = (
    "patients: the DICOM headers tell no patients apart, each study is taken as a patient of its own"
)

_Series = dict[str, Phase | None]


@dataclass(frozen=True)
class _Found:
    """A study with the three phases."""

    study_id: str
    chosen: Mapping[Phase, Candidate]
    picks: Sequence[Pick]

    @property
    def patient(self) -> str:
        """The PatientID in the headers of the portal venous series; may be empty."""
        return self.chosen[Phase.PORTAL_VENOUS].header.patient


def find_vindr(root: Path, seed: int = 0, masks: Path | None = None) -> FoundCohort:
    """Finds the studies of VinDr-Multiphase that have the three phases.

    Where several series carry a phase, `pick_series` takes one. Studies with the same PatientID are one
    patient, named by its first study; the PatientID is written nowhere. Where no study has one, or all have
    the same (a placeholder), each study is a patient of its own.

    Args:
        root: The dataset's folder, or its folder `abdomen_phases`.
        seed: Of the splits.
        masks: A folder with `<SeriesInstanceUID>/pancreas.nii.gz` and `labels.nii.gz`, where there are some.

    Raises:
        InputError: The folder is no VinDr-Multiphase, labels.csv cannot be used, a study lies in two batches,
            or no study has the three phases.
    """
    folder = next((path for path in (root / "abdomen_phases", root) if (path / "labels.csv").is_file()), None)
    if folder is None:
        raise InputError(f"{root}: holds no abdomen_phases/labels.csv; give the folder of VinDr-Multiphase")
    labels = read_labels(folder / "labels.csv")
    places = _places(folder, labels)
    found, excluded = [], []
    for study_id, series in sorted(labels.items()):
        study = _study(study_id, series, places.get(study_id))
        if isinstance(study, Exclusion):
            excluded.append(study)
        else:
            found.append(study)
    patients, note = _patients(found)
    entries = [
        Entry(
            study.study_id,
            patients[study.study_id],
            {phase: study.chosen[phase].folder for phase in PHASES},
            find_masks(masks, {phase: study.chosen[phase].series for phase in PHASES}),
        )
        for study in found
    ]
    picks = [pick for study in found for pick in study.picks]
    cohort = found_cohort(folder, seed, entries, excluded, picks, [note])
    check_masks(masks, entries, "<SeriesInstanceUID>")
    return cohort


def read_labels(path: Path) -> dict[str, _Series]:
    """Reads labels.csv: the phase of each series of each study; None is a phase that is not ours.

    Raises:
        InputError: It is no CSV, a column or cell is missing, a UID cannot name a folder, a label is unknown,
            or a series has two labels or two studies.
    """
    labels: dict[str, _Series] = {}
    owners: dict[str, str] = {}
    for number, study, series, label in _rows(path):
        key = re.sub(r"[\s_-]", "", label).lower()
        if key not in LABELS:
            raise InputError(
                f"{path}: row {number} has the unknown label {label!r};"
                " the labels are Non-contrast, Aterial (or Arterial), Venous and Other"
            )
        for uid in (study, series):
            if not re.fullmatch(r"\w[\w.-]*", uid):
                raise InputError(f"{path}: row {number} has the UID {uid!r}, which cannot name a folder")
        known = labels.setdefault(study, {})
        if owners.setdefault(series, study) != study or known.setdefault(series, LABELS[key]) != LABELS[key]:
            raise InputError(
                f"{path}: row {number} gives the series {series} another label or study than a row above"
                "; keep one"
            )
    if not labels:
        raise InputError(f"{path}: names no series; download it again")
    return labels


def _rows(path: Path) -> list[tuple[int, str, str, str]]:
    """Row number (the header's is 1), study, series and label."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        rows = [
            (n, [cell.strip() for cell in row])
            for n, row in enumerate(csv.reader(io.StringIO(text, newline=""), strict=True), 1)
        ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: is not a CSV in UTF-8 ({error}); download it again") from None
    rows = [(n, row) for n, row in rows if any(row)]
    header = rows[0][1] if rows else []
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise InputError(f"{path}: has no column {missing[0]}; its columns must be {', '.join(COLUMNS)}")
    places = [header.index(column) for column in COLUMNS]
    named = []
    for number, row in rows[1:]:
        if len(row) != len(header) or not all(row[place] for place in places):
            raise InputError(f"{path}: row {number} is not complete; it needs {', '.join(COLUMNS)}")
        study, series, label = (row[place] for place in places)
        named.append((number, study, series, label))
    return named


def _places(folder: Path, labels: Mapping[str, _Series]) -> dict[str, Path]:
    """The folder of each study that is there."""
    batches = sorted(path for path in folder.glob("batch*") if path.is_dir())
    if not batches:
        raise InputError(f"{folder}: holds no batch folder with DICOM studies; download and unpack them")
    places: dict[str, Path] = {}
    for batch in batches:
        for study in sorted(labels):
            if (batch / study).is_dir() and places.setdefault(study, batch / study) != batch / study:
                raise InputError(
                    f"{batch / study}: the study is in {places[study].parent} as well; remove one of the two"
                )
    return places


def _study(study_id: str, series: _Series, place: Path | None) -> _Found | Exclusion:
    if place is None:
        return Exclusion(study_id, "study folder missing")
    problems: dict[Phase, str] = {}
    chosen: dict[Phase, Candidate] = {}
    picks: dict[Phase, Pick] = {}
    for phase in _PICKING_ORDER:
        named = sorted(uid for uid, label in series.items() if label is phase)
        candidates, faults = _candidates(named, place)
        reference = chosen.get(Phase.PORTAL_VENOUS)
        choice = pick_series(candidates, reference.header if reference else None)
        if choice is None:
            problems[phase] = _why_none(phase, named, candidates, faults)
            continue
        chosen[phase] = choice.candidate
        unread = [f"{count} with its {fault}" for fault, count in sorted(Counter(faults).items())]
        picks[phase] = _pick(
            study_id, phase, choice.candidate, len(named), "; ".join([choice.reason, *unread])
        )
    if problems:
        return Exclusion(study_id, "; ".join(problems[phase] for phase in PHASES if phase in problems))
    return _Found(study_id, chosen, [picks[phase] for phase in PHASES])


def _pick(study_id: str, phase: Phase, candidate: Candidate, candidates: int, reason: str) -> Pick:
    header = candidate.header
    return Pick(study_id, phase, candidate.series, header.slices, header.spacing or 0.0, candidates, reason)


def _candidates(named: Sequence[str], place: Path) -> tuple[list[Candidate], list[str]]:
    """The series that can be read, and what is wrong with the others."""
    candidates, faults = [], []
    for uid in named:
        header = _header(place / uid)
        if isinstance(header, str):
            faults.append(header)
        else:
            candidates.append(Candidate(uid, place / uid, header))
    return candidates, faults


def _header(folder: Path) -> SeriesHeader | str:
    """The series' header, or what is wrong with its folder."""
    if not folder.is_dir():
        return "folder missing"
    files = series_files(folder)
    if not files:
        return "folder empty"
    try:
        return read_series_header(files)
    except InputError:
        return "DICOM unreadable"


def _why_none(
    phase: Phase, named: Sequence[str], candidates: Sequence[Candidate], faults: Sequence[str]
) -> str:
    if not named:
        return f"no {phase.label} phase"
    told = {*faults, *(unusable(candidate.header) or "" for candidate in candidates)}
    return f"no usable {phase.label} phase ({', '.join(sorted(told))})"


def _patients(found: Sequence[_Found]) -> tuple[dict[str, str], str]:
    """The patient of each study, named by the patient's first study; and how that was found out."""
    if len({study.patient for study in found}) < 2:
        return {study.study_id: study.study_id for study in found}, NOT_GROUPED
    first: dict[str, str] = {}
    for study in sorted(found, key=lambda study: study.study_id):
        if study.patient:
            first.setdefault(study.patient, study.study_id)
    return {study.study_id: first.get(study.patient, study.study_id) for study in found}, GROUPED
