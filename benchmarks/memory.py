"""Peak memory of a process and its child processes, from Linux' /proc."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")


def tree_memory(pid: int | None = None) -> int:
    """Bytes that a process (this one if None) and its descendants hold: their own pages and shared memory.

    A page shared by n processes counts 1/n in each (the proportional set size), so that what the tree shares,
    as since a fork, counts once. Shared memory counts once whether it is mapped or waits for its receiver, as
    the batches of a DataLoader do: then it is in no set, but the sender has it open. Pages of files, such as
    the code of libraries, do not count: the system can drop them, and their share depends on which other
    programs run. So a file that is mapped to be read would not show.
    """
    tree = list(_tree(pid or os.getpid()))
    sizes = [_sizes(member) for member in tree]
    mapped = sum(size.get("Pss_Shmem", 0) for size in sizes)
    return sum(size.get("Pss_Anon", 0) for size in sizes) + max(mapped, _open_shared(tree))


def _tree(pid: int) -> Iterator[int]:
    yield pid
    for children in PROC.glob(f"{pid}/task/*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # the thread has ended
            continue
        for child in found:
            yield from _tree(int(child))


def _sizes(pid: int) -> dict[str, int]:
    """Bytes by the names of `smaps_rollup`; empty if the process has ended."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name.rstrip(":"): int(kilobytes) * 1024 for name, kilobytes, _ in map(str.split, lines)}


def _open_shared(pids: Iterable[int]) -> int:
    """Bytes of the files in /dev/shm that processes have open, removed ones too, each once."""
    found: dict[int, int] = {}
    for pid in pids:
        for link in PROC.glob(f"{pid}/fd/*"):
            try:
                if os.readlink(link).startswith("/dev/shm/"):
                    file = link.stat()
                    found[file.st_ino] = file.st_blocks * 512
            except OSError:  # closed, or the process has ended
                continue
    return sum(found.values())


def rise(run: Callable[[], object]) -> int:
    """Bytes by which a run raises this process's memory at its highest, from the kernel's own mark.

    Short peaks are seen, unlike by sampling. The pages of a library that is used for the first time count:
    let a small run go before. Linux only.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before must not hide what is taken now
    with suppress(OSError):
        (PROC / "self" / "clear_refs").write_text("5")  # lowers the mark to what is held now
    before = _status("VmRSS")
    run()
    return max(0, _status("VmHWM") - before)


def available() -> int:
    """Bytes that programs can still take. Linux only."""
    return _field(PROC / "meminfo", "MemAvailable")


def _status(name: str) -> int:
    return _field(PROC / "self" / "status", name)


def _field(file: Path, name: str) -> int:
    """Bytes, from a line such as `VmRSS:   1234 kB`."""
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {name} in {file}")


class PeakMemory:
    """Samples `tree_memory` of this process in a thread while its block runs; `peak` is the largest.

    A sample walks the page tables of each process: milliseconds for each gigabyte.

    Args:
        interval_s: Between two samples.
    """

    def __init__(self, interval_s: float = 0.05) -> None:
        self.interval_s = interval_s
        self.peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak = max(self.peak, tree_memory())
            if self._done.wait(self.interval_s):
                return
