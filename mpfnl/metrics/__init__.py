"""Image quality, overlap, surface distance and the statistics over them.

Every measure is a pure function; the classes of `mpfnl.metrics.accumulate` average them over the
volumes of many batches and processes. What is named here loads when it is first used, so that
importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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

_HOME = {
    "DiceCoefficient": "accumulate",
    "NormalizedSurfaceDistance": "accumulate",
    "PeakSignalNoiseRatio3D": "accumulate",
    "StructuralSimilarity3D": "accumulate",
    "psnr": "image",
    "ssim": "image",
    "dice": "overlap",
    "normalized_surface_distance": "surface",
    "Comparison": "statistics",
    "Interval": "statistics",
    "PairedTest": "statistics",
    "Summary": "statistics",
    "bca_interval": "statistics",
    "compare_methods": "statistics",
    "holm": "statistics",
    "paired_wilcoxon": "statistics",
    "summarize": "statistics",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
