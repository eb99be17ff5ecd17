"""How numbers are written: the paper's Tables I and II and its Results section set the pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mpfnl.metrics.statistics import Interval

NONE = "–"
"""Stands where there is no number."""

PERCENT = 100.0


class Notation(Protocol):
    """How the values of a metric are written. Values come in the units of `cases.csv`."""

    @property
    def scale(self) -> float:
        """What a value is multiplied by where it is written or drawn."""

    def value(self, value: float) -> str:
        """A mean or a standard deviation."""

    def interval(self, interval: Interval) -> str:
        """A confidence interval of the mean, in brackets."""

    def change(self, change: float) -> str:
        """A difference of two values, with its sign."""

    def change_ends(self, interval: Interval) -> tuple[str, str]:
        """The ends of a confidence interval of a change."""


@dataclass(frozen=True)
class Decimals:
    """Everything with the same number of decimals, such as PSNR 28.16 and SSIM 0.8733.

    Args:
        digits: Decimals.
    """

    digits: int
    scale: float = 1.0

    def value(self, value: float) -> str:
        """Such as `28.16`."""
        return _minus(f"{value:.{self.digits}f}")

    def interval(self, interval: Interval) -> str:
        """Such as `[27.21, 29.04]`."""
        return f"[{self.value(interval.low)}, {self.value(interval.high)}]"

    def change(self, change: float) -> str:
        """Such as `+4.34`."""
        return signed(change, self.digits)

    def change_ends(self, interval: Interval) -> tuple[str, str]:
        """Such as `3.98` and `4.70`."""
        return self.value(interval.low), self.value(interval.high)


@dataclass(frozen=True)
class Percent:
    """A share in [0, 1] as the paper writes DSC and NSD.

    Mean and standard deviation are in percent with three significant digits (`71.7`, `5.70`), the interval
    of the mean is a fraction with four decimals (`[0.6299, 0.7725]`). A change, of which the paper gives no
    interval, is in percentage points with two decimals.
    """

    scale: float = PERCENT

    def value(self, value: float) -> str:
        """Such as `71.7`, in percent."""
        return three_significant(PERCENT * value)

    def interval(self, interval: Interval) -> str:
        """Such as `[0.6299, 0.7725]`: a fraction."""
        return f"[{interval.low:.4f}, {interval.high:.4f}]"

    def change(self, change: float) -> str:
        """Such as `+2.80`, in percentage points."""
        return signed(PERCENT * change, 2)

    def change_ends(self, interval: Interval) -> tuple[str, str]:
        """Such as `−0.35` and `6.10`, in percentage points."""
        return _minus(f"{PERCENT * interval.low:.2f}"), _minus(f"{PERCENT * interval.high:.2f}")


def three_significant(value: float) -> str:
    """Three significant digits without an exponent, and at most three decimals: 76.5, 5.70, 100, 0.012."""
    exponent = int(f"{value:.2e}".partition("e")[2]) if value else 0
    return _minus(f"{value:.{min(3, max(0, 2 - exponent))}f}")


def signed(value: float, digits: int) -> str:
    """A number with its sign; zero, also what is rounded to it, has none."""
    text = f"{value:+.{digits}f}"
    return _minus(text if float(text) else text[1:])


def p_text(p: float | None) -> str:
    """A p-value with three decimals and no zero before the point, as the paper and AMA style write it.

    Such as `.034`; `< .001` below that, and `1.00` for what rounds to one.
    """
    if p is None:
        return NONE
    if p < 0.001:
        return "< .001"
    text = f"{p:.3f}"
    return "1.00" if text.startswith("1") else text.removeprefix("0")


def _minus(text: str) -> str:
    """The typographic minus; none before a zero."""
    if text.startswith("-") and not float(text):
        return text[1:]
    return text.replace("-", "−")
