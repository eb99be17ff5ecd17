"""Image quality, overlap, surface distance and the statistics over them.

Every measure is a pure function; the torchmetrics classes average them over the volumes of many batches and
processes. `register_metric` adds an image metric of one's own to those of an evaluation. A name loads when it
is first used, so that importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.metrics.aggregation import (
        DiceCoefficient,
        NormalizedSurfaceDistance,
        PeakSignalNoiseRatio3D,
        StructuralSimilarity3D,
    )
    from mpfnl.metrics.image import psnr, ssim
    from mpfnl.metrics.overlap import dice
    from mpfnl.metrics.registry import register_metric
    from mpfnl.metrics.statistics import bca_interval, compare_methods, paired_wilcoxon
    from mpfnl.metrics.surface import normalized_surface_distance

__all__ = [
    "DiceCoefficient",
    "NormalizedSurfaceDistance",
    "PeakSignalNoiseRatio3D",
    "StructuralSimilarity3D",
    "bca_interval",
    "compare_methods",
    "dice",
    "normalized_surface_distance",
    "paired_wilcoxon",
    "psnr",
    "register_metric",
    "ssim",
]

_HOMES = {
    "DiceCoefficient": "mpfnl.metrics.aggregation",
    "NormalizedSurfaceDistance": "mpfnl.metrics.aggregation",
    "PeakSignalNoiseRatio3D": "mpfnl.metrics.aggregation",
    "StructuralSimilarity3D": "mpfnl.metrics.aggregation",
    "psnr": "mpfnl.metrics.image",
    "ssim": "mpfnl.metrics.image",
    "dice": "mpfnl.metrics.overlap",
    "register_metric": "mpfnl.metrics.registry",
    "bca_interval": "mpfnl.metrics.statistics",
    "compare_methods": "mpfnl.metrics.statistics",
    "paired_wilcoxon": "mpfnl.metrics.statistics",
    "normalized_surface_distance": "mpfnl.metrics.surface",
}
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
