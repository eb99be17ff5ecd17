"""Public datasets as they are downloaded, and the manifest made of them."""

from mpfnl.datasets.found import Exclusion, FoundCohort, Pick, check_table, write_found
from mpfnl.datasets.splits import split_patients
from mpfnl.datasets.vindr import find_vindr
from mpfnl.datasets.waw_tace import find_waw_tace

__all__ = [
    "Exclusion",
    "FoundCohort",
    "Pick",
    "check_table",
    "find_vindr",
    "find_waw_tace",
    "split_patients",
    "write_found",
]
