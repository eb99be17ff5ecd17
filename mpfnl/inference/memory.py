"""Memory of this process: its size, its limit, and the reuse of freed memory by glibc."""

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
"""Default share of the free memory that an enhancement may use."""

GB = 1_000_000_000
ROOT = Path("/")


def resident() -> int:
    """Present memory of this process in bytes; 0 if the system does not tell."""
    return _field(ROOT / "proc/self/status", "VmRSS") or 0


def highest() -> int:
    """Peak memory of this process so far in bytes; 0 if the system does not tell."""
    return _field(ROOT / "proc/self/status", "VmHWM") or _highest_by_usage()


def available(root: Path = ROOT) -> int | None:
    """Free memory in bytes, within the limits of this process' control groups.

    Args:
        root: Root of the file system.

    Returns:
        Bytes; None if the system does not tell.
    """
    system = _field(root / "proc/meminfo", "MemAvailable")
    free = _free_pages() if system is None and root == ROOT else system
    bounds = [each for each in (free, *_left_in_groups(root)) if each is not None]
    return max(0, min(bounds)) if bounds else None


def allowed(max_bytes: int | None) -> int | None:
    """Memory limit of this process in bytes.

    Args:
        max_bytes: Limit; the present memory and 0.8 of the free memory if None.

    Returns:
        Bytes; None for no limit, if none is given and the system does not tell the free memory.
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
    """Bytes of unused pages, for systems without /proc."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _left_in_groups(root: Path) -> Iterator[int]:
    """Free bytes of each control group above this process; versions 1 and 2."""
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
        except (OSError, ValueError):  # the root has no limit; a container may not see the groups above it
            continue
        if bound != "max":
            yield int(bound) - used + int(stat.get(cache, 0))  # cached files can be dropped


# glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
MMAP_MAX = 65536  # glibc's default
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # largest that glibc sets by itself


@contextmanager
def freed_memory_reused() -> Iterator[None]:
    """Context in which glibc reuses large freed blocks; without effect on other C libraries.

    Otherwise glibc maps blocks of more than 32 MB anew at every allocation, and the system must find and
    clear the pages of each feature map of a large tile. On a CPU that costs more than all activations and
    sums of a network. At the end free memory returns to the system, and the thresholds are those that glibc
    itself reaches after large blocks were freed.

    Blocks of many sizes, as in convolutions that PyTorch unfolds, let the free memory grow; `give_back`
    returns it to the system.
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
    """Returns free memory to the system; without effect if the C library is not glibc."""
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
