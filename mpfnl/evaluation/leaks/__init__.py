"""Whether contrast of one phase shows in the enhanced scan of another: the check, and the swap test."""

from mpfnl.evaluation.leaks.check import LEAK_TABLE, ORGANS, Masks, check_phase_leak, read_organs
from mpfnl.evaluation.leaks.swap import BODY, SwapRow, swap_test
from mpfnl.evaluation.leaks.swap_table import SWAP_TABLE, SwapCase, mean_over_studies, swap_studies
from mpfnl.evaluation.leaks.table import (
    LeakRow,
    LeakSummary,
    leak_warnings,
    summarize_leaks,
    unchecked,
    write_leak_table,
)

__all__ = [
    "BODY",
    "LEAK_TABLE",
    "ORGANS",
    "SWAP_TABLE",
    "LeakRow",
    "LeakSummary",
    "Masks",
    "SwapCase",
    "SwapRow",
    "check_phase_leak",
    "leak_warnings",
    "mean_over_studies",
    "read_organs",
    "summarize_leaks",
    "swap_studies",
    "swap_test",
    "unchecked",
    "write_leak_table",
]
