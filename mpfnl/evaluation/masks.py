"""The reference masks of a study: which column of the manifest holds them, and reading them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mpfnl.data.manifest import MASKS, Study, mask_column
from mpfnl.errors import InputError
from mpfnl.phases import Phase
from mpfnl.segmentation.weights import class_numbers
from mpfnl.volumes import Volume, read_mask

Mask: TypeAlias = NDArray[np.bool_]

PANCREAS, LABELS = MASKS


def mask_source(study: Study, structure: str, target: Phase) -> Path | None:
    """The file that may hold the reference mask of a structure; None if the manifest names none.

    Args:
        study: The study.
        structure: By TotalSegmentator's name.
        target: The phase on which it must lie.
    """
    own = study.masks.get(mask_column(PANCREAS, target)) if structure == PANCREAS else None
    return own or study.masks.get(mask_column(LABELS, target))


def reference_mask(study: Study, structure: str, like: Volume, target: Phase) -> Mask | None:
    """The reference mask of a structure; None if the manifest names none.

    Args:
        study: The study.
        structure: By TotalSegmentator's name.
        like: The scan on whose grid it must lie.
        target: That scan's phase.

    Raises:
        InputError: The file cannot be used, or TotalSegmentator has no such structure.
        MissingExtraError: A label map is to be read, and TotalSegmentator is not installed.
    """
    path = mask_source(study, structure, target)
    if path is None:
        return None
    if structure == PANCREAS and path == study.masks.get(mask_column(PANCREAS, target)):
        return read_mask(path, like=like)
    numbers = class_numbers("total")
    if structure not in numbers:
        raise InputError(f"{path}: TotalSegmentator's label map has no {structure}")
    return read_mask(path, like=like, label=numbers[structure])
