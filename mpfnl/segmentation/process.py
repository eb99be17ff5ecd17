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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpfnl.errors import SegmentationError

COMMAND = (sys.executable, "-m", "mpfnl.segmentation.worker")
PATIENCE_S = 5.0  # for a worker to leave by itself


class Worker:
    """A worker process.

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
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        """Passes on the answers; an empty one at the end."""
        assert self._process.stdout is not None  # it is a pipe
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

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
                raise SegmentationError(
                    f"TotalSegmentator's process {self._death()}{self._last_words(logged)}"
                )
        except BaseException:
            self.stop(at_once=True)
            raise
        error = json.loads(answer)["error"]
        if error:
            raise SegmentationError(f"TotalSegmentator broke off ({error}){self._last_words(logged)}")

    def _exchange(self, line: str, timeout_s: float) -> str:
        assert self._process.stdin is not None  # it is a pipe
        with contextlib.suppress(BrokenPipeError):  # it is dead, as its missing answer will tell
            print(line, file=self._process.stdin, flush=True)
        try:
            return self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise SegmentationError(
                f"TotalSegmentator took longer than {timeout_s:g} s and was stopped; allow it more, or take"
                " its fast model"
            ) from None

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
        process = self._process
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        if not at_once:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._reader.join(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()
