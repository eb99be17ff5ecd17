"""Transforms of CT: degradation, window, rotation.

The tensor functions need torch, NumPy and SciPy only. The TorchIO transforms are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names
from mpfnl.transforms.degradation import (
    Degradation,
    Preset,
    apply_parameters,
    find_preset,
    register_preset,
    sample_parameters,
)

if TYPE_CHECKING:
    from mpfnl.transforms.torchio_transforms import (
        RandomDegradation,
        RandomRotation90,
        RecordedDegradation,
        WindowIntensity,
    )

__all__ = [
    "Degradation",
    "Preset",
    "RandomDegradation",
    "RandomRotation90",
    "RecordedDegradation",
    "WindowIntensity",
    "apply_parameters",
    "find_preset",
    "register_preset",
    "sample_parameters",
]

_TORCHIO = (
    "RandomDegradation",
    "RandomRotation90",
    "RecordedDegradation",
    "WindowIntensity",
)
_HOMES = dict.fromkeys(_TORCHIO, "mpfnl.transforms.torchio_transforms")
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
