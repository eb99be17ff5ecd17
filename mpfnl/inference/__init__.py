"""Enhancement of whole volumes: tiles, precision, memory, and the way back to HU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.inference.tiling import Tiling

__all__ = ["Tiling"]

_HOMES = {"Tiling": "mpfnl.inference.tiling"}
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
