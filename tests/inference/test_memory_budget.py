"""What a process may take: the system's word, and the limits of control groups of both versions."""

from __future__ import annotations

import gc
import mmap
import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from mpfnl.inference import memory
from mpfnl.inference.memory import SHARE, allowed, available, highest, resident

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def system(root: Path, free_kb: int, cgroup: str) -> Path:
    """A file system that says how much is free, and in which group this process is."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {free_kb} kB\n")
    (root / "proc/self/cgroup").write_text(cgroup)
    return root


def group(folder: Path, names: tuple[str, str, str], limit: object, used: int, cached: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_groups_it_is_what_the_system_has(tmp_path: Path) -> None:
    assert available(system(tmp_path, 3000, "0::/\n")) == 3000 * 1024
    assert available(tmp_path / "nothing") is None


def test_version_2_the_tightest_group_counts(tmp_path: Path) -> None:
    root = system(tmp_path, 9_000_000, "0::/job/step\n")
    mount = root / "sys/fs/cgroup"
    group(mount / "job/step", V2, "max", 500, 0)
    group(mount / "job", V2, 10_000_000, 3_000_000, 1_000_000)
    assert available(root) == 8_000_000
    group(mount / "job/step", V2, 4_000_000, 3_900_000, 0)
    assert available(root) == 100_000
    group(mount / "job/step", V2, 4_000_000, 4_900_000, 0)
    assert available(root) == 0


def test_version_1(tmp_path: Path) -> None:
    root = system(tmp_path, 9_000_000, "9:name=systemd:/\n4:cpu,memory:/job\n0::/\n")
    mount = root / "sys/fs/cgroup/memory"
    group(mount, V1, 9223372036854771712, 0, 0)  # what stands for no limit
    assert available(root) == 9_000_000 * 1024
    group(mount / "job", V1, 2_000_000, 500_000, 0)
    assert available(root) == 1_500_000


def test_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert allowed(12345) == 12345
    monkeypatch.setattr(memory, "resident", lambda: 1000)
    monkeypatch.setattr(memory, "available", lambda: 10_000)
    assert allowed(None) == 1000 + int(SHARE * 10_000)
    monkeypatch.setattr(memory, "available", lambda: None)
    assert allowed(None) is None


@linux
def test_what_is_held_is_seen() -> None:
    gc.collect()
    before, size = resident(), 400_000_000
    block = mmap.mmap(-1, size)  # not from what the C library keeps of freed memory
    np.frombuffer(block, np.uint8)[:] = 1
    assert resident() - before == pytest.approx(size, rel=0.3)  # others in this process free memory, too
    assert highest() >= resident()
    assert highest() <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 * 1.05
    block.close()
    assert resident() - before < 0.3 * size
