"""The presets by name."""

from __future__ import annotations

from mpfnl.errors import InputError
from mpfnl.transforms.degradation.presets import SECOND_ORDER_V1, Preset

PRESETS = {preset.name: preset for preset in (SECOND_ORDER_V1,)}


def find_preset(name: str) -> Preset:
    """The preset of a name.

    Raises:
        InputError: If there is none.
    """
    if name not in PRESETS:
        raise InputError(f"there is no degradation named {name!r}; give one of: {', '.join(PRESETS)}")
    return PRESETS[name]
