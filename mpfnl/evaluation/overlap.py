"""The second half of an evaluation: each method's scan is segmented and compared with the reference mask."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from mpfnl.data.manifest import Study
from mpfnl.errors import InputError, SegmentationError
from mpfnl.evaluation.cases import REFERENCE, Case
from mpfnl.evaluation.files import mask_file
from mpfnl.evaluation.masks import PANCREAS, Mask, mask_source, reference_mask
from mpfnl.inference.hounsfield import restore_hu
from mpfnl.metrics import dice, normalized_surface_distance
from mpfnl.phases import Phase
from mpfnl.segmentation.checks import check_scan
from mpfnl.segmentation.protocol import Segmenter
from mpfnl.volumes import Volume, read_mask, read_volume, write_volume
from mpfnl.window import Window


class Truth(StrEnum):
    """What a segmentation is compared with."""

    MASK = "mask"
    """The study's reference mask: the manifest's `pancreas`, or the structure in its `labels`."""

    REFERENCE_SCAN = "reference-scan"
    """What the same segmenter finds in the clean scan; for cohorts without masks."""


@dataclass(frozen=True)
class OverlapOptions:
    """How segmentations are compared.

    Args:
        structure: The structure.
        tolerance_mm: Of the normalized surface distance. The paper does not say its own; 3 mm is what
            TotalSegmentator was evaluated with (doi 10.1148/ryai.230024).
        truth: What they are compared with.

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
    """Segments scans of one cohort.

    Args:
        segmenter: Finds the structure.
        options: How masks are compared.
        target: The phase of the scans.
        clip_to: The window that the degradation clips scans to. There, before a scan is segmented, the clean
            scan's HU are put back where that truly lies outside the window (air, gas, bone), in all methods
            alike: a scan in which air has -175 HU is a product of the simulation, and nothing that a
            segmenter was made for. None leaves scans as they are.

    Raises:
        InputError: The segmenter does not find the structure.
    """

    segmenter: Segmenter
    options: OverlapOptions
    target: Phase
    clip_to: Window | None

    def __post_init__(self) -> None:
        if self.options.structure not in self.segmenter.structures:
            raise InputError(
                f"the segmenter finds {', '.join(self.segmenter.structures)}, not"
                f" {self.options.structure}; ask it for that structure"
            )

    def describe(self) -> dict[str, Any]:
        """What defines the results, as JSON values."""
        clip = self.clip_to
        outside = "as in the scan" if clip is None else "as in the clean scan, for every method"
        return asdict(self.options) | {"segmenter": self.segmenter.describe(), "outside_the_window": outside}

    def asked(self, study: Study) -> bool:
        """Whether there is something to compare a study's segmentations with."""
        if self.options.truth is Truth.REFERENCE_SCAN:
            return True
        return mask_source(study, self.options.structure, self.target) is not None

    def needed(self, case: Case, folder: Path) -> bool:
        """Whether a row's scan is still to be segmented: not tried yet, or without success."""
        if case.failure or not self._is_truth(case.method):
            return math.isnan(case.dsc)
        return not mask_file(folder, case.study_id, case.method, self.options.structure).is_file()

    def score(self, study: Study, case: Case, scan_path: Path | None, folder: Path) -> Case:
        """Segments a row's scan, writes the mask, and compares it with the reference mask.

        Args:
            study: The study.
            case: The row so far.
            scan_path: The scan of its method; None for the clean scan.
            folder: The evaluation folder.

        Returns:
            The row with DSC and NSD, or with its failure.
        """
        case = replace(case, failure="")
        written = mask_file(folder, case.study_id, case.method, self.options.structure)
        written.unlink(missing_ok=True)
        try:
            clean = read_volume(study.file(self.target), self.target)
            truth = self._truth(study, case.method, clean, folder)
            found = self._segment(clean if scan_path is None else read_volume(scan_path, self.target), clean)
        except (SegmentationError, InputError) as error:
            return replace(case, failure=str(error))
        written.parent.mkdir(parents=True, exist_ok=True)
        write_volume(written, found.astype(np.uint8), like=clean, dtype=np.dtype(np.uint8))
        return case if truth is None else self._compared(case, found, truth, clean)

    def _is_truth(self, method: str) -> bool:
        return method == REFERENCE and self.options.truth is Truth.REFERENCE_SCAN

    def _segment(self, scan: Volume, clean: Volume) -> Mask:
        check_scan(scan)
        if self.clip_to is not None and scan is not clean:
            unit = self.clip_to.normalize(scan.data.astype(np.float32))
            scan = replace(scan, data=restore_hu(clean.data, unit, self.clip_to))
        return np.asarray(self.segmenter.segment(scan)[self.options.structure])

    def _truth(self, study: Study, method: str, clean: Volume, folder: Path) -> Mask | None:
        """What the method's mask is compared with; None for what is itself the truth."""
        if self._is_truth(method):
            return None
        structure = self.options.structure
        if self.options.truth is Truth.MASK:
            truth = reference_mask(study, structure, clean, self.target)
        else:
            path = mask_file(folder, study.study_id, REFERENCE, structure)
            truth = read_mask(path, like=clean) if path.is_file() else None
        if truth is None:
            raise SegmentationError(f"{clean.name}: there is no reference mask of the {structure}")
        if not truth.any():
            raise SegmentationError(
                f"{clean.name}: its reference mask has no voxel of the {structure}: no score"
            )
        return truth

    def _compared(self, case: Case, found: Mask, truth: Mask, clean: Volume) -> Case:
        nsd = normalized_surface_distance(found, truth, clean.spacing, self.options.tolerance_mm)
        empty = f"empty: no voxel of the {self.options.structure} was found"
        return replace(case, dsc=dice(found, truth), nsd=nsd, failure="" if found.any() else empty)
