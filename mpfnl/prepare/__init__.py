"""Preparation: from a raw manifest to a registered, cropped and checked cohort.

The names load when they are first used: a worker process imports this package before its libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpfnl.lazy import all_names, lazy_names

if TYPE_CHECKING:
    from mpfnl.prepare.cohort import prepare_cohort
    from mpfnl.prepare.settings import PrepareSettings

__all__ = ["PrepareSettings", "prepare_cohort"]

_HOMES = {
    "PrepareSettings": "mpfnl.prepare.settings",
    "prepare_cohort": "mpfnl.prepare.cohort",
}
__getattr__ = lazy_names(__name__, _HOMES)
__dir__ = all_names(__name__, _HOMES)
