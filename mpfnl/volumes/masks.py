"""Masks and label maps in memory, and the labels that a path names: `FILE#LABEL`."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import FormatError, IntensityError
from mpfnl.phases import Phase
from mpfnl.volumes.fileio import check_file, scan_name
from mpfnl.volumes.grid import OnGrid, check_same_grid
from mpfnl.volumes.intensity import Voxels
from mpfnl.volumes.scan import load_values, open_values, scan_exists
from mpfnl.volumes.volume import Volume

LABEL_ROUNDING = 1 / 510
"""Largest deviation of a label from its whole number: half a step of a mask that was scaled to 8 bits. Slopes
in float32 and values in float16 round by less."""

WHITE = 255
"""The value by which programs for pictures store 1."""

MOST_NAMED = 8
"""Number of labels that a message lists."""


def split_labels(path: str | Path) -> tuple[Path, tuple[int, ...]]:
    """A path and the labels that it names: `FILE#2`, or `FILE#1+2` for two labels taken together.

    Args:
        path: A path as it was given. One that exists names itself, whatever is in it; the `#UID` behind a
            folder names a DICOM series.

    Returns:
        The file and its labels; the path and no labels if it names none.

    >>> split_labels("pancreas.nii.gz#1+2")
    (PosixPath('pancreas.nii.gz'), (1, 2))
    """
    match = re.fullmatch(r"(.+)#(\d+(?:\+\d+)*)", str(path))
    if match is None or os.path.lexists(path) or os.path.isdir(match[1]):
        return Path(path), ()
    return Path(match[1]), tuple(int(label) for label in match[2].split("+"))


def join_labels(path: str | Path, labels: Iterable[int]) -> Path:
    """A path with the labels that it names; the inverse of `split_labels`.

    Args:
        path: A mask's file.
        labels: Labels to take together; none returns the path.

    >>> join_labels("pancreas.nii.gz", [1, 2]).name
    'pancreas.nii.gz#1+2'
    """
    named = "+".join(str(label) for label in labels)
    return Path(f"{path}#{named}") if named else Path(path)


def mask_exists(path: str | Path) -> bool:
    """Whether the file of a mask exists, without reading it.

    Args:
        path: A file, or `FILE#LABEL`.
    """
    return scan_exists(split_labels(path)[0])


def read_mask(
    path: str | Path, like: OnGrid | None = None, label: int | Sequence[int] | None = None
) -> NDArray[np.bool_]:
    """Reads a mask, or labels of a label map.

    Args:
        path: A NIfTI, NRRD or MetaImage file; or `FILE#LABEL` (`FILE#1+2` for two labels taken together).
        like: Scan on whose grid the mask must lie, in whatever order of axes; unchecked if None.
        label: Label to take, or several to take together; if None and the path names none, the file may hold
            0 and 1, or 0 and 255, only. In a file of 0 and 255, the label 1 is 255.

    Returns:
        True where the structure is, (x, y, z) in the order of `like`. A label that does not occur gives an
        empty mask.

    Raises:
        InputError: The same errors as from `read_volume`, except that the values need not be HU; or another
            grid, values that are negative or not whole numbers, or other labels than 0 and 1 where none is
            named.

    >>> from tempfile import TemporaryDirectory
    >>> from mpfnl.volumes import write_volume
    >>> labels = Volume.from_array(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), np.eye(4))
    >>> with TemporaryDirectory() as folder:
    ...     write_volume(f"{folder}/labels.nii.gz", labels.data, like=labels)
    ...     one = read_mask(f"{folder}/labels.nii.gz", like=labels, label=7)
    ...     two = read_mask(f"{folder}/labels.nii.gz#7+8", like=labels)
    >>> int(one.sum()), int(two.sum())
    (1, 2)
    """
    file, named = split_labels(path)
    labels = _read_values(file, None)
    if like is not None:
        labels = labels.turned_like(like.grid)
        check_same_grid(like, [labels])
    if label is not None:
        named = (label,) if isinstance(label, int | np.integer) else tuple(label)
    data = _whole(labels)
    _check_range(labels, data, math.inf)
    if named:
        return _chosen(data, named)
    mask = np.asarray(data != 0)
    values = data[mask]
    if values.size and not ((values == values[0]).all() and values[0] in (1, WHITE)):
        raise IntensityError(
            f"{labels.name}: a mask holds 0 and 1 (or 0 and 255), this one holds values {_range(data)}; name"
            f" the label to take behind the file, as in {file.name}#{int(values.min())}"
        )
    return mask


def held_labels(path: str | Path) -> str:
    """The values of a label map, as a message names them.

    Args:
        path: A file, or `FILE#LABEL`.

    Raises:
        InputError: The same errors as from `read_mask`.
    """
    return _range(_whole(_read_values(split_labels(path)[0], None)))


def read_label_volume(path: str | Path, phase: Phase | None = None) -> Volume:
    """Reads a whole label map.

    Args:
        path: A NIfTI, NRRD or MetaImage file; with `FILE#LABEL` that label becomes 1, and all else 0.
        phase: Phase on which it lies, named in messages.

    Returns:
        The labels as uint8, or uint16 where one is above 255, with their grid.

    Raises:
        InputError: The same errors as from `read_mask`; or a value is not a whole number from 0 to 65535.
    """
    file, named = split_labels(path)
    labels = _read_values(file, phase)
    data = _whole(labels)
    _check_range(labels, data, math.inf)
    if named:
        data = _chosen(data, named)
    _check_range(labels, data, np.iinfo(np.uint16).max)
    whole = data.astype(np.uint8 if data.max() <= np.iinfo(np.uint8).max else np.uint16)
    return Volume(whole, labels.grid, labels.path, phase)


def _whole(labels: Volume) -> Voxels:
    """The labels without the rounding of a slope or a conversion."""
    data = labels.data
    if data.dtype.kind != "f":
        return data
    whole = np.rint(data)
    off = np.abs(data - whole) > LABEL_ROUNDING
    if off.any():
        raise IntensityError(
            f"{labels.name}: labels are whole numbers from 0 to 65535, and {int(off.sum())} of its voxels are"
            f" none, such as {float(data[off][0]):.4g} (probabilities, or labels that were interpolated);"
            " resample labels by the nearest neighbour, or threshold them"
        )
    return whole


def _chosen(data: Voxels, named: Sequence[int]) -> NDArray[np.bool_]:
    """Where the labels are; 1 also stands for 255 in a mask of 0 and 255."""
    chosen = np.isin(data, named)
    if 1 in named and not chosen.any() and bool(np.isin(data, (0, WHITE)).all()):
        return np.asarray(data == WHITE)
    return chosen


def _check_range(labels: Volume, data: Voxels, most: float) -> None:
    """Refuses a scan in place of labels, and labels that are too large."""
    if data.min() < 0 or data.max() > most:
        raise IntensityError(
            f"{labels.name}: a label map holds whole numbers from 0 to 65535, this one holds values"
            f" {_range(data)}; give a mask or a label map"
        )


def _range(labels: Voxels) -> str:
    """The labels in a message: their range, and each of a few."""
    distinct = [f"{label:g}" for label in np.unique(labels)]
    listed = f" ({', '.join(distinct)})" if len(distinct) <= MOST_NAMED else ""
    return f"from {distinct[0]} to {distinct[-1]}{listed}"


def _read_values(path: Path, phase: Phase | None) -> Volume:
    """The values of a file, not checked to be HU."""
    name = scan_name(path, phase)
    if os.path.isdir(path):
        raise FormatError(f"{name}: is a folder, and masks are files; give a NIfTI, NRRD or MetaImage file")
    check_file(path, name)
    return load_values(open_values(path, name), path, phase)
