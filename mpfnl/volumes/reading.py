"""Whole scans in memory, with every check that a user's file may fail."""

from __future__ import annotations

from pathlib import Path

from mpfnl.phases import Phase
from mpfnl.volumes.fileio import scan_name
from mpfnl.volumes.scan import load_scan, open_values
from mpfnl.volumes.volume import Volume


def read_volume(path: str | Path, phase: Phase | None = None) -> Volume:
    """Reads a scan in HU from a file or a DICOM folder and checks it.

    The voxels of a file stay as they are; nothing is clamped. In DICOM, values below -1024 HU fill the area
    outside the scan, and become -1024. Whole numbers are held as int16 (int32 where they do not fit), others
    as float32 (float64 where float32 would change one).

    Args:
        path: A NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd) file; a folder with the
            slices of one DICOM series; `FOLDER#UID`, the series with this SeriesInstanceUID in a folder; or
            `FOLDER#UID@ACQUISITION`, one of several scans in that series.
        phase: Contrast phase, named in messages.

    Returns:
        The volume, with the number type and space code with which to write it again.

    Raises:
        InputError: The file is missing, of another kind, cut off or damaged, not 3-D or not of real numbers;
            a voxel is NaN or infinite; the values are not CT in HU (see `hu_check`); the grid has no
            orientation, no positive spacing, or is sheared; a DICOM folder does not hold one regular stack of
            CT slices.

    Warns:
        InputWarning: A DICOM series of a tilted gantry was resampled onto a grid with right angles.

    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
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
