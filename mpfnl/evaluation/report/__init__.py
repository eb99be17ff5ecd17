"""The report: one HTML file that a clinician can read, and that holds everything it shows."""

from mpfnl.evaluation.report.contents import LeakSection, Picture, ReportContents, TextTable
from mpfnl.evaluation.report.leaks import leak_table, swap_table
from mpfnl.evaluation.report.methods import method_lines
from mpfnl.evaluation.report.page import REPORT, render_report, write_report

__all__ = [
    "REPORT",
    "LeakSection",
    "Picture",
    "ReportContents",
    "TextTable",
    "leak_table",
    "method_lines",
    "render_report",
    "swap_table",
    "write_report",
]
