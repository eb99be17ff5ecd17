"""Reading a scan, a mask or a label map, with every check that a user's file may fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import InputError
from mpfnl.phases import Phase
from mpfnl.volumes.grid import check_same_grid
from mpfnl.volumes.sources import read_file, read_scan
from mpfnl.volumes.stored import StoredImage
from mpfnl.volumes.volume import Volume, describe

WINDOWED_LIMIT = 1.05
"""A scan whose values all lie within this of 0 is not in HU: it was mapped to [0, 1] or [-1, 1]."""


def read_volume(path: str | Path, phase: Phase | None = None) -> Volume:
    """Reads a scan in HU from a file or a DICOM folder and checks it.

    The voxels of a file stay as they are; nothing is clamped. In DICOM, values below -1024 HU fill what lies
    outside the scan, and become -1024. Whole numbers are held as int16 (int32 where they do not fit), others
    as float32 (float64 where float32 would change one).

    Args:
        path: A NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file; a folder with the
            slices of one DICOM series; or `FOLDER#UID`, the series with this SeriesInstanceUID in a folder.
        phase: Its contrast phase, which messages then name.

    Returns:
        The volume, with the number type and space code with which to write it again.

    Raises:
        InputError: It is missing, of another kind, cut off or damaged, not 3-D or not of real numbers; a
            voxel is NaN or infinite; the values are windowed already; the grid has no orientation, no
            positive spacing, or is sheared; a DICOM folder does not hold one regular stack of CT slices.

    Warns:
        InputWarning: A DICOM series of a tilted gantry was resampled onto a grid with right angles.
    """
    path = Path(path)
    name = describe(path, phase)
    image = read_scan(path, name)
    check_bits(image, name)
    data = image.voxels(name)
    check_hu(float(data.min()), float(data.max()), name)
    return Volume(data, image.affine, path, phase, image.storage(data.dtype), image.space)


def check_bits(image: StoredImage, name: str) -> None:
    """Refuses numbers of 8 bits, which cannot be HU.

    Raises:
        InputError: They are.
    """
    if image.stored.dtype.itemsize == 1 and image.is_plain:
        raise InputError(f"{name}: is stored in 8 bits, which cannot hold HU (a label map?); give HU")


def check_hu(low: float, high: float, name: str) -> None:
    """Refuses a scan that was windowed, by its lowest and highest value.

    Raises:
        InputError: It was.
    """
    if max(abs(low), abs(high)) <= WINDOWED_LIMIT:
        raise InputError(
            f"{name}: its values lie in [{low:.3g}, {high:.3g}], so it is windowed already; give HU"
        )


def read_mask(path: str | Path, like: Volume | None = None, label: int | None = None) -> NDArray[np.bool_]:
    """Reads a mask, or one label of a label map.

    Args:
        path: A NIfTI, NRRD or MetaImage file.
        like: The scan on whose grid the mask must lie; unchecked if None.
        label: The label to take; if None the file may hold 0 and 1 only.

    Returns:
        True where the structure is, (x, y, z). A label that does not occur gives an empty mask.

    Raises:
        InputError: As for `read_volume`; or another grid, or values other than 0 and 1 without a label.
    """
    path = Path(path)
    name = describe(path)
    image = read_file(path, name)
    data = image.voxels(name)
    if like is not None:
        check_same_grid(like, [Volume(data, image.affine, path, space=image.space)])
    if label is not None:
        return np.asarray(data == label)
    mask = np.asarray(data == 1)
    if not (mask | (data == 0)).all():
        raise InputError(
            f"{name}: a mask holds 0 and 1, this one holds values from {data.min():g} to {data.max():g};"
            " name the label to take"
        )
    return mask


def read_label_volume(path: str | Path, phase: Phase | None = None) -> Volume:
    """Reads a whole label map.

    Args:
        path: A NIfTI, NRRD or MetaImage file.
        phase: The phase on which it lies, which messages then name.

    Returns:
        The labels as uint8, or uint16 where one is above 255, with their grid.

    Raises:
        InputError: As for `read_mask`; or a value is not a whole number from 0 to 65535.
    """
    path = Path(path)
    name = describe(path, phase)
    image = read_file(path, name)
    data = image.voxels(name)
    low, high = float(data.min()), float(data.max())
    if low < 0 or high > np.iinfo(np.uint16).max or not np.array_equal(np.rint(data), data):
        raise InputError(
            f"{name}: a label map holds whole numbers from 0 to 65535, this one holds values from {low:g} to"
            f" {high:g}{'' if low < 0 or high > 65535 else ' with fractions'}; give a label map"
        )
    labels = data.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16)
    return Volume(labels, image.affine, path, phase, space=image.space)
