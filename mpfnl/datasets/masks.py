"""Masks that the user has beside a dataset: one folder a scan, as TotalSegmentator leaves them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mpfnl.data.manifest import MASKS, mask_column
from mpfnl.datasets.found import Entry
from mpfnl.errors import InputError
from mpfnl.phases import Phase


def find_masks(folder: Path | None, scans: Mapping[Phase, str]) -> dict[str, Path]:
    """The masks of a study that are there, by the manifest's column.

    Args:
        folder: The folder with one folder a scan; None where the user has none.
        scans: The name of each phase's scan.
    """
    if folder is None:
        return {}
    named = {
        mask_column(mask, phase): folder / scan / f"{mask}.nii.gz"
        for phase, scan in scans.items()
        for mask in MASKS
    }
    return {column: path for column, path in named.items() if path.is_file()}


def check_masks(folder: Path | None, entries: Iterable[Entry], scan: str) -> None:
    """Refuses a folder of masks that fits no study.

    Args:
        folder: The folder; None where the user has none.
        entries: The studies.
        scan: How a scan's folder is called, for the message.

    Raises:
        InputError: There is no mask of any study in it.
    """
    if folder is not None and not any(entry.masks for entry in entries):
        raise InputError(f"{folder}: holds no {scan}/pancreas.nii.gz of any study; check --masks")
