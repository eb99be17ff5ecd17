"""The image metrics by name, in the order of the evaluation's tables. A metric of one's own joins them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from mpfnl.errors import ConflictError, OptionError
from mpfnl.metrics.image import psnr, ssim

ImageFunction: TypeAlias = Callable[[Tensor, Tensor], Tensor | float]
"""Enhanced scan and reference, each `(1, 1, x, y, z)` in [0, 1], to one number."""


@dataclass(frozen=True)
class ImageMetric:
    """An image metric as the evaluation knows it.

    Args:
        name: Name in tables and figures, such as `PSNR`.
        column: Column in `cases.csv`, such as `psnr_db`.
        function: Function that computes the metric.
        unit: Unit of the metric; empty if it has none.
        decimals: Decimals in tables.
        higher_is_better: Whether a larger value is a better one.
    """

    name: str
    column: str
    function: ImageFunction
    unit: str = ""
    decimals: int = 4
    higher_is_better: bool = True

    def __call__(self, enhanced: Tensor, reference: Tensor) -> float:
        """The metric of one enhanced scan.

        Args:
            enhanced: `(1, 1, x, y, z)`, windowed to [0, 1].
            reference: The clean scan, the same shape.
        """
        return float(self.function(enhanced, reference))


_METRICS: dict[str, ImageMetric] = {}
_BUILT_IN = ("psnr_db", "ssim")
_RESERVED = (
    *("study_id", "patient_id", "method", "dsc", "nsd", "failure"),
    *("body_rmse_hu", "organ_error_hu", "edge_ratio", "noise_ratio", "blobs_per_100_ml", "portal_vein_kept"),
    *("vena_cava_kept", "aorta_kept", "liver_vessels_kept", "small_lesions_kept", "large_lesions_kept"),
    *("inserted_12_mm_kept", "inserted_8_mm_kept", "inserted_6_mm_kept", "one_phase_12_mm_kept"),
    *("undegraded_rmse_hu", "undegraded_edge_ratio"),
)
"""The other columns of `cases.csv`."""


def register_metric(
    name: str,
    function: ImageFunction,
    *,
    unit: str = "",
    decimals: int = 4,
    higher_is_better: bool = True,
) -> ImageMetric:
    """Adds an image metric to those that an evaluation computes.

    A torchmetrics class is registered by a function that calls it: `lambda a, b: MyMetric()(a, b)`.
    A second registration under the same name replaces the first; PSNR and SSIM cannot be replaced.

    Args:
        name: Name in tables and figures. Its column in `cases.csv` is the name and the unit in lower case.
        function: Function of the enhanced scan and the reference, two float tensors `(1, 1, x, y, z)`
            windowed to [0, 1]; it returns a number or a tensor of one element.
        unit: Unit of the metric.
        decimals: Decimals in tables.
        higher_is_better: Whether a larger value is a better one.

    Returns:
        The registered metric, which is called as the function is.

    Raises:
        OptionError: If the name holds no letter or digit.
        ConflictError: If the column belongs to PSNR, SSIM, another metric or the evaluation itself.

    >>> import torch
    >>> mae = register_metric("MAE", lambda a, b: (a - b).abs().mean(), higher_is_better=False)
    >>> mae(torch.full((1, 1, 2, 2, 2), 0.75), torch.full((1, 1, 2, 2, 2), 0.5))
    0.25
    >>> [metric.column for metric in image_metrics()]
    ['psnr_db', 'ssim', 'mae']
    >>> unregister_metric("MAE")
    """
    column = _column(name, unit)
    if not column:
        raise OptionError(f"metric {name!r}: a metric's name needs a letter or a digit")
    if column in _RESERVED:
        raise ConflictError(f"metric {name!r}: the evaluation has a column {column}; choose another name")
    taken = next((metric for metric in _METRICS.values() if metric.column == column), None)
    if taken is not None and (column in _BUILT_IN or taken.name != name):
        raise ConflictError(
            f"metric {name!r}: its column {column} is that of {taken.name}; choose another name"
        )
    metric = ImageMetric(name, column, function, unit, decimals, higher_is_better)
    _METRICS[name] = metric
    return metric


def unregister_metric(name: str) -> None:
    """Removes a metric that `register_metric` added.

    Args:
        name: Name of the metric.

    Raises:
        OptionError: If there is no such metric, or it is PSNR or SSIM.
    """
    if name not in _METRICS or _METRICS[name].column in _BUILT_IN:
        added = ", ".join(metric.name for metric in image_metrics()[len(_BUILT_IN) :]) or "none"
        raise OptionError(f"metric {name!r}: not among the metrics that were added: {added}")
    del _METRICS[name]


def image_metrics() -> tuple[ImageMetric, ...]:
    """All image metrics: PSNR, SSIM, then those that were added, in order of registration.

    >>> [(metric.name, metric.unit) for metric in image_metrics()]
    [('PSNR', 'dB'), ('SSIM', '')]
    """
    return tuple(_METRICS.values())


def _column(name: str, unit: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", f"{name} {unit}".lower()).strip("_")


register_metric("PSNR", psnr, unit="dB", decimals=2)
register_metric("SSIM", ssim)
