"""A moving slab of a scan, so that a long scan is never in memory whole."""

from __future__ import annotations

import numpy as np

from mpfnl.volumes.intensity import Voxels
from mpfnl.volumes.scan import Scan

READ_SLICES = 8
"""Slices that are read and converted in one go."""


class MovingSlab:
    """Reads a scan forward in slices, and keeps those that were not dropped.

    Args:
        scan: The scan. One in memory is read as it is; nothing is kept of it.
    """

    def __init__(self, scan: Scan) -> None:
        self.scan = scan
        self._first = self._position = 0  # the first slice that is kept, and the next that is read
        self._slices = self._empty(0)

    def read(self, start: int, stop: int) -> Voxels:
        """HU `(x, y, stop - start)`; a view, good until the next call, not to be changed.

        Args:
            start: First slice.
            stop: The slice after the last.

        Raises:
            InputError: The file cannot be read there any more.
            ValueError: Slices before `start` were dropped.
        """
        if self.scan.in_memory:
            return self._of_scan(start, stop)
        if start < self._first:
            raise ValueError(f"slice {start} was dropped; the first that is kept is {self._first}")
        self._position = max(self._position, self._first)  # dropped before they were read
        if stop > self._position:
            slices = self._empty(stop - self._first)
            slices[:, :, : self._slices.shape[2]] = self._slices
            for begin in range(self._position, stop, READ_SLICES):
                end = min(begin + READ_SLICES, stop)
                slices[:, :, begin - self._first : end - self._first] = self._of_scan(begin, end)
            self._slices, self._position = slices, stop
        return self._slices[:, :, start - self._first : stop - self._first]

    def drop(self, before: int) -> None:
        """Forgets the slices before this one; their memory is free after the next reading."""
        before = max(before, self._first)
        self._slices = self._slices[:, :, before - self._first :]
        self._first = before

    def close(self) -> None:
        """Closes the scan's file and forgets its slices; the next reading may begin anywhere."""
        self.scan.close()
        self._slices, self._first, self._position = self._empty(0), 0, 0

    def _of_scan(self, start: int, stop: int) -> Voxels:
        return self.scan.read(self.scan.grid.slab(start, stop))

    def _empty(self, slices: int) -> Voxels:
        return np.empty((*self.scan.grid.shape[:2], slices), self.scan.dtype, order="F")
