"""Scans on disk and in memory: grids, reading with checks, and writing.

What is named here loads when it is first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.volumes.formats import register_format
    from mpfnl.volumes.grid import Grid
    from mpfnl.volumes.masks import read_mask
    from mpfnl.volumes.reading import read_volume
    from mpfnl.volumes.scan import Scan, open_scan
    from mpfnl.volumes.volume import Volume
    from mpfnl.volumes.writing import write_volume

_HOMES = {
    "Grid": "mpfnl.volumes.grid",
    "Scan": "mpfnl.volumes.scan",
    "Volume": "mpfnl.volumes.volume",
    "open_scan": "mpfnl.volumes.scan",
    "read_mask": "mpfnl.volumes.masks",
    "read_volume": "mpfnl.volumes.reading",
    "register_format": "mpfnl.volumes.formats",
    "write_volume": "mpfnl.volumes.writing",
}

__all__ = [
    "Grid",
    "Scan",
    "Volume",
    "open_scan",
    "read_mask",
    "read_volume",
    "register_format",
    "write_volume",
]

__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
