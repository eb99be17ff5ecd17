"""A study in a process of its own: a crash, a leak or a stuck thread of it never reaches the others.

Run as `python -m mpfnl.prepare.worker`, with a pickled `Job` on standard input. The parent is
`run_job`, on this machine or on a node of a cluster.
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
from dataclasses import dataclass
from pathlib import Path

from mpfnl.data.manifest import Study
from mpfnl.errors import MpfnlError
from mpfnl.prepare.names import STUDIES, WORK
from mpfnl.prepare.settings import PrepareSettings

_ERROR = "error.txt"
_REFUSED = 2


@dataclass(frozen=True)
class Job:
    """A study to be prepared.

    Args:
        study: With absolute paths.
        settings: What to do.
        key: What the work is known by.
        output: The cohort's folder, under the same path on every machine that takes part.
        threads: Of ITK, in this process.
    """

    study: Study
    settings: PrepareSettings
    key: str
    output: Path
    threads: int = 1


@dataclass(frozen=True)
class Outcome:
    """What became of a job: nothing to say, or why it failed."""

    study_id: str
    failure: str | None = None


class Running:
    """The processes that this one has started, so that they can be ended with it."""

    def __init__(self) -> None:
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def run(self, words: list[str], environment: dict[str, str], given: bytes, log: Path) -> int:
        """Runs a command to its end and returns its exit status."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment
            )
            self._processes.add(process)
            try:
                if self._ended:
                    process.kill()
                process.communicate(given)
                return process.returncode
            finally:
                self._processes.discard(process)

    def end(self) -> None:
        """Kills what runs, and whatever is started from now on."""
        self._ended = True
        for process in list(self._processes):
            process.kill()


def run_job(job: Job, running: Running | None = None) -> Outcome:
    """Prepares a study in a process of its own; its folder appears whole or not at all."""
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
    words = [sys.executable, "-m", __name__, str(result)]
    try:
        status = (running or Running()).run(words, environment, pickle.dumps((os.getpid(), job)), log)
        if status == 0:
            _publish(result, job.output / STUDIES / study_id, work / "before")
            return Outcome(study_id)
        if status == _REFUSED:
            return Outcome(study_id, (result / _ERROR).read_text("utf-8"))
        return Outcome(study_id, _died(status, log))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(result: Path, place: Path, aside: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(aside)
    result.rename(place)


def _died(status: int, log: Path) -> str:
    lines = log.read_text("utf-8", errors="replace").strip().splitlines()
    last = f" ({' '.join(lines[-1].split())[:300]})" if lines else ""
    if status < 0:
        name = signal.Signals(-status).name
        advice = "; out of memory? use fewer jobs" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{advice}{last}"
    return f"its process broke off with status {status}{last}"


def _end_with(parent: int) -> None:
    """Lets this process die with its parent, however that dies (Linux; elsewhere it finishes its study)."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it died before
        os._exit(1)


def _main(folder: Path) -> int:
    parent, job = pickle.loads(sys.stdin.buffer.read())
    _end_with(parent)
    tempfile.tempdir = os.environ["TMPDIR"]
    from mpfnl.prepare.study import prepare_study  # after the environment is set: loads ITK

    try:
        prepare_study(job.study, job.settings, job.key, folder)
    except (MpfnlError, OSError, MemoryError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        (folder / _ERROR).write_text(reason, encoding="utf-8")
        return _REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
