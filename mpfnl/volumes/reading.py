"""Whole scans, masks and label maps in memory, with every check that a user's file may fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import IntensityError
from mpfnl.phases import Phase
from mpfnl.volumes.fileio import check_file, scan_name
from mpfnl.volumes.grid import OnGrid, check_same_grid
from mpfnl.volumes.scan import load_scan, load_values, open_values
from mpfnl.volumes.volume import Volume


def read_volume(path: str | Path, phase: Phase | None = None) -> Volume:
    """Reads a scan in HU from a file or a DICOM folder and checks it.

    The voxels of a file stay as they are; nothing is clamped. In DICOM, values below -1024 HU fill the area
    outside the scan, and become -1024. Whole numbers are held as int16 (int32 where they do not fit), others
    as float32 (float64 where float32 would change one).

    Args:
        path: A NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file; a folder with the
            slices of one DICOM series; or `FOLDER#UID`, the series with this SeriesInstanceUID in a folder.
        phase: Contrast phase, named in messages.

    Returns:
        The volume, with the number type and space code with which to write it again.

    Raises:
        InputError: The file is missing, of another kind, cut off or damaged, not 3-D or not of real numbers;
            a voxel is NaN or infinite; the values are windowed already; the grid has no orientation, no
            positive spacing, or is sheared; a DICOM folder does not hold one regular stack of CT slices.

    Warns:
        InputWarning: A DICOM series of a tilted gantry was resampled onto a grid with right angles.

    >>> from tempfile import TemporaryDirectory
    >>> from mpfnl.volumes import write_volume
    >>> volume = Volume.from_array(np.full((4, 4, 3), 40, np.int16), np.diag([0.8, 0.8, 5, 1]))
    >>> with TemporaryDirectory() as folder:
    ...     write_volume(f"{folder}/scan.nii.gz", volume.data, like=volume)
    ...     scan = read_volume(f"{folder}/scan.nii.gz", Phase.ARTERIAL)
    >>> scan.shape, scan.data.max()
    ((4, 4, 3), np.int16(40))
    """
    path = Path(path)
    return load_scan(open_values(path, scan_name(path, phase)), path, phase)


def read_mask(path: str | Path, like: OnGrid | None = None, label: int | None = None) -> NDArray[np.bool_]:
    """Reads a mask, or one label of a label map.

    Args:
        path: A NIfTI, NRRD or MetaImage file.
        like: Scan on whose grid the mask must lie, in whatever order of axes; unchecked if None.
        label: Label to take; if None the file may hold 0 and 1 only.

    Returns:
        True where the structure is, (x, y, z) in the order of `like`. A label that does not occur gives an
        empty mask.

    Raises:
        InputError: The same errors as from `read_volume`; or another grid, or values other than 0 and 1
            without a label.

    >>> from tempfile import TemporaryDirectory
    >>> from mpfnl.volumes import write_volume
    >>> labels = Volume.from_array(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), np.eye(4))
    >>> with TemporaryDirectory() as folder:
    ...     write_volume(f"{folder}/labels.nii.gz", labels.data, like=labels)
    ...     int(read_mask(f"{folder}/labels.nii.gz", like=labels, label=7).sum())
    1
    """
    labels = _read_values(Path(path), None)
    if like is not None:
        labels = labels.turned_like(like.grid)
        check_same_grid(like, [labels])
    data = labels.data
    if label is not None:
        return np.asarray(data == label)
    mask = np.asarray(data == 1)
    if not (mask | (data == 0)).all():
        raise IntensityError(
            f"{labels.name}: a mask holds 0 and 1, this one holds values from {data.min():g} to"
            f" {data.max():g}; name the label to take"
        )
    return mask


def read_label_volume(path: str | Path, phase: Phase | None = None) -> Volume:
    """Reads a whole label map.

    Args:
        path: A NIfTI, NRRD or MetaImage file.
        phase: Phase on which it lies, named in messages.

    Returns:
        The labels as uint8, or uint16 where one is above 255, with their grid.

    Raises:
        InputError: The same errors as from `read_mask`; or a value is not a whole number from 0 to 65535.
    """
    labels = _read_values(Path(path), phase)
    data = labels.data
    low, high = float(data.min()), float(data.max())
    if low < 0 or high > np.iinfo(np.uint16).max or not np.array_equal(np.rint(data), data):
        raise IntensityError(
            f"{labels.name}: a label map holds whole numbers from 0 to 65535, this one holds values from"
            f" {low:g} to {high:g}{'' if low < 0 or high > 65535 else ' with fractions'}; give a label map"
        )
    whole = data.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)
    return Volume(whole, labels.grid, labels.path, phase)


def _read_values(path: Path, phase: Phase | None) -> Volume:
    """The values of a file, not checked to be HU."""
    name = scan_name(path, phase)
    check_file(path, name)
    return load_values(open_values(path, name), path, phase)
