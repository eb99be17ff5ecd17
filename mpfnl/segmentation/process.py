"""The process of TotalSegmentator as its caller sees it, with a home folder and environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from mpfnl.errors import DamagedError, SegmentationError

COMMAND = (sys.executable, "-m", "mpfnl.segmentation.worker")
EXIT_S = 5.0  # time for a process to exit by itself
POLL_S = 0.5  # interval between checks that it is alive

_HOME_SETTINGS = {
    "totalseg_id": "none",
    "send_usage_stats": False,  # TotalSegmentator's default is to send them
    "prediction_counter": 0,
    "statistics_disclaimer_shown": True,
}


def make_home(folder: Path) -> None:
    """Writes a home folder for TotalSegmentator, which rewrites its settings at each call.

    The settings send no statistics and keep the user's own licence number.

    Raises:
        DamagedError: The user's own settings cannot be read.
    """
    from totalsegmentator.config import get_license_number, get_totalseg_dir

    try:
        number = get_license_number()
    except ValueError:
        raise DamagedError(f"{get_totalseg_dir() / 'config.json'}: is damaged; delete it") from None
    settings = _HOME_SETTINGS | ({"license_number": number} if number else {})
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")


def environment(home: Path, weights: Path) -> dict[str, str]:
    """The environment variables of a process in which TotalSegmentator runs.

    Args:
        home: Home folder of `make_home`.
        weights: Weights folder.
    """
    own = {"TOTALSEG_HOME_DIR": str(home), "TOTALSEG_WEIGHTS_PATH": str(weights)}
    # Passive waiting: TotalSegmentator starts more processes than there are cores.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | os.environ | own


class Worker:
    """A worker process, which ends with this object at the latest.

    Args:
        environment: Environment variables of the process.
        log: File for the output of the process.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=dict(environment),
                text=True,
                encoding="utf-8",
                start_new_session=True,  # the whole process group can be ended
            )
        assert self._process.stdin is not None  # both are pipes
        assert self._process.stdout is not None
        self._requests, self._output = self._process.stdin, self._process.stdout
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=_read, args=(self._output, self._answers), daemon=True)
        self._reader.start()
        self._end = weakref.finalize(self, _kill, self._process)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> None:
        """Sends a request and waits for its answer.

        Args:
            request: Arguments as JSON values.
            timeout_s: Timeout in seconds.

        Raises:
            SegmentationError: The answer is an error, the process died, or the timeout expired. In the latter
                two cases the process is ended.
        """
        logged = self._log.stat().st_size
        try:
            answer = self._exchange(json.dumps(request), timeout_s)
            if not answer:
                raise SegmentationError(
                    f"TotalSegmentator's process {self._death()}{self._last_line(logged)}"
                )
        except BaseException:
            self.stop(at_once=True)
            raise
        error = json.loads(answer)["error"]
        if error:
            raise SegmentationError(f"TotalSegmentator failed ({error}){self._last_line(logged)}")

    def _exchange(self, line: str, timeout_s: float) -> str:
        """The answer to a line; empty if the process is dead."""
        with contextlib.suppress(BrokenPipeError):  # a dead process gives no answer
            print(line, file=self._requests, flush=True)
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            dead = not self.alive
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=min(POLL_S, left))
            if dead:  # another process holds its pipe
                return ""
        raise SegmentationError(
            f"TotalSegmentator exceeded {timeout_s:g} s and was stopped; allow it more time, or take its fast"
            " model"
        )

    def _death(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "was killed (out of memory?)"
        return f"ended with {f'signal {-code}' if code < 0 else f'status {code}'}"

    def _last_line(self, offset: int) -> str:
        """The last line of the log after an offset in bytes, for a message."""
        text = self._log.read_bytes()[offset:].decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"; its last output: {lines[-1][:200]}" if lines else ""

    def stop(self, at_once: bool = False) -> None:
        """Ends the process and those that it started.

        Args:
            at_once: Whether to kill it without waiting for its exit.
        """
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_S)
        self._end()
        self._reader.join(EXIT_S)


def _read(output: IO[str], answers: queue.SimpleQueue[str]) -> None:
    """Queues the answers, and an empty one at the end."""
    with output:
        for line in output:
            answers.put(line)
    answers.put("")


def _kill(process: subprocess.Popen[str]) -> None:
    """Kills a process and its group, and waits for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
