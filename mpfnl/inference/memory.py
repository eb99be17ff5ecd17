"""Memory of this process: what it holds, what it may still take, and how glibc reuses it."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SHARE = 0.8
"""Of the memory that is free, what is taken by default: the rest is for other programs."""

GB = 1_000_000_000
ROOT = Path("/")


def resident() -> int:
    """Bytes that this process holds now; 0 where the system does not tell."""
    return _field(ROOT / "proc/self/status", "VmRSS") or 0


def highest() -> int:
    """Bytes that this process held at most so far; 0 where the system does not tell."""
    return _field(ROOT / "proc/self/status", "VmHWM") or _highest_by_usage()


def available(root: Path = ROOT) -> int | None:
    """Bytes that programs can still take, within the limits of this process' control groups.

    Args:
        root: Where the file system's root lies.

    Returns:
        The bytes; None where the system does not tell.
    """
    system = _field(root / "proc/meminfo", "MemAvailable")
    free = _free_pages() if system is None and root == ROOT else system
    bounds = [each for each in (free, *_left_in_groups(root)) if each is not None]
    return max(0, min(bounds)) if bounds else None


def allowed(max_bytes: int | None) -> int | None:
    """Bytes that this process may hold at most: those given, else what it holds and a share of what is free.

    Returns:
        The bytes; None for no limit, where none is given and the system does not tell what is free.
    """
    if max_bytes is not None:
        return max_bytes
    free = available()
    return None if free is None else resident() + int(SHARE * free)


def _field(file: Path, name: str) -> int | None:
    """Bytes, from a line such as `VmRSS:   1234 kB`."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), None)


def _highest_by_usage() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def _free_pages() -> int | None:
    """Where there is no /proc: the pages that nothing uses."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _left_in_groups(root: Path) -> Iterator[int]:
    """What each control group above this process still allows; version 2 and version 1."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _left(root / "sys/fs/cgroup", path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _left(root / "sys/fs/cgroup/memory", path, *names)


def _left(mount: Path, path: str, limit: str, usage: str, cache: str) -> Iterator[int]:
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(mount):
            return
        try:
            bound = (folder / limit).read_text().strip()
            used = int((folder / usage).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # the root has none, a container may not see those above it
            continue
        if bound != "max":
            yield int(bound) - used + int(stat.get(cache, 0))  # cached files make room


# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
MMAP_MAX = 65536  # glibc's default
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # to which glibc's own rule lets it grow


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Large blocks that are freed serve the next allocation, while this lasts.

    glibc maps blocks of more than 32 MB anew at every allocation, so that each feature map of a large tile
    starts as pages that the system must find and clear, one by one. On a CPU that costs more than all
    activations and sums of a network. Afterwards what is free goes back to the system, and the thresholds
    are those that glibc itself reaches after large blocks were freed.

    It does nothing where the C library is not glibc.

    What is kept grows where blocks of many sizes come and go, as in convolutions that PyTorch unfolds: then
    `give_back` now and then.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, MMAP_MAX)
        libc.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST_MMAP_THRESHOLD)
        libc.malloc_trim(0)


def give_back() -> None:
    """Memory that is free goes back to the system; does nothing where the C library is not glibc."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    try:
        library.mallopt.argtypes = (ctypes.c_int, ctypes.c_int)
        library.malloc_trim.argtypes = (ctypes.c_size_t,)
    except AttributeError:
        return None
    return library
