"""Overlap of segmentations: each method's scan is segmented and compared with the reference mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpfnl.data.manifest import Manifest, Study, mask_column
from mpfnl.errors import InputError, NotFoundError, OptionError, SegmentationError
from mpfnl.evaluation.cases import Case
from mpfnl.evaluation.folder import REFERENCE, mask_file
from mpfnl.inference.hounsfield import restore_hu
from mpfnl.metrics import dice, normalized_surface_distance
from mpfnl.phases import Phase
from mpfnl.segmentation.segmenter import Segmenter, check_scan
from mpfnl.segmentation.weights import class_numbers
from mpfnl.volumes import Volume, read_mask, read_volume, write_volume
from mpfnl.volumes.fileio import scan_name
from mpfnl.volumes.masks import held_labels, join_labels, split_labels
from mpfnl.window import Window

Mask: TypeAlias = NDArray[np.bool_]

PANCREAS, LABELS = "pancreas", "labels"
"""The masks of the manifest: of the pancreas, and a label map in TotalSegmentator's numbers."""


class Truth(StrEnum):
    """The mask that a segmentation is compared with."""

    MASK = "mask"
    """The study's reference mask: the manifest's `pancreas`, the structure in its `labels`, or a label that
    the manifest names (`FILE#LABEL`)."""

    REFERENCE_SCAN = "reference-scan"
    """The same segmenter's mask of the clean scan; for cohorts without masks."""

    @property
    def noun(self) -> str:
        """The mask in a sentence: `reference mask`."""
        return "reference mask" if self is Truth.MASK else "segmentation of the reference scan"


@dataclass(frozen=True)
class OverlapOptions:
    """Comparison of segmentations.

    Args:
        structure: Structure by TotalSegmentator's name.
        tolerance_mm: Tolerance of the normalized surface distance in mm. The paper does not state its
            tolerance; TotalSegmentator was evaluated with 3 mm (doi 10.1148/ryai.230024).
        truth: Masks that the segmentations are compared with.

    Raises:
        ValueError: The tolerance is negative or not finite.
    """

    structure: str = PANCREAS
    tolerance_mm: float = 3.0
    truth: Truth = Truth.MASK

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance_mm < math.inf:
            raise ValueError(f"the tolerance is {self.tolerance_mm} mm; it must be 0 or more, and finite")


@dataclass(frozen=True, eq=False)
class Segmentations:
    """Segmentation of the scans of one cohort, and its comparison with the reference masks.

    Args:
        segmenter: Segmenter of the structure.
        options: Comparison of the masks.
        target: Phase of the scans.
        clip_to: Window that the degradation clips scans to. Before a scan is segmented, the clean scan's HU
            replace its own where the clean scan lies outside this window (air, gas, bone), in all methods
            alike: air of -175 HU is a product of the simulation, which no segmenter was trained on. None
            leaves scans unchanged.

    Raises:
        OptionError: The segmenter does not find the structure.
    """

    segmenter: Segmenter
    options: OverlapOptions
    target: Phase
    clip_to: Window | None

    def __post_init__(self) -> None:
        if self.options.structure not in self.segmenter.structures:
            raise OptionError(
                f"the segmenter finds {', '.join(self.segmenter.structures)}, not"
                f" {self.options.structure}; make it with that structure"
            )

    def describe(self) -> dict[str, Any]:
        """Settings that define the results, as JSON values."""
        clip = self.clip_to
        outside = "as in the scan" if clip is None else "as in the clean scan, for every method"
        return asdict(self.options) | {"segmenter": self.segmenter.describe(), "outside_the_window": outside}

    def comparable(self, study: Study) -> bool:
        """Whether a study has a mask to compare its segmentations with."""
        if self.options.truth is Truth.REFERENCE_SCAN:
            return True
        return mask_source(study, self.options.structure, self.target) is not None

    def needed(self, case: Case, folder: Path) -> bool:
        """Whether a row's scan has not been segmented yet, or without success."""
        if case.failure or not self._is_truth(case.method):
            return math.isnan(case.dsc)
        return not mask_file(folder, case.study_id, case.method, self.options.structure).is_file()

    def score(self, study: Study, case: Case, scan_path: Path | None, folder: Path) -> Case:
        """Segments a row's scan, writes the mask, and compares it with the reference mask.

        Args:
            study: The study.
            case: The row so far.
            scan_path: Scan of its method; None for the clean scan.
            folder: The evaluation folder.

        Returns:
            The row with DSC and NSD, or with its failure.
        """
        case = replace(case, failure="")
        written = mask_file(folder, case.study_id, case.method, self.options.structure)
        written.unlink(missing_ok=True)
        try:
            clean = read_volume(study.file(self.target), self.target).canonical()
            truth = self._truth(study, case.method, clean, folder)
            scan = clean if scan_path is None else read_volume(scan_path, self.target).canonical()
            predicted = self._segment(scan, clean)
        except (SegmentationError, InputError) as error:
            return replace(case, failure=str(error))
        written.parent.mkdir(parents=True, exist_ok=True)
        write_volume(written, predicted.astype(np.uint8), like=clean, dtype=np.dtype(np.uint8))
        return case if truth is None else self._compared(case, predicted, truth, clean)

    def _is_truth(self, method: str) -> bool:
        return method == REFERENCE and self.options.truth is Truth.REFERENCE_SCAN

    def _segment(self, scan: Volume, clean: Volume) -> Mask:
        check_scan(scan)
        if self.clip_to is not None and scan is not clean:
            unit = self.clip_to.normalize(scan.data.astype(np.float32))
            scan = replace(scan, data=restore_hu(clean.data, unit, self.clip_to))
        return np.asarray(self.segmenter.segment(scan)[self.options.structure])

    def _truth(self, study: Study, method: str, clean: Volume, folder: Path) -> Mask | None:
        """The mask that the method's is compared with; None for the truth itself."""
        if self._is_truth(method):
            return None
        structure = self.options.structure
        labels: tuple[int, ...] = ()
        if self.options.truth is Truth.MASK:
            source, labels = _source(study, structure, self.target)
        else:
            path = mask_file(folder, study.study_id, REFERENCE, structure)
            source = path if path.is_file() else None
        if source is None:
            raise SegmentationError(f"{clean.name}: has no reference mask of the {structure}")
        truth = read_mask(source, like=clean, label=labels or None)
        if not truth.any():
            wanted = f" (label {' and '.join(str(label) for label in labels)})" if labels else ""
            raise SegmentationError(
                f"{scan_name(source, self.target)}: the reference mask has no voxel of the"
                f" {structure}{wanted}; the file holds values {held_labels(source)}"
            )
        return truth

    def _compared(self, case: Case, predicted: Mask, truth: Mask, clean: Volume) -> Case:
        nsd = normalized_surface_distance(predicted, truth, clean.spacing, self.options.tolerance_mm)
        empty = f"empty: no voxel of the {self.options.structure} was found"
        return replace(case, dsc=dice(predicted, truth), nsd=nsd, failure="" if predicted.any() else empty)


def name_labels(manifest: Manifest, structure: str, labels: Sequence[int]) -> Manifest:
    """The same cohort with the labels of a structure named behind its reference masks: `FILE#LABEL`.

    Args:
        manifest: The cohort.
        structure: Structure by TotalSegmentator's name.
        labels: Labels that make up the structure in the files; a file that names labels itself keeps them.

    Raises:
        OptionError: A label is below 1.
    """
    if any(label < 1 for label in labels):
        raise OptionError(f"label {min(labels)}: labels are 1 or more; 0 is the background")

    def named(study: Study) -> Study:
        columns = {_source_column(study, structure, phase) for phase in study.phases}
        masks = {
            column: join_labels(path, labels) if column in columns and not split_labels(path)[1] else path
            for column, path in study.masks.items()
        }
        return replace(study, masks=masks)

    return replace(manifest, studies=tuple(named(study) for study in manifest))


def mask_source(study: Study, structure: str, target: Phase) -> Path | None:
    """The file that may hold the reference mask of a structure; None if the manifest names none.

    Args:
        study: The study.
        structure: Structure by TotalSegmentator's name.
        target: Phase of the mask's grid.
    """
    return study.masks.get(_source_column(study, structure, target))


def _source_column(study: Study, structure: str, target: Phase) -> str:
    """The manifest column of the file that may hold the reference mask of a structure."""
    own = mask_column(PANCREAS, target)
    return own if structure == PANCREAS and own in study.masks else mask_column(LABELS, target)


def reference_mask(study: Study, structure: str, like: Volume, target: Phase) -> Mask | None:
    """The reference mask of a structure; None if the manifest names none.

    Args:
        study: The study.
        structure: Structure by TotalSegmentator's name.
        like: Scan on whose grid the mask lies.
        target: Phase of that scan.

    Raises:
        NotFoundError: TotalSegmentator's label map has no such structure.
        InputError: The file cannot be used.
        MissingExtraError: A label map is to be read, and TotalSegmentator is not installed.
    """
    path, labels = _source(study, structure, target)
    return None if path is None else read_mask(path, like=like, label=labels or None)


def _source(study: Study, structure: str, target: Phase) -> tuple[Path | None, tuple[int, ...]]:
    """The file of the reference mask, and the labels of the structure in it; none for a mask of 0 and 1."""
    path = mask_source(study, structure, target)
    if path is None:
        return None, ()
    file, labels = split_labels(path)
    if labels or _source_column(study, structure, target) == mask_column(PANCREAS, target):
        return file, labels
    numbers = class_numbers("total")
    if structure not in numbers:
        raise NotFoundError(f"{path}: TotalSegmentator's label map has no {structure}")
    return file, (numbers[structure],)
