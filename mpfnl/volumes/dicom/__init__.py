"""DICOM folders: from the slices as they come to one scan in HU, or a refusal that says why not."""

from mpfnl.volumes.dicom.reading import read_series, series_files
from mpfnl.volumes.dicom.series import split_selector

__all__ = ["read_series", "series_files", "split_selector"]
