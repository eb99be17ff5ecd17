"""Tables I and II: image quality and segmentation by method, with intervals and paired tests."""

from mpfnl.evaluation.cases import BASELINE, REFERENCE
from mpfnl.evaluation.tables.metric import (
    DSC,
    IMAGE_METRICS,
    NSD,
    PSNR,
    SEGMENTATION_METRICS,
    SSIM,
    Metric,
    segmentation_metrics,
)
from mpfnl.evaluation.tables.notation import Decimals, Notation, Percent, p_text, signed
from mpfnl.evaluation.tables.printing import (
    COMPARISON_COLUMNS,
    cells,
    columns,
    comparison_cells,
    rich_table,
    table_console,
    table_notes,
)
from mpfnl.evaluation.tables.summary import write_summary
from mpfnl.evaluation.tables.tabulate import MetricTable, tabulate, tabulate_image_quality, tabulate_overlap

__all__ = [
    "BASELINE",
    "COMPARISON_COLUMNS",
    "DSC",
    "IMAGE_METRICS",
    "NSD",
    "PSNR",
    "REFERENCE",
    "SEGMENTATION_METRICS",
    "SSIM",
    "Decimals",
    "Metric",
    "MetricTable",
    "Notation",
    "Percent",
    "cells",
    "columns",
    "comparison_cells",
    "p_text",
    "rich_table",
    "segmentation_metrics",
    "signed",
    "table_console",
    "table_notes",
    "tabulate",
    "tabulate_image_quality",
    "tabulate_overlap",
    "write_summary",
]
