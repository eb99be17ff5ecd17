"""Degradation of CT in physical units: torch, NumPy and SciPy are all it needs.

Each degradation is one file of this package: its tensor function, its recorded parameters and the ranges they
are drawn from. The package imports every file in it, so a new file is registered without an entry here.
"""

from importlib import import_module
from pkgutil import iter_modules

from mpfnl.transforms.degradation.base import Degradation, registered_degradations
from mpfnl.transforms.degradation.presets import (
    SECOND_ORDER_V1,
    Preset,
    find_preset,
    newest_presets,
    register_preset,
    registered_presets,
    sample_parameters,
)
from mpfnl.transforms.degradation.records import Record, apply_batch, apply_parameters
from mpfnl.transforms.degradation.stage import Stage

__all__ = [
    "SECOND_ORDER_V1",
    "Degradation",
    "Preset",
    "Record",
    "Stage",
    "apply_batch",
    "apply_parameters",
    "find_preset",
    "newest_presets",
    "register_preset",
    "registered_degradations",
    "registered_presets",
    "sample_parameters",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
