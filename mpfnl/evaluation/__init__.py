"""Comparison of methods on a cohort: scores, tables, figures, the phase-leak check, a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.evaluation.pipeline import evaluate
    from mpfnl.evaluation.scoring import EvaluateOptions

__all__ = ["EvaluateOptions", "evaluate"]

_HOMES = {"evaluate": "mpfnl.evaluation.pipeline", "EvaluateOptions": "mpfnl.evaluation.scoring"}
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
