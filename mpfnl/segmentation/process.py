"""The worker process as its caller sees it: started, asked, stopped, and found dead."""

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

from mpfnl.errors import SegmentationError

COMMAND = (sys.executable, "-m", "mpfnl.segmentation.worker")
PATIENCE_S = 5.0  # for a worker to leave by itself
GLANCE_S = 0.5  # between looks at whether it lives


class Worker:
    """A worker process; it ends at the latest with this object.

    Args:
        environment: Its environment variables.
        log: A file that takes what it prints.
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
                start_new_session=True,  # so that it can be stopped with all that it started
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
        """Whether it runs."""
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> None:
        """Sends a request and waits for its answer.

        Args:
            request: The arguments, as JSON values.
            timeout_s: How long to wait, in seconds.

        Raises:
            SegmentationError: The answer is an error, the worker died, or the time is over. The latter two
                leave no worker behind.
        """
        logged = self._log.stat().st_size
        try:
            answer = self._exchange(json.dumps(request), timeout_s)
            if not answer:
                told = f"{self._death()}{self._last_words(logged)}"
                raise SegmentationError(f"TotalSegmentator's process {told}")
        except BaseException:
            self.stop(at_once=True)
            raise
        error = json.loads(answer)["error"]
        if error:
            raise SegmentationError(f"TotalSegmentator broke off ({error}){self._last_words(logged)}")

    def _exchange(self, line: str, timeout_s: float) -> str:
        """The answer to a line; empty where the worker is dead."""
        with contextlib.suppress(BrokenPipeError):  # it is dead, as its missing answer will tell
            print(line, file=self._requests, flush=True)
        end = time.monotonic() + timeout_s
        while (left := end - time.monotonic()) > 0:
            dead = not self.alive
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=min(GLANCE_S, left))
            if dead:  # and another process holds its pipe
                return ""
        raise SegmentationError(
            f"TotalSegmentator took longer than {timeout_s:g} s and was stopped; allow it more, or take its"
            " fast model"
        )

    def _death(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "was killed (out of memory?)"
        return f"ended with {f'signal {-code}' if code < 0 else f'status {code}'}"

    def _last_words(self, since: int) -> str:
        """The last line that it printed after so many bytes, for a message."""
        text = self._log.read_bytes()[since:].decode(errors="replace")
        told = [line.strip() for line in text.splitlines() if line.strip()]
        return f"; it printed last: {told[-1][:200]}" if told else ""

    def stop(self, at_once: bool = False) -> None:
        """Ends it, with all that it started.

        Args:
            at_once: Do not wait for it to leave by itself.
        """
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(PATIENCE_S)
        self._end()
        self._reader.join(PATIENCE_S)


def _read(output: IO[str], answers: queue.SimpleQueue[str]) -> None:
    """Passes on the answers; an empty one at the end."""
    with output:
        for line in output:
            answers.put(line)
    answers.put("")


def _kill(process: subprocess.Popen[str]) -> None:
    """Ends a process and its group, and collects it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
