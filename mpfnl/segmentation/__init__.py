"""Segmentation of scans: the `Segmenter` protocol and TotalSegmentator behind it (extra `segment`).

The names load when they are first used: the process in which TotalSegmentator runs imports this package, and
so do its helper processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.segmentation.segmenter import Segmenter
    from mpfnl.segmentation.totalsegmentator import TotalSegmentatorSegmenter

__all__ = ["Segmenter", "TotalSegmentatorSegmenter"]

_HOMES = {
    "Segmenter": "mpfnl.segmentation.segmenter",
    "TotalSegmentatorSegmenter": "mpfnl.segmentation.totalsegmentator",
}
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
