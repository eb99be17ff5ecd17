"""Image quality, overlap, surface distance and the statistics over them.

Every measure is a pure function; the classes of `mpfnl.metrics.accumulate` average them over the
volumes of many batches and processes. What is named here loads when it is first used, so that
importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.metrics.accumulate import (
        DiceCoefficient,
        NormalizedSurfaceDistance,
        PeakSignalNoiseRatio3D,
        StructuralSimilarity3D,
    )
    from mpfnl.metrics.image import psnr, ssim
    from mpfnl.metrics.overlap import dice
    from mpfnl.metrics.statistics import (
        Comparison,
        Interval,
        PairedTest,
        Summary,
        bca_interval,
        compare_methods,
        holm,
        paired_wilcoxon,
        summarize,
    )
    from mpfnl.metrics.surface import normalized_surface_distance

__all__ = [
    "Comparison",
    "DiceCoefficient",
    "Interval",
    "NormalizedSurfaceDistance",
    "PairedTest",
    "PeakSignalNoiseRatio3D",
    "StructuralSimilarity3D",
    "Summary",
    "bca_interval",
    "compare_methods",
    "dice",
    "holm",
    "normalized_surface_distance",
    "paired_wilcoxon",
    "psnr",
    "ssim",
    "summarize",
]

_HOMES = {
    "DiceCoefficient": "mpfnl.metrics.accumulate",
    "NormalizedSurfaceDistance": "mpfnl.metrics.accumulate",
    "PeakSignalNoiseRatio3D": "mpfnl.metrics.accumulate",
    "StructuralSimilarity3D": "mpfnl.metrics.accumulate",
    "psnr": "mpfnl.metrics.image",
    "ssim": "mpfnl.metrics.image",
    "dice": "mpfnl.metrics.overlap",
    "normalized_surface_distance": "mpfnl.metrics.surface",
    "Comparison": "mpfnl.metrics.statistics",
    "Interval": "mpfnl.metrics.statistics",
    "PairedTest": "mpfnl.metrics.statistics",
    "Summary": "mpfnl.metrics.statistics",
    "bca_interval": "mpfnl.metrics.statistics",
    "compare_methods": "mpfnl.metrics.statistics",
    "holm": "mpfnl.metrics.statistics",
    "paired_wilcoxon": "mpfnl.metrics.statistics",
    "summarize": "mpfnl.metrics.statistics",
}
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
