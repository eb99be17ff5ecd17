"""Coverage of the target's voxels by another phase of the study."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from mpfnl.window import COVERED_FROM_HU

WHOLE = 0.995
"""Share of covered voxels from which a phase counts as whole."""


class CoverageMeter:
    """Coverage of a scan that is read slab by slab: blank end slices, and voxels without a measurement.

    A slice is blank if all its voxels have one value. Blank slices at either end, which software appends
    where a phase was not scanned, do not count as scanned; those between others do, and so does a scan of one
    value throughout.

    >>> meter = CoverageMeter()
    >>> scan = np.random.default_rng(0).normal(40, 10, (8, 8, 10))
    >>> scan[:, :, 8:] = -1000  # two slices were not scanned
    >>> scan[:4, :, :4] = -2048  # and a corner of four more
    >>> meter(0, scan, 10)
    >>> meter.slices, meter.share
    (slice(0, 8, None), 0.6)
    """

    def __init__(self) -> None:
        self._depth = 0
        self._first: int | None = None
        self._stop = 0
        self._covered: list[float] = []

    def __call__(self, start: int, slab: NDArray[Any], depth: int) -> None:
        """Adds the next slab.

        Args:
            start: First slice of the slab.
            slab: HU `(x, y, slices)`.
            depth: Number of slices of the whole scan.
        """
        self._depth = depth
        for place, blank in enumerate(slab.min(axis=(0, 1)) == slab.max(axis=(0, 1))):
            covered = slab[:, :, place] >= COVERED_FROM_HU
            self._covered.append(float(covered.mean()))
            if not blank:
                self._first = start + place if self._first is None else self._first
                self._stop = start + place + 1

    @property
    def slices(self) -> slice:
        """The slices between blank ends; all if all are blank."""
        return slice(0, self._depth) if self._first is None else slice(self._first, self._stop)

    @property
    def share(self) -> float:
        """Share of the scan's voxels that are covered, 0 to 1."""
        return float(sum(self._covered[self.slices])) / self._depth if self._depth else 0.0

    @property
    def line(self) -> str:
        """The coverage in words."""
        return f"covers {self.share:.0%} of the volume; elsewhere the other phases alone are used"
