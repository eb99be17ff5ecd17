"""Several processes on this machine that train together, and none left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TAIL = 3000


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lightning_variables(rank: int, processes: int, port: int) -> dict[str, str]:
    """What Lightning sets for a process that it starts itself; nothing for a process that is alone."""
    if processes == 1:
        return {}
    local = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": str(processes)}
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | local


def slurm_variables(rank: int, processes: int, port: int) -> dict[str, str]:
    """What srun sets for one process a node; the first node is this machine."""
    numbers = {"NTASKS": processes, "NNODES": processes, "PROCID": rank, "NODEID": rank, "LOCALID": 0}
    names = {"JOB_ID": "4711", "JOB_NAME": "train", "NODELIST": "127.0.0.1", "NTASKS_PER_NODE": "1"}
    given = {f"SLURM_{name}": str(value) for name, value in (numbers | names).items()}
    return given | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


@dataclass
class Processes:
    """Processes with their output in files, each in a session of its own.

    Leaving the `with` block ends what still runs, with its children.
    """

    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, words: Sequence[str | Path], variables: Mapping[str, str]) -> None:
        """Starts a command; in one thread, on the CPU."""
        place = len(self.running)
        few = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONWARNINGS": "default"}
        with (self.folder / f"output{place}.txt").open("wb") as output:
            self.running.append(
                subprocess.Popen(
                    [*map(str, words)],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **few, **variables},
                    cwd=self.folder,
                    start_new_session=True,
                )
            )

    def wait(self, seconds: float) -> list[str]:
        """Waits until all have ended well; what they wrote. The first that fails, or the time, ends all."""
        until = time.monotonic() + seconds
        while any(process.poll() is None for process in self.running):
            assert time.monotonic() < until, f"after {seconds} s:\n{self._tails()}"
            assert not any(process.poll() for process in self.running), self._tails()
            time.sleep(0.05)
        assert not any(process.returncode for process in self.running), self._tails()
        return self.outputs()

    def outputs(self) -> list[str]:
        """What each has written."""
        files = (self.folder / f"output{place}.txt" for place in range(len(self.running)))
        return [file.read_text("utf-8") for file in files]

    def _tails(self) -> str:
        return "\n".join(f"--- process {n}\n{text[-TAIL:]}" for n, text in enumerate(self.outputs()))

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
