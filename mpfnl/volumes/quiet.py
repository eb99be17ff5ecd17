"""Libraries in C that complain on the standard error, kept quiet."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2
_one_at_a_time = threading.RLock()


@contextmanager
def quiet_errors() -> Iterator[None]:
    """Keeps what runs inside from writing to the standard error.

    Decoders such as OpenJPEG and libjpeg write to the file descriptor, which is pointed away meanwhile. It
    belongs to the whole process: one thread at a time.
    """
    with _one_at_a_time, _descriptor_away(_STDERR):
        yield


@contextmanager
def _descriptor_away(descriptor: int) -> Iterator[None]:
    try:
        copy = os.dup(descriptor)
    except OSError:  # closed already: nothing can come out
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
        yield
    finally:
        os.dup2(copy, descriptor)
        os.close(nowhere)
        os.close(copy)
