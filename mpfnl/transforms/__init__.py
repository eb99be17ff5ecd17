"""Transforms of CT: window, degradation, rotation.

The tensor functions need torch, NumPy and SciPy only. The TorchIO transforms are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names
from mpfnl.transforms.degradation import (
    SECOND_ORDER_V1,
    apply_batch,
    apply_parameters,
    find_preset,
    sample_parameters,
)
from mpfnl.transforms.rotation import rotate90, rotate90_affine
from mpfnl.transforms.seeds import Sharing, phase_draws

if TYPE_CHECKING:
    from mpfnl.transforms.torchio_scanner import LowDose, MetalStreaks, MotionBlur, ThickSlices
    from mpfnl.transforms.torchio_transforms import (
        Degradation,
        RandomDegradation,
        RandomRotation90,
        Rotation90,
        Window,
    )

__all__ = [
    "SECOND_ORDER_V1",
    "Degradation",
    "LowDose",
    "MetalStreaks",
    "MotionBlur",
    "RandomDegradation",
    "RandomRotation90",
    "Rotation90",
    "Sharing",
    "ThickSlices",
    "Window",
    "apply_batch",
    "apply_parameters",
    "find_preset",
    "phase_draws",
    "rotate90",
    "rotate90_affine",
    "sample_parameters",
]

_HOMES = {
    "Degradation": "mpfnl.transforms.torchio_transforms",
    "RandomDegradation": "mpfnl.transforms.torchio_transforms",
    "RandomRotation90": "mpfnl.transforms.torchio_transforms",
    "Rotation90": "mpfnl.transforms.torchio_transforms",
    "Window": "mpfnl.transforms.torchio_transforms",
    "LowDose": "mpfnl.transforms.torchio_scanner",
    "MetalStreaks": "mpfnl.transforms.torchio_scanner",
    "MotionBlur": "mpfnl.transforms.torchio_scanner",
    "ThickSlices": "mpfnl.transforms.torchio_scanner",
}
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
