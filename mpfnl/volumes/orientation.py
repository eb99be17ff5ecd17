"""Scans in canonical order, whatever order their files have: turned on reading, and turned back on writing.

Canonical order has the axes nearest to right, anterior and superior (RAS+), with which networks are trained.
Turning moves no voxel in the patient and interpolates nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpfnl.volumes.formats import StoredArray, StoredValues
from mpfnl.volumes.grid import Box, Grid
from mpfnl.volumes.intensity import Voxels


class SlabWriter(Protocol):
    """Receives the slabs of a scan in their order."""

    def write(self, slab: Voxels) -> None:
        """Receives the next slices, HU `(x, y, slices)`."""


class CanonicalValues:
    """Stored values of a file, box by box in canonical order.

    Args:
        values: Stored values in the file's order.
    """

    def __init__(self, values: StoredValues) -> None:
        self._values = values
        self.grid = values.grid.canonical()
        self.dtype, self.slope, self.intercept = values.dtype, values.slope, values.intercept
        self.states_hu, self.in_memory = values.states_hu, values.in_memory
        self.random_access = values.random_access

    def read(self, box: Box) -> NDArray[Any]:
        """The values in a box of the canonical grid, (x, y, z)."""
        return self._values.grid.to_canonical(self._values.read(self.grid.stored_box(box)))

    def finish(self) -> None:
        """Reads to the end of the file."""
        self._values.finish()

    def close(self) -> None:
        """Closes the file; the next reading opens it again."""
        self._values.close()


def canonical_boxes(values: StoredValues) -> StoredValues:
    """Stored values in canonical order, to be read in boxes at any place."""
    return values if values.grid.canonical().stored is None else CanonicalValues(values)


def canonical_slabs(values: StoredValues) -> StoredValues:
    """Stored values in canonical order, to be read slab by slab along z.

    Where the file has the slices in another order, its values are read into memory: each slab would else cost
    a reading of the whole file.

    Args:
        values: Stored values; their file is closed where they were read into memory.

    Raises:
        DamagedError: The file is cut off or damaged.
    """
    grid = values.grid.canonical()
    if grid.keeps_slices or values.in_memory:
        return canonical_boxes(values)
    try:
        stored = values.read(values.grid.box)
        values.finish()
    finally:
        values.close()
    turned = values.grid.to_canonical(stored)
    return StoredArray(turned, grid, values.slope, values.intercept, values.states_hu)


def in_stored_order(writer: SlabWriter, grid: Grid) -> SlabWriter:
    """A writer that takes the slabs of a grid and gives them on in the order of the grid's `stored` one.

    Args:
        writer: Writer of the stored grid. Where its slices run otherwise, it receives the whole scan at once
            with the last slab; till then the scan is in memory.
        grid: Grid of the slabs.
    """
    return writer if grid.stored is None else _TurnedWriter(writer, grid)


class _TurnedWriter:
    def __init__(self, writer: SlabWriter, grid: Grid) -> None:
        self._writer, self._grid = writer, grid
        self._whole: Voxels | None = None
        self._received = 0

    def write(self, slab: Voxels) -> None:
        if self._grid.keeps_slices:
            self._writer.write(self._grid.to_stored(slab))
            return
        if self._whole is None:
            self._whole = np.empty(self._grid.shape, slab.dtype, order="F")
        start, self._received = self._received, self._received + slab.shape[2]
        if slab.shape[:2] != self._grid.shape[:2] or self._received > self._grid.shape[2]:
            raise ValueError(f"a slab of {slab.shape} does not fit a volume of {self._grid.shape}")
        self._whole[:, :, start : self._received] = slab
        if self._received == self._grid.shape[2]:
            self._writer.write(self._grid.to_stored(self._whole))
