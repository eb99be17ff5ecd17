"""The manifest: a CSV with one row a study, its patient, its split and the files of its phases."""

from mpfnl.data.manifest.splits import SplitCounts, split_patients
from mpfnl.data.manifest.study import (
    MASK_COLUMNS,
    MASKS,
    Manifest,
    Quality,
    Split,
    Study,
    holds_phantoms,
    mask_column,
    mask_phase,
)
from mpfnl.data.manifest.table import COLUMNS, REQUIRED, read_manifest, write_manifest

__all__ = [
    "COLUMNS",
    "MASKS",
    "MASK_COLUMNS",
    "REQUIRED",
    "Manifest",
    "Quality",
    "Split",
    "SplitCounts",
    "Study",
    "holds_phantoms",
    "mask_column",
    "mask_phase",
    "read_manifest",
    "split_patients",
    "write_manifest",
]
