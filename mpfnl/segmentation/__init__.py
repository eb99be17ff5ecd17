"""Segmentation of scans: the `Segmenter` protocol, and TotalSegmentator behind it (extra `segment`).

What is named here loads when it is first used: the process in which TotalSegmentator runs imports this
package, and the helpers that it starts do so again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.segmentation.protocol import Masks, Segmenter
    from mpfnl.segmentation.totalsegmentator import TotalSegmentatorSegmenter

__all__ = ["Masks", "Segmenter", "TotalSegmentatorSegmenter"]

_HOMES = {
    "Masks": "mpfnl.segmentation.protocol",
    "Segmenter": "mpfnl.segmentation.protocol",
    "TotalSegmentatorSegmenter": "mpfnl.segmentation.totalsegmentator",
}
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
