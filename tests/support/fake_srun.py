"""Stands in for srun: one task a node, all on this machine; without torch.

SIGNAL_WHEN names a file: when it is there, all tasks get SIGUSR1, as SLURM does before the time is over.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from processes import free_port, slurm_variables


def main() -> int:
    words = sys.argv[1:]
    while words[0].startswith("-"):
        words.pop(0)
    tasks, port = int(os.environ["SLURM_NNODES"]), free_port()
    running = [
        subprocess.Popen(words, env={**os.environ, **slurm_variables(rank, tasks, port)})
        for rank in range(tasks)
    ]
    awaited = os.environ.get("SIGNAL_WHEN")
    while any(task.poll() is None for task in running):
        if awaited and Path(awaited).exists():
            awaited = None
            for task in running:
                task.send_signal(signal.SIGUSR1)
        time.sleep(0.01)
    return max(task.returncode for task in running)


if __name__ == "__main__":
    sys.exit(main())
