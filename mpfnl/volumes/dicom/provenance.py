"""The provenance of a derived series: model, weights, source images, and lossy compression of the source."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydicom.dataset import Dataset, FileDataset
from pydicom.sequence import Sequence
from pydicom.valuerep import format_number_as_ds

from mpfnl.phases import Phase
from mpfnl.volumes.dicom.attributes import equipment_attributes
from mpfnl.volumes.dicom.source import SourceSlice

RESEARCH_ONLY = "Research only; not for diagnosis."

_LABEL = "(research only)"
_LONG_STRING = 64  # characters of an LO
_SHORT_TEXT = 1024  # characters of an ST
_LONGEST_MODEL = 16
_SHOWN_DIGEST = 16

_PROCESSED_BY_AI = ("123110", "Artificial Intelligence")
"""Of PS3.16, annex D. CID 7203, image derivation, may be extended and has no word for enhancement by a
network: its nearest, "Smoothing" and "Edge enhancement", would each be half of the truth."""

_LOSSY_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
"""The transfer syntaxes that may lose something, and the names of their methods."""

_SOURCE_IMAGE = ("121322", "Source image for image processing operation")
_ACQUISITION_EQUIPMENT = ("109101", "Acquisition Equipment")
_PROCESSING_EQUIPMENT = ("109102", "Processing Equipment")


@dataclass(frozen=True)
class Derivation:
    """The derivation of an enhanced scan.

    Args:
        model: The model's name, e.g. PFNL3D.
        weights: The SHA-256 of its weights in hexadecimal digits.
        version: The version of mpfnl.
        phases: The phases that went in.
        description: Description of the processing, in one line.
    """

    model: str
    weights: str
    version: str
    phases: tuple[Phase, ...]
    description: str = "Enhanced by a neural network"

    def identity(self) -> tuple[str, ...]:
        """All fields as texts, for identifiers that must differ where a field does."""
        return (self.model, self.weights, self.version, *self.phases, self.description)


def describe_series(data: Dataset, about: Derivation, source: Dataset) -> None:
    """Adds the elements that are the same in all slices: equipment, derivation, series description.

    Args:
        data: The derived slices' common part.
        about: Derivation: model, weights, version and phases.
        source: The header of one of the source's slices.
    """
    model = _plain(about.model, _LONGEST_MODEL)
    data.SeriesDescription = _series_description(str(source.get("SeriesDescription") or ""), model)
    data.Manufacturer = "mpfnl"
    data.ManufacturerModelName = _plain(about.model, _LONG_STRING)
    data.SoftwareVersions = _software(about)
    data.DerivationDescription = _description(about)
    data.DerivationCodeSequence = Sequence([_code(_PROCESSED_BY_AI)])
    data.ImageComments = RESEARCH_ONLY
    data.ContentQualification = "RESEARCH"
    data.BurnedInAnnotation = "YES" if source.get("BurnedInAnnotation") == "YES" else "NO"


def contributing_equipment(about: Derivation, source: Dataset, when: datetime) -> Sequence:
    """The equipment that the source names, the scanner that made it, and mpfnl.

    Args:
        about: Derivation: model, weights, version and phases.
        source: The header of one of the source's slices.
        when: Time of making.
    """
    items = list(source.get("ContributingEquipmentSequence") or [])
    for item in items:
        item.remove_private_tags()
    if not any(_purpose(item) == _ACQUISITION_EQUIPMENT[0] for item in items):
        scanner = equipment_attributes(source)
        if not scanner.get("Manufacturer"):
            scanner.Manufacturer = "unknown"  # type 1
        scanner.PurposeOfReferenceCodeSequence = Sequence([_code(_ACQUISITION_EQUIPMENT)])
        items.append(scanner)
    network = Dataset()
    network.PurposeOfReferenceCodeSequence = Sequence([_code(_PROCESSING_EQUIPMENT)])
    network.Manufacturer = "mpfnl"
    network.ManufacturerModelName = _plain(about.model, _LONG_STRING)
    network.SoftwareVersions = _software(about)
    network.ContributionDateTime = when.strftime("%Y%m%d%H%M%S")
    network.ContributionDescription = _description(about)
    return Sequence([*items, network])


def source_image(source: SourceSlice) -> Sequence:
    """The reference of a derived slice to the slice of the source that it stands for.

    Args:
        source: The slice.
    """
    item = Dataset()
    item.ReferencedSOPClassUID = source.sop_class
    item.ReferencedSOPInstanceUID = source.sop_instance
    item.SpatialLocationsPreserved = "YES"
    item.PurposeOfReferenceCodeSequence = Sequence([_code(_SOURCE_IMAGE)])
    return Sequence([item])


def carry_lossy(data: Dataset, source: FileDataset) -> None:
    """Records in a derived slice whether its source ever went through lossy compression.

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


def _series_description(source: str, model: str) -> str:
    ending = f"mpfnl {model} {_LABEL}"
    beginning = source.strip().removesuffix(_LABEL)[: _LONG_STRING - len(ending) - 1].strip()
    return f"{beginning} {ending}".strip()


def _description(about: Derivation) -> str:
    phases = ", ".join(phase.replace("_", " ") for phase in about.phases)
    ending = (
        f"; model {_plain(about.model, _LONG_STRING)}, weights SHA-256 {_plain(about.weights, _LONG_STRING)},"
        f" mpfnl {_plain(about.version, _LONG_STRING)}; phases: {phases}. {RESEARCH_ONLY}"
    )
    return _plain(about.description.rstrip(" ."), _SHORT_TEXT - len(ending)) + ending


def _software(about: Derivation) -> list[str]:
    digest = _plain(about.weights, _SHOWN_DIGEST)
    return [_plain(f"mpfnl {about.version}", _LONG_STRING), f"weights {digest}"]


def _plain(text: str, length: int) -> str:
    """Text that any character set and value representation holds: ASCII on one line, without a backslash."""
    letters = (letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
    return "".join(letters).replace("\\", "/")[:length].strip()


def _code(code: tuple[str, str]) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodeMeaning = code
    item.CodingSchemeDesignator = "DCM"
    return item


def _purpose(item: Dataset) -> str:
    codes: Iterable[Dataset] = item.get("PurposeOfReferenceCodeSequence") or []
    return next((str(code.get("CodeValue")) for code in codes), "")


def _ratio(source: FileDataset) -> str:
    """About how much smaller the pixels became: what they would take, over what the file takes."""
    pixels = int(source.Rows) * int(source.Columns) * 2
    return format_number_as_ds(round(pixels / max(1, os.path.getsize(str(source.filename))), 2))
