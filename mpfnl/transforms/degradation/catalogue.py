"""The presets by name."""

from __future__ import annotations

from mpfnl.errors import InputError
from mpfnl.transforms.degradation.presets import (
    LOW_DOSE_V1,
    METAL_V1,
    MOTION_V1,
    SECOND_ORDER_MILD_V1,
    SECOND_ORDER_SEVERE_V1,
    SECOND_ORDER_V1,
    THICK_SLICES_V1,
    Preset,
)

SHORT_NAMES: dict[str, Preset] = {
    "mild": SECOND_ORDER_MILD_V1,
    "paper": SECOND_ORDER_V1,
    "severe": SECOND_ORDER_SEVERE_V1,
    "low-dose": LOW_DOSE_V1,
    "thick-slices": THICK_SLICES_V1,
    "motion": MOTION_V1,
    "metal": METAL_V1,
}
"""The newest version of each preset."""

PRESETS: dict[str, Preset] = {preset.name: preset for preset in SHORT_NAMES.values()}
"""Every preset by the name under which it is recorded."""


def find_preset(name: str) -> Preset:
    """The preset of a name: a short one, which stands for the newest version, or the recorded one.

    Raises:
        InputError: If there is none.
    """
    known = SHORT_NAMES | PRESETS
    if name not in known:
        raise InputError(f"there is no degradation named {name!r}; give one of: {', '.join(known)}")
    return known[name]
