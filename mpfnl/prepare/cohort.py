"""Preparation of a cohort: missing studies are prepared, failures are named, the manifest is written."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mpfnl.data.manifest import MASK_COLUMNS, Manifest, Quality, Study, mask_phase, write_manifest
from mpfnl.errors import ConflictError, FormatError, MissingExtraError, OptionError, OutputError
from mpfnl.files import write_text
from mpfnl.phases import Phase
from mpfnl.prepare.execution import Job, outcomes_here, outcomes_on_cluster
from mpfnl.prepare.record import (
    FAILURES,
    MANIFEST,
    SETTINGS,
    STUDIES,
    WORK,
    file_name,
    read_record,
    without_paths,
)
from mpfnl.prepare.review import Entry, write_index
from mpfnl.prepare.settings import PrepareSettings
from mpfnl.progress import track
from mpfnl.volumes.masks import join_labels, split_labels


@dataclass(frozen=True)
class PreparedCohort:
    """A prepared cohort.

    Args:
        manifest: Manifest of the prepared studies; None if all failed.
        failures: Reason of each failure, by study.
        left_out: Phases that a prepared study does without, since they do not lie on its portal venous scan.
    """

    manifest: Manifest | None
    failures: dict[str, str]
    left_out: dict[str, tuple[Phase, ...]] = field(default_factory=dict)

    def with_quality(self, quality: Quality) -> list[str]:
        """The studies with this verdict."""
        studies = self.manifest.studies if self.manifest else ()
        return [study.study_id for study in studies if study.quality is quality]


def prepare_cohort(
    manifest: Manifest,
    output: str | Path,
    settings: PrepareSettings | None = None,
    *,
    jobs: int = 1,
    scheduler: str | None = None,
    threads: int = 1,
    progress: bool = False,
) -> PreparedCohort:
    """Prepares the studies of a raw manifest: crop, registration, quality record, files.

    A study has a portal venous scan and any other phases, which are registered to it. The folder gets
    `studies/<study_id>/` (the phases as int16 NIfTI, masks, `record.json`, `sheet.png`), `cohort.csv`,
    `failures.csv`, `index.html` and `prepare.json`. It holds no path and no header of the inputs. A repeated
    run prepares only what is missing, or whose files have changed. A study that fails is named and does not
    stop the others. A phase that does not lie on the portal venous scan after registration, or cannot be
    registered, is left out of `cohort.csv`; its study is kept.

    Args:
        manifest: The raw cohort.
        output: Output folder; created if it does not exist.
        settings: Settings of the preparation; the defaults if None.
        jobs: Number of studies at once on this machine, each in its own process.
        scheduler: Address of a Dask scheduler, whose workers then prepare the studies.
        threads: ITK threads of each study; with more than one the last digits of the registration differ
            between runs.
        progress: Whether to show a progress bar.

    Raises:
        ConflictError: The folder was prepared with other settings, or is in use by another run.
        OutputError: The output is a file, or a folder with other content.
        OptionError: `jobs` or `threads` is below 1, or no scheduler answers.
        MissingExtraError: A package that the settings need is not installed.

    Example:
        A study whose scan is missing fails; the others are prepared.

        >>> from tempfile import TemporaryDirectory
        >>> from mpfnl.data.manifest import Split
        >>> from mpfnl.phases import Phase
        >>> study = Study("study-1", "patient-1", Split.TEST, {Phase.PORTAL_VENOUS: Path("missing.nii")})
        >>> raw = Manifest(Path("raw.csv"), (study,))
        >>> with TemporaryDirectory() as folder:
        ...     cohort = prepare_cohort(raw, Path(folder) / "prepared", PrepareSettings(steps=()))
        >>> list(cohort.failures)
        ['study-1']
    """
    settings = settings or PrepareSettings()
    if jobs < 1 or threads < 1:
        raise OptionError(f"--jobs {jobs} --threads {threads}: give at least 1 of each")
    _check_packages(settings, scheduler)
    folder = Path(os.path.abspath(output))
    _claim(folder, settings)
    with _locked(folder):
        shutil.rmtree(folder / WORK, ignore_errors=True)
        studies = [Job(study.located(_absolute), settings, folder, threads) for study in manifest]
        outcomes = outcomes_on_cluster(studies, scheduler) if scheduler else outcomes_here(studies, jobs)
        shown = track(outcomes, len(studies), "studies") if progress else outcomes
        try:
            reasons = {outcome.study_id: outcome.failure for outcome in shown if outcome.failure}
        finally:
            outcomes.close()
            shutil.rmtree(folder / WORK, ignore_errors=True)
        failures = {
            study.study_id: reasons[study.study_id] for study in manifest if study.study_id in reasons
        }
        return _write_cohort(manifest, folder, settings, failures)


def _check_packages(settings: PrepareSettings, scheduler: str | None) -> None:
    if settings.registration and find_spec("ants") is None:
        raise MissingExtraError("antspyx", "register")
    if settings.crop == "segmentation" and find_spec("totalsegmentator") is None:
        raise MissingExtraError("TotalSegmentator", "segment")
    if scheduler and find_spec("distributed") is None:
        raise MissingExtraError("distributed", "cluster")


def _claim(output: Path, settings: PrepareSettings) -> None:
    """Writes the settings into a new folder, or checks those of a folder that was prepared before."""
    record = output / SETTINGS
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file; name a folder for the prepared cohort")
    if not record.exists():
        if output.is_dir() and any(output.iterdir()):
            raise OutputError(f"{output}: holds something other than a prepared cohort; name another folder")
        output.mkdir(parents=True, exist_ok=True)
        write_text(record, _settings_text(settings))
        return
    try:
        earlier = json.loads(record.read_text("utf-8"))["settings"]
    except (ValueError, KeyError, TypeError):
        raise FormatError(f"{record}: is no record of a prepared cohort; name another folder") from None
    current = settings.to_json()
    differing = sorted(key for key in {*current, *earlier} if current.get(key) != earlier.get(key))
    if differing:
        raise ConflictError(
            f"{output}: was prepared with other settings ({', '.join(differing)}); name another folder"
        )


def _settings_text(settings: PrepareSettings) -> str:
    return json.dumps({"settings": settings.to_json()}, indent=1) + "\n"


def _absolute(column: str, path: Path) -> Path:
    return Path(os.path.abspath(path))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Locks the folder against a second run; the lock ends with the process and leaves no file."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise ConflictError(f"{folder}: another run is at work in it; wait for its end") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def _write_cohort(
    manifest: Manifest, output: Path, settings: PrepareSettings, failures: dict[str, str]
) -> PreparedCohort:
    shared = {
        study.study_id: without_paths(study, failures[study.study_id])
        for study in manifest
        if study.study_id in failures
    }
    _write_table(output / FAILURES, [("study_id", "reason"), *shared.items()])
    records = {
        study.study_id: read_record(output / STUDIES / study.study_id)
        for study in manifest
        if study.study_id not in failures
    }
    write_index(output, [Entry.of(record) for record in records.values()], shared, settings.to_json())
    if not records:
        (output / MANIFEST).unlink(missing_ok=True)
        return PreparedCohort(None, failures)
    studies = [
        _located(study, output, records[study.study_id]) for study in manifest if study.study_id in records
    ]
    left_out = {name: tuple(map(Phase, record["left_out"])) for name, record in records.items()}
    return PreparedCohort(
        write_manifest(output / MANIFEST, studies),
        failures,
        {name: phases for name, phases in left_out.items() if phases},
    )


def _located(study: Study, output: Path, record: dict[str, Any]) -> Study:
    folder = output / STUDIES / study.study_id

    def place(column: str, path: Path) -> Path:
        labels = split_labels(path)[1] if column in MASK_COLUMNS else ()
        return join_labels(folder / file_name(column), labels)

    without = set(record["left_out"])
    used = replace(
        study,
        scans={phase: path for phase, path in study.scans.items() if phase not in without},
        masks={column: path for column, path in study.masks.items() if mask_phase(column) not in without},
    )
    return used.located(place, Quality(record["quality"]))


def _write_table(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
