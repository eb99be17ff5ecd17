"""The metrics of the tables, and the notation of their values: that of the paper's Tables I and II."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from mpfnl.metrics.registry import ImageMetric, image_metrics
from mpfnl.metrics.statistics import ConfidenceInterval
from mpfnl.window import Window

NONE = "–"
"""Cell without a number."""

PERCENT = 100.0


class Notation(Protocol):
    """Notation of the values of a metric, which come in the units of `cases.csv`."""

    @property
    def scale(self) -> float:
        """Factor of a value where it is written or drawn."""

    def value(self, value: float) -> str:
        """A mean or a standard deviation."""

    def interval(self, interval: ConfidenceInterval) -> str:
        """A confidence interval of the mean, in brackets."""

    def change(self, change: float) -> str:
        """A difference of two values, with its sign."""

    def change_ends(self, interval: ConfidenceInterval) -> tuple[str, str]:
        """The ends of a confidence interval of a change."""


@dataclass(frozen=True)
class Decimals:
    """A fixed number of decimals, such as PSNR 28.16 and SSIM 0.8733.

    Args:
        digits: Number of decimals.
        scale: Factor of a value where it is drawn.
    """

    digits: int
    scale: float = 1.0

    def value(self, value: float) -> str:
        """Such as `28.16`."""
        return _minus(f"{value:.{self.digits}f}")

    def interval(self, interval: ConfidenceInterval) -> str:
        """Such as `[27.21, 29.04]`."""
        return f"[{self.value(interval.low)}, {self.value(interval.high)}]"

    def change(self, change: float) -> str:
        """Such as `+4.34`."""
        return signed(change, self.digits)

    def change_ends(self, interval: ConfidenceInterval) -> tuple[str, str]:
        """Such as `3.98` and `4.70`."""
        return self.value(interval.low), self.value(interval.high)


@dataclass(frozen=True)
class Percent:
    """A fraction in [0, 1] as the paper writes DSC and NSD.

    Mean and standard deviation are in percent with three significant digits (`71.7`, `5.70`), the interval
    of the mean is a fraction with four decimals (`[0.6299, 0.7725]`). A change, of which the paper gives no
    interval, is in percentage points with two decimals.
    """

    scale: float = PERCENT

    def value(self, value: float) -> str:
        """Such as `71.7`, in percent."""
        return three_significant(PERCENT * value)

    def interval(self, interval: ConfidenceInterval) -> str:
        """Such as `[0.6299, 0.7725]`: a fraction."""
        return f"[{interval.low:.4f}, {interval.high:.4f}]"

    def change(self, change: float) -> str:
        """Such as `+2.80`, in percentage points."""
        return signed(PERCENT * change, 2)

    def change_ends(self, interval: ConfidenceInterval) -> tuple[str, str]:
        """Such as `−0.35` and `6.10`, in percentage points."""
        return _minus(f"{PERCENT * interval.low:.2f}"), _minus(f"{PERCENT * interval.high:.2f}")


def three_significant(value: float) -> str:
    """Three significant digits without an exponent, and at most three decimals: 76.5, 5.70, 100, 0.012."""
    exponent = int(f"{value:.2e}".partition("e")[2]) if value else 0
    return _minus(f"{value:.{min(3, max(0, 2 - exponent))}f}")


def signed(value: float, digits: int) -> str:
    """A number with its sign; zero, also after rounding, has none."""
    text = f"{value:+.{digits}f}"
    return _minus(text if float(text) else text[1:])


def p_text(p: float | None) -> str:
    """A p-value with three decimals and no zero before the point, as the paper and AMA style write it.

    Examples are `.034`, `< .001` for all smaller values, and `1.00` for values that round to one.
    """
    if p is None:
        return NONE
    if p < 0.001:
        return "< .001"
    text = f"{p:.3f}"
    return "1.00" if text.startswith("1") else text.removeprefix("0")


def window_range(window: Window) -> str:
    """The ends of a window, such as `[−175, 275] HU`."""
    return str(window).replace("-", "−")


def _minus(text: str) -> str:
    """The typographic minus; none before a zero."""
    if text.startswith("-") and not float(text):
        return text[1:]
    return text.replace("-", "−")


@dataclass(frozen=True)
class Metric:
    """A metric of the tables.

    Args:
        column: Column in `cases.csv`.
        name: Name in a sentence.
        title: Heading in a table, with the unit.
        axis: Label of the axis in a figure, with the unit.
        notation: Notation of the values; `notation.scale` brings a value to the unit of title and axis.
        unit: Unit of a value, in a sentence; empty if it has none.
        change_unit: Unit of a change, in a sentence; empty if it has none.
        of_masks: Whether the metric compares segmentations: then the reference scan has a value, and an empty
            segmentation counts as 0.
        best: Best value, where both less and more are worse, such as 1 of a ratio; then changes and tests are
            of the distance from it, and a change below 0 is an improvement.
        optional: Whether a study may lack a value without a failure, such as one without a label map.
    """

    column: str
    name: str
    title: str
    axis: str
    notation: Notation
    unit: str = ""
    change_unit: str = ""
    of_masks: bool = False
    best: float | None = None
    optional: bool = False


PSNR = Metric("psnr_db", "PSNR", "PSNR (dB)", "PSNR (dB)", Decimals(2), "dB", "dB")
SSIM = Metric("ssim", "SSIM", "SSIM", "SSIM", Decimals(4))
DSC = Metric("dsc", "DSC", "DSC (%)", "Dice score (%)", Percent(), "%", "percentage points", of_masks=True)
NSD = Metric(
    "nsd",
    "NSD",
    "NSD (%)",
    "Normalized surface distance (%)",
    Percent(),
    "%",
    "percentage points",
    of_masks=True,
)

IMAGE_METRICS = (PSNR, SSIM)
"""The metrics of Table I that the package brings."""

SEGMENTATION_METRICS = (DSC, NSD)
"""The metrics of Table II, without the tolerance of NSD."""


def _structure(
    column: str, name: str, digits: int, unit: str = "", best: float | None = None, remark: str = ""
) -> Metric:
    title = f"{name} ({unit})" if unit else name
    remark = remark or ("1 = clean scan" if best == 1 else "less is better")
    return Metric(
        column, name, f"{title}, {remark}", title, Decimals(digits), unit, unit, best=best, optional=True
    )


STRUCTURE_METRICS = (
    _structure("body_rmse_hu", "RMSE in the body", 1, "HU"),
    _structure("organ_error_hu", "largest error of an organ's mean", 1, "HU"),
    _structure("edge_ratio", "edge gradient", 2, best=1.0),
    _structure("noise_ratio", "noise of flat tissue", 2, best=1.0),
    _structure("blobs_per_100_ml", "blobs in liver and spleen", 1, "per 100 mL"),
    _structure("portal_vein_kept", "contrast of the portal vein", 2, best=1.0),
    _structure("vena_cava_kept", "contrast of the vena cava", 2, best=1.0),
    _structure("aorta_kept", "contrast of the aorta", 2, best=1.0),
    _structure("liver_vessels_kept", "contrast of the liver's vessels", 2, best=1.0),
    _structure("small_lesions_kept", "contrast of liver lesions under 10 mm", 2, best=1.0),
    _structure("large_lesions_kept", "contrast of liver lesions from 10 mm", 2, best=1.0),
    _structure("inserted_12_mm_kept", "contrast of inserted lesions of 12 mm", 2, best=1.0),
    _structure("inserted_8_mm_kept", "contrast of inserted lesions of 8 mm", 2, best=1.0),
    _structure("inserted_6_mm_kept", "contrast of inserted lesions of 6 mm", 2, best=1.0),
    _structure("one_phase_12_mm_kept", "contrast of 12 mm lesions in one phase alone", 2, best=1.0),
    _structure("undegraded_rmse_hu", "RMSE in the body, undegraded input", 1, "HU"),
    _structure("undegraded_edge_ratio", "edge gradient, undegraded input", 2, best=1.0),
)
"""The metrics of the table of contrast and structure; `docs/evaluation.md` defines them."""


def image_quality_metrics() -> tuple[Metric, ...]:
    """The metrics of Table I: PSNR, SSIM, then those that were registered."""
    registered = (metric for metric in image_metrics() if metric.column not in (PSNR.column, SSIM.column))
    return *IMAGE_METRICS, *map(_registered, registered)


def _registered(metric: ImageMetric) -> Metric:
    title = f"{metric.name} ({metric.unit})" if metric.unit else metric.name
    notation = Decimals(metric.decimals)
    return Metric(metric.column, metric.name, title, title, notation, metric.unit, metric.unit)


def segmentation_metrics(tolerance_mm: float) -> tuple[Metric, ...]:
    """The metrics of Table II, with the tolerance of NSD in its title.

    Args:
        tolerance_mm: Tolerance of NSD in mm.
    """
    return DSC, replace(NSD, title=f"{NSD.title} at {tolerance_mm:g} mm")
