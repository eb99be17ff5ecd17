"""Numbers that a header rounded: the unit of their last digit, and lines that run through such numbers."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

import numpy as np
from numpy.typing import NDArray

FINEST_DIGITS = 4
"""Digits after the point up to which a rounding is looked for in numbers that went through float32."""

_FLOAT32 = 2.0**-23  # the relative distance between neighbouring numbers
_TINY = 1e-9


def last_unit(texts: Sequence[str]) -> float:
    """The unit to which numbers were rounded, 1 at most: that of the last digit that one of them needs.

    `-198.199997` is what float32 makes of -198.2 and has one digit. Zeros at the end count for little, since
    programs add them: `103.0` has no digit, `103.000000` has one.

    Args:
        texts: Decimal strings (PS3.5, 6.2); what is no number is passed over.
    """
    decimals = [number for number in map(_decimal, texts) if number is not None]
    written = max((-int(number.as_tuple().exponent) for number in decimals), default=0)
    values = np.array([float(number) for number in decimals])
    digits = max(written, FINEST_DIGITS + 1)
    for fewer in range(FINEST_DIGITS + 1):
        scale = 10.0**fewer
        off = np.abs(values * scale - np.rint(values * scale))
        if (off <= scale * (np.abs(values) * _FLOAT32 + _TINY)).all():
            digits = fewer
            break
    return float(10.0 ** -max(digits, 1 if written > 1 else 0))


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def fit_line(values: NDArray[np.float64]) -> tuple[float, float]:
    """The line of least squares through values at equal steps: the first value on it, and the step.

    Values on a line are returned without an error of arithmetic: what is fitted is their distance from the
    line through both ends.

    Args:
        values: Values (n,), at least 2.
    """
    index = np.arange(len(values), dtype=np.float64)
    step = float(values[-1] - values[0]) / (len(values) - 1)
    rest = values - (values[0] + step * index)
    centred = index - index.mean()
    slope = float(centred @ rest / (centred @ centred))
    return float(values[0] + rest.mean() - slope * index.mean()), step + slope


def distances_from_others(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of each value from the line of least squares through all others, (n,).

    Args:
        values: Values at equal steps, (n,), at least 2; of two none is off a line.
    """
    count = len(values)
    if count < 3:
        return np.zeros(count)
    first, step = fit_line(values)
    index = np.arange(count)
    centred = index - index.mean()
    leverage = 1 / count + centred**2 / (centred @ centred)
    return np.asarray(np.abs(values - (first + step * index)) / (1 - leverage))


def rounded_line(values: NDArray[np.float64], unit: float, index: NDArray[np.float64] | None = None) -> bool:
    """Whether there is a line that gives these values when it is rounded to a unit.

    A step fits if no two values lie further from each other, or nearer, than steps between them and one unit
    allow; the intercept is eliminated (Fourier and Motzkin).

    Args:
        values: Values, (n,), at least 2.
        unit: The unit.
        index: The place of each value on the line in steps, rising, (n,); None for equal steps.
    """
    places = np.arange(len(values), dtype=np.float64) if index is None else index
    lowest, highest = -np.inf, np.inf
    for apart in range(1, len(values)):
        rise = values[apart:] - values[:-apart]
        steps = places[apart:] - places[:-apart]
        lowest = max(lowest, float(((rise - unit) / steps).max()))
        highest = min(highest, float(((rise + unit) / steps).min()))
        if lowest > highest + _TINY:
            return False
    return True


def rounded_steps(values: NDArray[np.float64], unit: float, step: float) -> bool:
    """Whether a line of this step gives these values when it is rounded to a unit.

    Args:
        values: Values at equal steps, (n,).
        unit: The unit. What lies half a unit above a value is rounded to the next: values less than a unit
            apart on the line can become the same, values a unit apart cannot.
        step: The step.
    """
    return bool(np.ptp(values - step * np.arange(len(values))) < unit * (1 - _TINY))
