"""A whole cohort: what is missing is done, what failed is named, and the manifest is written."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mpfnl.data.manifest import Manifest, Quality, Study, write_manifest
from mpfnl.errors import InputError, MissingExtraError
from mpfnl.files import write_text
from mpfnl.prepare.index import Entry, write_index
from mpfnl.prepare.names import FAILURES, MANIFEST, RECORD, SETTINGS, STUDIES, WORK, file_name
from mpfnl.prepare.pools import Task, on_cluster, on_this_machine
from mpfnl.prepare.private import without_paths
from mpfnl.prepare.settings import Crop, PrepareSettings
from mpfnl.progress import track


@dataclass(frozen=True)
class Scale:
    """How many studies at once, and where.

    Args:
        jobs: Studies at once on this machine, a process each.
        scheduler: The address of a Dask scheduler; its workers do the work instead.
        threads: Of ITK, for each study; with more than one the registration differs in its last digits
            from run to run.
    """

    jobs: int = 1
    scheduler: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class Prepared:
    """A prepared cohort.

    Args:
        manifest: Of the studies that were prepared; None if there is none.
        failures: Why the others were not, by study.
    """

    manifest: Manifest | None
    failures: dict[str, str]

    def with_quality(self, quality: Quality) -> list[str]:
        """The studies with this verdict."""
        studies = self.manifest.studies if self.manifest else ()
        return [study.study_id for study in studies if study.quality is quality]


def prepare_cohort(
    manifest: Manifest,
    output: Path,
    settings: PrepareSettings | None = None,
    scale: Scale | None = None,
    progress: bool = False,
) -> Prepared:
    """Prepares the studies of a raw manifest: crop, registration, quality record, files.

    The folder gets `studies/<study_id>/` (the phases as int16 NIfTI, masks, `record.json`, `sheet.png`),
    `cohort.csv`, `failures.csv`, `index.html` and `prepare.json`. It holds no path and no header of the
    inputs. Interrupted and started again it does only what is missing; a study is done again where the
    content of its files has changed. A study that fails is named, and does not stop the others.

    Args:
        manifest: The raw cohort.
        output: The folder; made if it does not exist.
        settings: What to do.
        scale: How many studies at once, and where.
        progress: Whether to show a progress bar.

    Raises:
        InputError: The folder holds something else, other settings, or is in use.
        MissingExtraError: A package that the settings need is not installed.
    """
    settings, scale = settings or PrepareSettings(), scale or Scale()
    _check(settings, scale)
    output = Path(os.path.abspath(output))
    _claim(output, settings)
    with _locked(output):
        shutil.rmtree(output / WORK, ignore_errors=True)
        tasks = [Task(study.located(_absolute), settings, output, scale.threads) for study in manifest]
        outcomes = (
            on_cluster(tasks, scale.scheduler) if scale.scheduler else on_this_machine(tasks, scale.jobs)
        )
        shown = track(outcomes, len(tasks), "studies") if progress else outcomes
        try:
            failures = {outcome.study_id: outcome.failure for outcome in shown if outcome.failure}
        finally:
            outcomes.close()
            shutil.rmtree(output / WORK, ignore_errors=True)
        ordered = {
            study.study_id: failures[study.study_id] for study in manifest if study.study_id in failures
        }
        return Prepared(_write_cohort(manifest, output, settings, ordered), ordered)


def _check(settings: PrepareSettings, scale: Scale) -> None:
    if scale.jobs < 1 or scale.threads < 1:
        raise InputError(f"--jobs {scale.jobs} --threads {scale.threads}: give at least 1 of each")
    if settings.steps and find_spec("ants") is None:
        raise MissingExtraError("antspyx", "register")
    if settings.crop is Crop.SEGMENTATION and find_spec("totalsegmentator") is None:
        raise MissingExtraError("TotalSegmentator", "segment")
    if scale.scheduler and find_spec("distributed") is None:
        raise MissingExtraError("distributed", "cluster")


def _claim(output: Path, settings: PrepareSettings) -> None:
    """Marks the folder with the settings, or checks that it was marked with the same."""
    record = output / SETTINGS
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; name a folder for the prepared cohort")
    if not record.exists():
        if output.is_dir() and any(output.iterdir()):
            raise InputError(f"{output}: holds something other than a prepared cohort; name another folder")
        output.mkdir(parents=True, exist_ok=True)
        write_text(record, _settings_text(settings))
        return
    try:
        found = json.loads(record.read_text("utf-8"))["settings"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{record}: is no record of a prepared cohort; name another folder") from None
    wanted = settings.to_json()
    differing = sorted(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
    if differing:
        raise InputError(
            f"{output}: was prepared with other settings ({', '.join(differing)}); name another folder"
        )


def _settings_text(settings: PrepareSettings) -> str:
    return json.dumps({"settings": settings.to_json()}, indent=1) + "\n"


def _absolute(column: str, path: Path) -> Path:
    return Path(os.path.abspath(path))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; the lock goes with the process and leaves no file."""
    if sys.platform == "win32":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InputError(f"{folder}: another run is at work in it; wait for its end") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def _write_cohort(
    manifest: Manifest, output: Path, settings: PrepareSettings, failures: dict[str, str]
) -> Manifest | None:
    private = {
        study.study_id: without_paths(study, failures[study.study_id])
        for study in manifest
        if study.study_id in failures
    }
    _write_table(output / FAILURES, [("study_id", "reason"), *private.items()])
    records = {
        study.study_id: json.loads((output / STUDIES / study.study_id / RECORD).read_text("utf-8"))
        for study in manifest
        if study.study_id not in failures
    }
    write_index(output, [Entry.of(record) for record in records.values()], private, settings.to_json())
    if not records:
        (output / MANIFEST).unlink(missing_ok=True)
        return None
    studies = [
        _prepared(study, output, records[study.study_id]) for study in manifest if study.study_id in records
    ]
    return write_manifest(output / MANIFEST, studies)


def _prepared(study: Study, output: Path, record: dict[str, Any]) -> Study:
    folder = output / STUDIES / study.study_id
    return study.located(lambda column, _: folder / file_name(column), Quality(record["quality"]))


def _write_table(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(path, text.getvalue())
