"""The metrics of the tables."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mpfnl.evaluation.tables.notation import Decimals, Notation, Percent


@dataclass(frozen=True)
class Metric:
    """A metric of the tables.

    Args:
        column: Its column in `cases.csv`.
        name: What it is called in a sentence.
        title: As it heads its part of a table, with its unit.
        notation: How its values are written; `notation.scale` brings a value to the title's unit.
        unit: The unit of a value, in a sentence; empty if it has none.
        change_unit: The unit of a change, in a sentence; empty if it has none.
        of_masks: It is about a segmentation: it has a value for the reference scan, and one of 0 where
            the segmenter found nothing.
    """

    column: str
    name: str
    title: str
    notation: Notation
    unit: str = ""
    change_unit: str = ""
    of_masks: bool = False


PSNR = Metric("psnr_db", "PSNR", "PSNR (dB)", Decimals(2), "dB", "dB")
SSIM = Metric("ssim", "SSIM", "SSIM", Decimals(4))
DSC = Metric("dsc", "DSC", "DSC (%)", Percent(), "%", "percentage points", of_masks=True)
NSD = Metric("nsd", "NSD", "NSD (%)", Percent(), "%", "percentage points", of_masks=True)

IMAGE_METRICS = (PSNR, SSIM)
"""Table I."""

SEGMENTATION_METRICS = (DSC, NSD)
"""Table II, with NSD at whatever tolerance."""


def segmentation_metrics(tolerance_mm: float) -> tuple[Metric, ...]:
    """Table II, with the tolerance of NSD in its title.

    Args:
        tolerance_mm: In mm.
    """
    return DSC, replace(NSD, title=f"{NSD.title} at {tolerance_mm:g} mm")
