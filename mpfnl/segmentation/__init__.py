"""Segmentation of scans: the `Segmenter` protocol, and TotalSegmentator behind it (extra `segment`).

What is named here loads when it is first used: the process in which TotalSegmentator runs imports this
package, and the helpers that it starts do so again.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mpfnl.segmentation.protocol import Masks, Segmenter
    from mpfnl.segmentation.totalsegmentator import TotalSegmentatorSegmenter

__all__ = ["Masks", "Segmenter", "TotalSegmentatorSegmenter"]

_HOME = {
    "Masks": "protocol",
    "Segmenter": "protocol",
    "TotalSegmentatorSegmenter": "totalsegmentator",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
