"""Phantom cohorts: multiphase abdominal CT studies made of mathematics, for trials without patients.

What is shown on them is no evidence about patients.
"""

from __future__ import annotations

from mpfnl.phantoms.cohort import SplitCounts, write_cohort
from mpfnl.phantoms.config import SMALL, THREE_MM, PhantomConfig
from mpfnl.phantoms.labels import LABELS
from mpfnl.phantoms.study import PhantomStudy, generate_study
from mpfnl.phantoms.vindr import write_vindr_cohort

__all__ = [
    "LABELS",
    "SMALL",
    "THREE_MM",
    "PhantomConfig",
    "PhantomStudy",
    "SplitCounts",
    "generate_study",
    "write_cohort",
    "write_vindr_cohort",
]
