"""Transforms of CT: window, degradation, rotation.

The tensor functions need torch and NumPy only. The TorchIO transforms are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mpfnl.transforms.degradation import SECOND_ORDER_V1, apply_parameters, sample_parameters
from mpfnl.transforms.rotation import rotate90, rotate90_affine

if TYPE_CHECKING:
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
    "RandomDegradation",
    "RandomRotation90",
    "Rotation90",
    "Window",
    "apply_parameters",
    "rotate90",
    "rotate90_affine",
    "sample_parameters",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("mpfnl.transforms.torchio_transforms"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
