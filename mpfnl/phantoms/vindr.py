"""Phantom studies as DICOM in the layout of VinDr-Multiphase, with what makes real studies awkward."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.files import write_text
from mpfnl.phantoms.config import PhantomConfig
from mpfnl.phantoms.dicom import SliceHeader, encode_slice, make_uid
from mpfnl.phantoms.folder import claim_folder, cohort_settings, numbered, write_record, write_scans
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.study import PhantomStudy, generate_study
from mpfnl.phases import PHASES, Phase

LABELS = {Phase.NONCONTRAST: "Non-contrast", Phase.ARTERIAL: "Aterial", Phase.PORTAL_VENOUS: "Venous"}
"""The dataset's labels; "Aterial" is its spelling."""

MASKS = ("pancreas", "labels")
_STREAM = 20  # sets the draws below apart from the phantom's own
_OTHER_SLICES = 6


class Kind(Enum):
    """What a series of a study is."""

    SCAN = "scan"
    """A phase as it was scanned."""
    THICK = "thick"
    """A phase again, with every second slice."""
    COPY = "copy"
    """A phase again, slice by slice."""
    OTHER = "other"
    """A few slices, labelled "Other"."""


@dataclass(frozen=True)
class Series:
    """A series of a phantom study, before any voxel is made.

    Args:
        phase: The phase that it shows.
        kind: What it is.
        uid: Its SeriesInstanceUID.
        number: Its SeriesNumber.
    """

    phase: Phase
    kind: Kind
    uid: str
    number: int

    @property
    def label(self) -> str:
        """Its label in labels.csv."""
        return "Other" if self.kind is Kind.OTHER else LABELS[self.phase]

    @property
    def masked(self) -> bool:
        """Whether masks are written for it."""
        return self.kind is not Kind.OTHER


@dataclass(frozen=True)
class _Plan:
    """A patient's study: its UID and its series."""

    seed: int
    patient: int
    series: tuple[Series, ...]

    @property
    def study(self) -> str:
        return make_uid(self.seed, self.patient)


def write_vindr_cohort(
    folder: Path,
    patients: int,
    seed: int = 0,
    config: PhantomConfig | None = None,
    lacking: int = 0,
    progress: bool = False,
) -> Path:
    """Writes phantom studies as DICOM, laid out as VinDr-Multiphase is.

    `abdomen_phases/labels.csv` names the phase of each series ("Aterial" as the dataset spells it), and
    `abdomen_phases/batch_1/<StudyUID>/<SeriesUID>/<SOPUID>.dcm` are its slices. Each phase has a range of
    slices of its own, which always holds its pancreas. Of three patients one has a phase a second time with
    every second slice and one has a phase a second time as it is; every other patient has a short series
    labelled "Other". `masks/<SeriesUID>/pancreas.nii.gz` and `labels.nii.gz` tell what lies where in a phase.

    A study appears only when it is whole. A second run with the same settings goes on where the first
    stopped; all files are the same, byte for byte. The patients are those of `write_cohort`.

    Args:
        folder: Where to write; made if it does not exist.
        patients: How many patients with three phases, one study each.
        seed: The cohort's seed.
        config: The settings of the phantoms; as in `write_cohort`.
        lacking: How many patients more have no arterial phase.
        progress: Whether to show a progress bar.

    Returns:
        The folder.

    Raises:
        InputError: The counts do not fit, or the folder holds something else already.
    """
    config = PhantomConfig() if config is None else config
    if lacking < 0:
        raise InputError(f"{lacking} patients without an arterial phase were asked for: ask for zero or more")
    folder = Path(folder)
    settings = cohort_settings(patients, seed, config, {"layout": "vindr", "lacking": lacking})
    claim_folder(folder, settings)
    batch = folder / "abdomen_phases" / "batch_1"
    for path in (batch, folder / "masks"):
        path.mkdir(parents=True, exist_ok=True)
    plans = [_plan(seed, patient, lacks=patient >= patients) for patient in range(patients + lacking)]
    for patient in numbered(len(plans), progress):
        if not _complete(folder, plans[patient]):
            _write_study(folder, plans[patient], generate_study(seed, patient, config))
    write_record(folder, settings)
    _write_labels(folder / "abdomen_phases" / "labels.csv", plans)
    return folder


def _plan(seed: int, patient: int, lacks: bool) -> _Plan:
    """The series of a patient, from the seed and the number alone."""
    phases = [phase for phase in PHASES if not (lacks and phase is Phase.ARTERIAL)]
    again = phases[int(np.random.default_rng([seed, patient, _STREAM]).integers(len(phases)))]
    kinds = [(phase, Kind.SCAN) for phase in phases]
    if patient % 3 < 2:
        kinds.append((again, (Kind.THICK, Kind.COPY)[patient % 3]))
    if patient % 2 == 0:
        kinds.append((Phase.PORTAL_VENOUS, Kind.OTHER))
    series = [
        Series(phase, kind, make_uid(seed, patient, phase.value, kind.value), number)
        for number, (phase, kind) in enumerate(kinds, 1)
    ]
    return _Plan(seed, patient, tuple(series))


def _complete(folder: Path, plan: _Plan) -> bool:
    study = folder / "abdomen_phases" / "batch_1" / plan.study
    masks = [
        folder / "masks" / series.uid / f"{m}.nii.gz"
        for series in plan.series
        if series.masked
        for m in MASKS
    ]
    return all((study / series.uid).is_dir() for series in plan.series) and all(m.is_file() for m in masks)


def _write_study(folder: Path, plan: _Plan, study: PhantomStudy) -> None:
    """Writes under temporary names and renames, the study last: where it is, all of it is."""
    ranges = _ranges(plan, study)
    batch = folder / "abdomen_phases" / "batch_1"
    with_slices = [(series, _slices(series, ranges[series.phase])) for series in plan.series]
    for series, slices in with_slices:
        if series.masked:
            with _Whole(folder / "masks" / series.uid) as partial:
                _write_masks(partial, study, series.phase, slices)
    with _Whole(batch / plan.study) as partial:
        for series, slices in with_slices:
            (partial / series.uid).mkdir()
            for name, content in _files(plan, study, series, slices):
                (partial / series.uid / name).write_bytes(content)


class _Whole:
    """A folder that appears when it is whole; what was there before is replaced."""

    def __init__(self, final: Path) -> None:
        self._final, self._partial = final, final.with_name(f".{final.name}.partial")

    def __enter__(self) -> Path:
        shutil.rmtree(self._partial, ignore_errors=True)
        self._partial.mkdir()
        return self._partial

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is not None:
            shutil.rmtree(self._partial, ignore_errors=True)
            return
        if self._final.exists():
            shutil.rmtree(self._final)
        os.replace(self._partial, self._final)


def _ranges(plan: _Plan, study: PhantomStudy) -> dict[Phase, range]:
    """The slices that each phase keeps: up to a tenth is lost at each end, never any pancreas."""
    rng = np.random.default_rng([plan.seed, plan.patient, _STREAM, 1])
    count = study.labels.shape[2]
    ranges = {}
    for phase in PHASES:
        held = np.flatnonzero((study.phase_labels[phase] == NUMBERS["pancreas"]).any(axis=(0, 1)))
        low, high = (int(held[0]), int(held[-1])) if held.size else (0, count - 1)
        bottom, top = (int(n) for n in rng.integers(0, max(1, count // 10) + 1, size=2))
        ranges[phase] = range(min(bottom, low), max(count - top, high + 1))
    return ranges


def _slices(series: Series, kept: range) -> range:
    if series.kind is Kind.THICK:
        return kept[::2]
    return kept[:_OTHER_SLICES] if series.kind is Kind.OTHER else kept


def _files(plan: _Plan, study: PhantomStudy, series: Series, slices: range) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file; the slice nearest to the head has the number 1, as on scanners."""
    scan = _to_lps(study.phases[series.phase])
    x, y, _ = _origin(study)
    thick = study.spacing[2]
    for number, index in enumerate(reversed(slices), 1):
        instance = make_uid(plan.seed, plan.patient, series.uid, number)
        header = SliceHeader(
            patient=f"phantom-{plan.seed}-{plan.patient:04d}",
            study=plan.study,
            series=series.uid,
            instance=instance,
            frame=make_uid(plan.seed, plan.patient, "frame"),
            series_number=series.number,
            number=number,
            position=(-x, -y, float(study.affine[2, 3]) + index * thick),
            spacing=study.spacing[:2],
            thickness=thick * slices.step,
        )
        yield f"{instance}.dcm", encode_slice(np.ascontiguousarray(scan[:, :, index].T), header)


def _write_masks(folder: Path, study: PhantomStudy, phase: Phase, slices: range) -> None:
    """Masks voxel by voxel on the series' grid as DICOM has it."""
    labels = np.ascontiguousarray(
        _to_lps(study.phase_labels[phase])[:, :, slices.start : slices.stop : slices.step]
    )
    sx, sy, sz = study.spacing
    affine = np.diag([-sx, -sy, sz * slices.step, 1.0])
    affine[:3, 3] = _origin(study)
    affine[2, 3] += slices.start * sz
    pancreas = (labels == NUMBERS["pancreas"]).astype(np.uint8)
    write_scans(folder, dict(zip(MASKS, (pancreas, labels), strict=True)), affine)


def _to_lps(scan: NDArray[np.generic]) -> NDArray[np.generic]:
    """The scan with x to the patient's left and y to the back, as DICOM counts."""
    return scan[::-1, ::-1]


def _origin(study: PhantomStudy) -> NDArray[np.float64]:
    """Where the first voxel of the turned scan lies, in RAS+ mm."""
    corner = np.array([study.labels.shape[0] - 1, study.labels.shape[1] - 1, 0, 1.0])
    return np.asarray((study.affine @ corner)[:3], dtype=np.float64)


def _write_labels(path: Path, plans: list[_Plan]) -> None:
    rows = [(plan.study, series.uid, series.label) for plan in plans for series in plan.series]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(
        [("StudyInstanceUID", "SeriesInstanceUID", "Label"), *rows]
    )
    write_text(path, text.getvalue())
