"""Keeping the C++ libraries under SimpleITK off the terminal."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import SimpleITK as sitk

_STDERR = 2
_one_at_a_time = threading.RLock()


@contextmanager
def silent() -> Iterator[None]:
    """Nothing that ITK or a decoder under it writes to the standard error comes out.

    ITK's warnings have a switch; OpenJPEG's complaints have none and go straight to the file descriptor,
    which is therefore pointed away meanwhile. Both belong to the whole process: one thread at a time.
    """
    with _one_at_a_time:
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            with _descriptor_away(_STDERR):
                yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


@contextmanager
def _descriptor_away(descriptor: int) -> Iterator[None]:
    try:
        kept = os.dup(descriptor)
    except OSError:  # closed already: nothing can come out
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(nowhere)
        os.close(kept)
