"""Transforms of CT: window, degradation, rotation.

The tensor functions need torch, NumPy and SciPy only. The TorchIO transforms are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_SCANNER = ("LowDose", "MetalStreaks", "MotionBlur", "ThickSlices")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "torchio_scanner" if name in _SCANNER else "torchio_transforms"
    return getattr(import_module(f"mpfnl.transforms.{room}"), name)
