"""Parallel execution: each study in a process of its own, on this machine or on a Dask cluster.

A crash, a memory leak or a blocked thread of one study never reaches the others. The process runs
`python -m mpfnl.prepare.execution` with a pickled `Job` on its standard input.
"""

from __future__ import annotations

import os
import pickle
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpfnl.data.manifest import Study
from mpfnl.errors import MissingExtraError, MpfnlError, NotFoundError, OptionError
from mpfnl.prepare.record import STUDIES, WORK, is_prepared, study_key
from mpfnl.prepare.settings import PrepareSettings

CONNECT_S = 30  # timeout of the connection to a scheduler
_ERROR = "error.txt"
_INPUT_ERROR = 2  # exit status of a process whose study cannot be used


@dataclass(frozen=True)
class Job:
    """Preparation of one study.

    Args:
        study: Study with absolute paths.
        settings: Settings of the preparation.
        output: Folder of the cohort, the same path on every machine of a cluster.
        threads: ITK threads of the process.
    """

    study: Study
    settings: PrepareSettings
    output: Path
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job.

    Args:
        study_id: Name of the study.
        failure: Reason of the failure; None for a prepared study.
    """

    study_id: str
    failure: str | None = None


class Processes:
    """The processes started by this one, which can be ended together."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, command: list[str], environment: dict[str, str], stdin: bytes, log: Path) -> int:
        """Runs a command to its end and returns its exit status."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
            )
            self._processes.add(process)
            try:
                if self._ended:
                    process.kill()
                process.communicate(stdin)
                return process.returncode
            finally:
                self._processes.discard(process)

    def end(self) -> None:
        """Kills the running processes, and each that is started later."""
        self._ended = True
        for process in list(self._processes):
            process.kill()


def outcomes_here(jobs: Sequence[Job], processes: int) -> Generator[Outcome]:
    """Yields the outcomes of jobs on this machine as they finish; ends all processes when closed.

    Args:
        jobs: The jobs.
        processes: Number of processes at once.
    """
    running = Processes()
    pool = ThreadPoolExecutor(processes)
    try:
        futures = [pool.submit(run_job, job, running) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    finally:
        running.end()
        pool.shutdown(wait=True, cancel_futures=True)


def outcomes_on_cluster(jobs: Sequence[Job], address: str) -> Generator[Outcome]:
    """Yields the outcomes of jobs on the workers of a Dask cluster as they finish.

    Raises:
        OptionError: No scheduler answers at the address.
        MissingExtraError: dask.distributed is not installed.
    """
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError("distributed", "cluster") from error
    try:
        client: Any = distributed.Client(address, timeout=CONNECT_S)
    except (OSError, ValueError) as error:
        raise OptionError(
            f"--scheduler {address}: no Dask scheduler answers there ({' '.join(str(error).split())})"
        ) from error
    with client:
        futures = client.map(run_job, jobs, pure=False)
        study_of = {future.key: job.study.study_id for future, job in zip(futures, jobs, strict=True)}
        try:
            for future in distributed.as_completed(futures):
                fault = future.exception()
                if fault is None:
                    yield future.result()
                else:
                    reason = " ".join(str(fault).split()) or type(fault).__name__
                    yield Outcome(study_of[future.key], f"its worker failed ({reason})")
        finally:
            client.cancel(futures)


def run_job(job: Job, processes: Processes | None = None) -> Outcome:
    """Prepares a study unless that is done for these inputs and settings; errors become its outcome."""
    study_id = job.study.study_id
    try:
        if not job.output.is_dir():
            raise NotFoundError(
                f"{job.output}: this machine does not see the output folder; use one that all machines see"
            )
        key = study_key(job.study, job.settings)
        if is_prepared(job.output / STUDIES / study_id, key):
            return Outcome(study_id)
        return Outcome(study_id, _run_process(job, key, processes or Processes()))
    except (MpfnlError, OSError) as error:
        return Outcome(study_id, " ".join(str(error).split()))


def _run_process(job: Job, key: str, processes: Processes) -> str | None:
    """Prepares a study in a process; its folder appears whole or not at all. The reason of a failure."""
    study_id = job.study.study_id
    work = job.output / WORK / f"{study_id}.{secrets.token_hex(4)}"
    result, temporary, log = work / "result", work / "tmp", work / "log.txt"
    for folder in (result, temporary):
        folder.mkdir(parents=True)
    environment = {
        **os.environ,
        "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(job.threads),
        "OMP_NUM_THREADS": str(job.threads),
        "TMPDIR": str(temporary),
        "PYTHONHASHSEED": "0",
    }
    command = [sys.executable, "-m", "mpfnl.prepare.execution", str(result)]
    try:
        status = processes.run(command, environment, pickle.dumps((os.getpid(), job, key)), log)
        if status == 0:
            _publish(result, job.output / STUDIES / study_id, work / "before")
            return None
        if status == _INPUT_ERROR:
            return (result / _ERROR).read_text("utf-8")
        return _death(status, log)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(result: Path, folder: Path, aside: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        folder.rename(aside)
    result.rename(folder)


def _death(status: int, log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    last = f" ({' '.join(lines[-1].split())[:300]})" if lines else ""
    if status < 0:
        name = signal.Signals(-status).name
        advice = "; out of memory? use fewer jobs" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{advice}{last}"
    return f"its process ended with status {status}{last}"


def _end_with(parent: int) -> None:
    """Ends this process when its parent dies (Linux only; elsewhere it finishes its study)."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # the parent has died already
        os._exit(1)


def _main(folder: Path) -> int:
    parent, job, key = pickle.loads(sys.stdin.buffer.read())
    _end_with(parent)
    tempfile.tempdir = os.environ["TMPDIR"]
    from mpfnl.prepare.study import prepare_study  # loads ITK and torch: only in this process

    try:
        prepare_study(job.study, job.settings, key, folder)
    except (MpfnlError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        (folder / _ERROR).write_text(reason, encoding="utf-8")
        return _INPUT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
