"""Public datasets as they are downloaded, and the manifest made of them."""

from mpfnl.data.adapters.found import Exclusion, FoundCohort, Pick, check_table, write_found
from mpfnl.data.adapters.splits import split_patients
from mpfnl.data.adapters.vindr import find_vindr
from mpfnl.data.adapters.waw_tace import find_waw_tace

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
