"""Many studies at once: on this machine, or on a Dask cluster."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpfnl.data.manifest import Study
from mpfnl.errors import InputError, MissingExtraError, MpfnlError
from mpfnl.prepare.names import RECORD, STUDIES
from mpfnl.prepare.settings import PrepareSettings, study_key
from mpfnl.prepare.worker import Job, Outcome, Running, run_job

CONNECT_S = 30  # how long a scheduler may take to answer


@dataclass(frozen=True)
class Task:
    """A study to be prepared, or to be found prepared already.

    Args:
        study: With absolute paths.
        settings: What to do.
        output: The cohort's folder.
        threads: Of ITK, for each study.
    """

    study: Study
    settings: PrepareSettings
    output: Path
    threads: int = 1


def run_task(task: Task, running: Running | None = None) -> Outcome:
    """Prepares a study unless that is done for these inputs and settings; its errors become an outcome."""
    study_id = task.study.study_id
    try:
        if not task.output.is_dir():
            raise InputError(
                f"{task.output}: this machine does not see the output folder; use one that all see"
            )
        key = study_key(task.study, task.settings)
        if is_prepared(task.output / STUDIES / study_id, key):
            return Outcome(study_id)
        return run_job(Job(task.study, task.settings, key, task.output, task.threads), running)
    except (MpfnlError, OSError) as error:
        return Outcome(study_id, " ".join(str(error).split()))


def is_prepared(folder: Path, key: str) -> bool:
    """Whether a folder holds this very work, with every file that its record names."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
        return record["key"] == key and all((folder / name).is_file() for name in record["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def on_this_machine(tasks: Sequence[Task], jobs: int) -> Generator[Outcome]:
    """Yields the outcomes as they come; a process a study, `jobs` at a time. When closed it ends them all."""
    running = Running()
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = [pool.submit(run_task, task, running) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    finally:
        running.end()
        pool.shutdown(wait=True, cancel_futures=True)


def on_cluster(tasks: Sequence[Task], address: str) -> Generator[Outcome]:
    """Yields the outcomes as they come from the workers of a Dask cluster.

    Raises:
        InputError: No scheduler answers.
        MissingExtraError: dask.distributed is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("distributed", "cluster") from error
    try:
        client: Any = distributed.Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--scheduler {address}: no Dask scheduler answers there ({' '.join(str(error).split())})"
        ) from error
    with client:
        futures = client.map(run_task, tasks, pure=False)
        study_of = {future.key: task.study.study_id for future, task in zip(futures, tasks, strict=True)}
        try:
            for future in distributed.as_completed(futures):
                lost = future.exception()
                reason = " ".join(str(lost).split()) or type(lost).__name__
                yield (
                    future.result()
                    if lost is None
                    else Outcome(study_of[future.key], f"its worker failed ({reason})")
                )
        finally:
            client.cancel(futures)
