"""Keeps glibc from handing freed feature maps back to the system between layers."""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

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
