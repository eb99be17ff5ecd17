"""Lossy compression that a slice went through once: said ever after (DICOM PS3.3, C.7.6.1.1.5)."""

from __future__ import annotations

import os

from pydicom.dataset import Dataset, FileDataset
from pydicom.valuerep import format_number_as_ds

_LOSSY_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
"""The transfer syntaxes that may lose something, and the names of their methods."""


def carry_lossy(data: Dataset, source: FileDataset) -> None:
    """Says in a derived slice whether its source was ever compressed with a loss.

    A source that is packed in a way that may lose something counts as lossy unless it says that it is not.

    Args:
        data: The derived slice, to which the source's own words were copied.
        source: The source slice's header.
    """
    said = str(data.get("LossyImageCompression") or "").strip()
    method = _LOSSY_METHODS.get(str(source.file_meta.get("TransferSyntaxUID") or ""))
    if said != "01" and (method is None or said == "00"):
        return
    data.LossyImageCompression = "01"
    if not data.get("LossyImageCompressionMethod") and method is not None:
        data.LossyImageCompressionMethod = method
    if not data.get("LossyImageCompressionRatio") and method is not None:
        data.LossyImageCompressionRatio = _ratio(source)


def _ratio(source: FileDataset) -> str:
    """About how much smaller the pixels became: what they would take, over what the file takes."""
    pixels = int(source.Rows) * int(source.Columns) * 2
    return format_number_as_ds(round(pixels / max(1, os.path.getsize(str(source.filename))), 2))
