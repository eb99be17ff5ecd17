"""The memory of a process and its children: shared pages once, private ones in full."""

from __future__ import annotations

import mmap
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from memory import PeakMemory, available, rise, tree_memory

MB = 10**6
SIZE = 64 * MB

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux' /proc")

HOLDS = f"""
import sys
block = b"1" * {SIZE}
print("ready", flush=True)
sys.stdin.readline()
"""

FORKS_TWICE = f"""
import os, sys
block = b"1" * {SIZE}
for _ in range(2):
    if os.fork() == 0:
        if os.fork() == 0:
            os.write(1, b"ready\\n")
        else:
            os.write(1, b"ready\\n")
        os.read(0, 1)
        os._exit(0)
os.write(1, b"ready\\n")
os.read(0, 1)
"""


def started(script: str, lines: int) -> subprocess.Popen[bytes]:
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    for _ in range(lines):
        assert child.stdout.readline() == b"ready\n"
    return child


def ended(child: subprocess.Popen[bytes]) -> None:
    child.communicate()


def test_a_childs_memory_counts() -> None:
    before = tree_memory()
    child = started(HOLDS, lines=1)
    during, itself = tree_memory(), tree_memory(child.pid)
    ended(child)
    assert SIZE < during - before < SIZE + 30 * MB
    assert SIZE < itself < SIZE + 30 * MB
    assert tree_memory() - before < 10 * MB


def test_what_forked_processes_share_counts_once() -> None:
    parent = started(FORKS_TWICE, lines=5)
    found = tree_memory(parent.pid)
    ended(parent)
    assert SIZE < found < SIZE + 40 * MB


def test_shared_memory_on_its_way_counts_once() -> None:
    before = tree_memory()
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.write(b"1" * SIZE)
        file.flush()
        assert 0.9 * SIZE < tree_memory() - before < 1.4 * SIZE
        with mmap.mmap(file.fileno(), SIZE, access=mmap.ACCESS_READ) as view:
            assert view.find(b"2") == -1  # every page is touched
            assert 0.9 * SIZE < tree_memory() - before < 1.4 * SIZE
    assert tree_memory() - before < 0.5 * SIZE


def test_a_tensor_in_shared_memory_counts() -> None:
    before = tree_memory()
    tensor = torch.ones(SIZE // 4).share_memory_()
    assert tree_memory() - before > 0.9 * tensor.nbytes


def test_a_peak_between_is_seen() -> None:
    before = tree_memory()
    with PeakMemory(interval_s=0.01) as memory:
        block = b"1" * SIZE
        time.sleep(0.2)
        del block
    assert SIZE * 0.9 < memory.peak - before < SIZE + 30 * MB


def test_the_rise_is_that_of_the_run_alone() -> None:
    before = b"1" * (2 * SIZE)
    del before
    held: list[bytes] = []

    def short_peak() -> None:
        block = b"1" * SIZE
        del block
        held.append(b"1" * (SIZE // 4))

    assert SIZE * 0.95 < rise(short_peak) < SIZE + 20 * MB
    assert rise(lambda: None) < 5 * MB


def test_memory_is_available() -> None:
    assert 50 * MB < available() < 2**50
