"""The manifest: a CSV with one row a study, its patient, its split and the files of its phases."""

from mpfnl.data.manifest.study import Manifest, Quality, Split, Study
from mpfnl.data.manifest.table import COLUMNS, REQUIRED, read_manifest, write_manifest

__all__ = [
    "COLUMNS",
    "REQUIRED",
    "Manifest",
    "Quality",
    "Split",
    "Study",
    "read_manifest",
    "write_manifest",
]
