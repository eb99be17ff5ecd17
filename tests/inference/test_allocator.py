"""Freed memory is kept while it serves, and given back afterwards."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

import pytest
import torch

from mpfnl.inference.memory import _glibc, freed_memory_reused

LARGE = 96 * 2**20  # bytes; more than glibc keeps by itself

only_glibc = pytest.mark.skipif(_glibc() is None, reason="the C library is not glibc")


def faults() -> int:
    """Pages that the system had to find while four large blocks were filled and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(LARGE, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@only_glibc
def test_large_blocks_are_used_again() -> None:
    outside = faults()
    if outside < 1000:
        pytest.skip("this system finds large blocks without many page faults")
    with freed_memory_reused():
        inside = min(faults() for _ in range(5))  # small blocks cut the first large ones that are freed
    assert inside < 0.1 * outside


@only_glibc
@pytest.mark.parametrize("error", [False, True])
def test_freed_memory_goes_back_in_the_end(error: bool) -> None:
    before = resident()
    with contextlib.suppress(KeyError), freed_memory_reused():
        for _ in range(4):
            torch.ones(LARGE, dtype=torch.uint8)
        meanwhile = resident()
        if error:
            raise KeyError
    assert meanwhile > before + 0.9 * LARGE
    assert resident() < before + 0.2 * LARGE


def test_it_does_nothing_without_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mpfnl.inference.memory._glibc", lambda: None)
    with freed_memory_reused():
        assert torch.ones(3).sum() == 3
