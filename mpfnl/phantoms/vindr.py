"""Phantom studies as DICOM in the layout of VinDr-Multiphase, with the irregularities of clinical studies."""

from __future__ import annotations

import csv
import io
import os
import shutil
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpfnl.data.manifest import MASKS
from mpfnl.errors import OptionError
from mpfnl.files import write_text
from mpfnl.phantoms.cohort import claim_folder, cohort_settings, patient_numbers, write_record, write_scans
from mpfnl.phantoms.config import PhantomConfig
from mpfnl.phantoms.dicom import SliceHeader, phantom_uid, write_slice
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phantoms.study import PhantomStudy, generate_study
from mpfnl.phases import PHASES, Phase

LABELS = {Phase.NONCONTRAST: "Non-contrast", Phase.ARTERIAL: "Aterial", Phase.PORTAL_VENOUS: "Venous"}
"""Labels of the data set; "Aterial" is its spelling."""

_STREAM = 20  # random stream apart from the phantom's own
_OTHER_SLICES = 6


class SeriesKind(Enum):
    """Kind of a series of a study."""

    SCAN = "scan"
    """A phase as scanned."""
    THICK = "thick"
    """Every second slice of a phase."""
    COPY = "copy"
    """The slices of a phase again."""
    OTHER = "other"
    """A few slices with the label "Other"."""


@dataclass(frozen=True)
class Series:
    """A series of a phantom study.

    Args:
        phase: Contrast phase.
        kind: Kind of the series.
        uid: SeriesInstanceUID.
        number: SeriesNumber.
    """

    phase: Phase
    kind: SeriesKind
    uid: str
    number: int

    @property
    def label(self) -> str:
        """The label in labels.csv."""
        return "Other" if self.kind is SeriesKind.OTHER else LABELS[self.phase]

    @property
    def masked(self) -> bool:
        """Whether the series has masks."""
        return self.kind is not SeriesKind.OTHER


@dataclass(frozen=True)
class _StudyPlan:
    """The series of a patient's study, before any voxel is generated."""

    seed: int
    patient: int
    series: tuple[Series, ...]

    @property
    def study(self) -> str:
        return phantom_uid(self.seed, self.patient)


def write_vindr_cohort(
    folder: Path,
    patients: int,
    seed: int = 0,
    config: PhantomConfig | None = None,
    lacking: int = 0,
    progress: bool = False,
) -> Path:
    """Writes phantom studies as DICOM in the layout of VinDr-Multiphase.

    `abdomen_phases/labels.csv` states the phase of each series ("Aterial" is the data set's spelling), and
    `abdomen_phases/batch_1/<StudyUID>/<SeriesUID>/<SOPUID>.dcm` are the slices. The slice range differs
    between phases and always includes the pancreas. Of three patients one has a second series with every
    second slice of a phase, and one has a copy of a phase; every other patient has a short series labelled
    "Other". `masks/<SeriesUID>/pancreas.nii.gz` and `labels.nii.gz` are the reference masks of a phase.

    A study appears only when it is complete. A second run with the same settings continues where the first
    stopped; all files are equal byte for byte. The patients are those of `write_cohort`.

    Args:
        folder: Folder of the cohort, created if missing.
        patients: Number of patients with every phase, one study each.
        seed: Seed of the cohort.
        config: Settings of the phantoms; the default is that of `write_cohort`.
        lacking: Number of additional patients without an arterial phase.
        progress: Whether to show a progress bar.

    Returns:
        The folder.

    Raises:
        OptionError: The numbers do not fit.
        OutputError: The folder holds other files.
        ConflictError: The folder holds a cohort with other settings.
    """
    config = PhantomConfig() if config is None else config
    if lacking < 0:
        raise OptionError(f"{lacking} patients without an arterial phase were requested; give 0 or more")
    folder = Path(folder)
    settings = cohort_settings(patients, seed, config, {"layout": "vindr", "lacking": lacking})
    claim_folder(folder, settings)
    batch = folder / "abdomen_phases" / "batch_1"
    for path in (batch, folder / "masks"):
        path.mkdir(parents=True, exist_ok=True)
    plans = [_plan(seed, patient, lacks=patient >= patients) for patient in range(patients + lacking)]
    for patient in patient_numbers(len(plans), progress):
        if not _complete(folder, plans[patient]):
            _write_study(folder, plans[patient], generate_study(seed, patient, config))
    write_record(folder, settings)
    _write_labels(folder / "abdomen_phases" / "labels.csv", plans)
    return folder


def _plan(seed: int, patient: int, lacks: bool) -> _StudyPlan:
    """The series of a patient; they depend on the seed and the number alone."""
    phases = [phase for phase in PHASES if not (lacks and phase is Phase.ARTERIAL)]
    again = phases[int(np.random.default_rng([seed, patient, _STREAM]).integers(len(phases)))]
    kinds = [(phase, SeriesKind.SCAN) for phase in phases]
    if patient % 3 < 2:
        kinds.append((again, (SeriesKind.THICK, SeriesKind.COPY)[patient % 3]))
    if patient % 2 == 0:
        kinds.append((Phase.PORTAL_VENOUS, SeriesKind.OTHER))
    series = [
        Series(phase, kind, phantom_uid(seed, patient, phase.value, kind.value), number)
        for number, (phase, kind) in enumerate(kinds, 1)
    ]
    return _StudyPlan(seed, patient, tuple(series))


def _complete(folder: Path, plan: _StudyPlan) -> bool:
    study = folder / "abdomen_phases" / "batch_1" / plan.study
    masks = [
        folder / "masks" / series.uid / f"{m}.nii.gz"
        for series in plan.series
        if series.masked
        for m in MASKS
    ]
    return all((study / series.uid).is_dir() for series in plan.series) and all(m.is_file() for m in masks)


def _write_study(folder: Path, plan: _StudyPlan, study: PhantomStudy) -> None:
    """Writes under temporary names and renames, the study last, so that a study is complete or absent."""
    ranges = _ranges(plan, study)
    batch = folder / "abdomen_phases" / "batch_1"
    with_slices = [(series, _slices(series, ranges[series.phase])) for series in plan.series]
    for series, slices in with_slices:
        if series.masked:
            with _AtomicFolder(folder / "masks" / series.uid) as partial:
                _write_masks(partial, study, series.phase, slices)
    with _AtomicFolder(batch / plan.study) as partial:
        for series, slices in with_slices:
            (partial / series.uid).mkdir()
            _write_series(partial / series.uid, plan, study, series, slices)


class _AtomicFolder:
    """A folder that appears when it is complete and replaces an earlier one."""

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


def _ranges(plan: _StudyPlan, study: PhantomStudy) -> dict[Phase, range]:
    """The slice range of each phase: up to a tenth is cut at each end, never any pancreas."""
    rng = np.random.default_rng([plan.seed, plan.patient, _STREAM, 1])
    count = study.labels.shape[2]
    ranges = {}
    for phase in PHASES:
        held = np.flatnonzero((study.phase_labels[phase] == NUMBERS["pancreas"]).any(axis=(0, 1)))
        low, high = (int(held[0]), int(held[-1])) if held.size else (0, count - 1)
        bottom, top = (int(n) for n in rng.integers(0, max(1, count // 10) + 1, size=2))
        ranges[phase] = range(min(bottom, low), max(count - top, high + 1))
    return ranges


def _slices(series: Series, scanned: range) -> range:
    if series.kind is SeriesKind.THICK:
        return scanned[::2]
    return scanned[:_OTHER_SLICES] if series.kind is SeriesKind.OTHER else scanned


def _write_series(folder: Path, plan: _StudyPlan, study: PhantomStudy, series: Series, slices: range) -> None:
    """Writes the slices; the one nearest to the head has InstanceNumber 1, as on scanners."""
    scan = _to_lps(study.phases[series.phase])
    x, y, _ = _origin(study)
    thick = study.spacing[2]
    for number, index in enumerate(reversed(slices), 1):
        header = SliceHeader(
            patient=f"phantom-{plan.seed}-{plan.patient:04d}",
            study=plan.study,
            series=series.uid,
            instance=phantom_uid(plan.seed, plan.patient, series.uid, number),
            frame=phantom_uid(plan.seed, plan.patient, "frame"),
            series_number=series.number,
            number=number,
            position=(-x, -y, float(study.affine[2, 3]) + index * thick),
            spacing=study.spacing[:2],
            thickness=thick * slices.step,
        )
        hu = np.ascontiguousarray(scan[:, :, index].T)
        write_slice(folder / f"{header.instance}.dcm", hu, header)


def _write_masks(folder: Path, study: PhantomStudy, phase: Phase, slices: range) -> None:
    """Writes the masks of a phase on the grid of its series."""
    labels = np.ascontiguousarray(
        _to_lps(study.phase_labels[phase])[:, :, slices.start : slices.stop : slices.step]
    )
    sx, sy, sz = study.spacing
    affine = np.diag([-sx, -sy, sz * slices.step, 1.0])
    affine[:3, 3] = _origin(study)
    affine[2, 3] += slices.start * sz
    pancreas = (labels == NUMBERS["pancreas"]).astype(np.uint8)
    write_scans(folder, dict(zip(MASKS, (pancreas, labels), strict=True)), affine)


def _to_lps(scan: NDArray[Any]) -> NDArray[Any]:
    """The scan with x to the patient's left and y to the back, DICOM's orientation."""
    return scan[::-1, ::-1]


def _origin(study: PhantomStudy) -> NDArray[np.float64]:
    """Position of the first voxel of the LPS scan, in RAS+ mm."""
    corner = np.array([study.labels.shape[0] - 1, study.labels.shape[1] - 1, 0, 1.0])
    return np.asarray((study.affine @ corner)[:3], dtype=np.float64)


def _write_labels(path: Path, plans: list[_StudyPlan]) -> None:
    rows = [(plan.study, series.uid, series.label) for plan in plans for series in plan.series]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(
        [("StudyInstanceUID", "SeriesInstanceUID", "Label"), *rows]
    )
    write_text(path, text.getvalue())
