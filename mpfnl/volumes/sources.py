"""What a path stands for: a NIfTI, NRRD or MetaImage file, a DICOM folder, or one series in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from mpfnl.errors import InputError
from mpfnl.volumes import metaimage, nrrd
from mpfnl.volumes.bytefile import check_file
from mpfnl.volumes.dicom import read_series, series_files, split_selector
from mpfnl.volumes.dicom.headers import is_dicom
from mpfnl.volumes.nifti import read_nifti
from mpfnl.volumes.stored import StoredImage
from mpfnl.volumes.volume import describe


def scan_exists(path: str | Path) -> bool:
    """Whether something lies where a path points, without reading it.

    Args:
        path: A file, a folder, or `FOLDER#UID` for one DICOM series of a folder. Whether the folder holds
            that series is found out when it is read.
    """
    folder, uid = split_selector(Path(path))
    return os.path.exists(folder) if uid is None else os.path.isdir(folder)


def content_files(path: str | Path) -> list[Path]:
    """The files that make up a scan or mask, for instance to tell whether it changed.

    Args:
        path: As for `read_volume`.

    Returns:
        The one file; a header and the file of its voxels; or the slices of the DICOM series in the order of
        their positions, whatever the files are called.

    Raises:
        InputError: There is nothing, or no single DICOM series.
    """
    path = Path(path)
    name = describe(path)
    folder, uid = split_selector(path)
    if uid is not None or os.path.isdir(path):
        return series_files(folder, uid, name)
    if path.suffix.lower() in nrrd.SUFFIXES:
        return nrrd.nrrd_files(path, name)
    if path.suffix.lower() in metaimage.SUFFIXES:
        return metaimage.metaimage_files(path, name)
    check_file(path, name)
    return [path]


def read_scan(path: Path, name: str) -> StoredImage:
    """Reads what a path stands for.

    Args:
        path: A file, a DICOM folder, or `FOLDER#UID`.
        name: How messages name it.

    Raises:
        InputError: It cannot be read, or is no 3-D image of real numbers with a place in the world.
    """
    folder, uid = split_selector(path)
    if uid is not None or os.path.isdir(path):
        return read_series(folder, uid, name)
    return read_file(path, name)


def read_file(path: Path, name: str) -> StoredImage:
    """Reads a NIfTI, NRRD or MetaImage file; the suffix tells which.

    Args:
        path: The file.
        name: How messages name it.

    Raises:
        InputError: As for `read_scan`; or it is a folder or a single DICOM file.
    """
    check_file(path, name)
    if path.suffix.lower() in nrrd.SUFFIXES:
        return nrrd.read_nrrd(path, name)
    if path.suffix.lower() in metaimage.SUFFIXES:
        return metaimage.read_metaimage(path, name)
    if is_dicom(path, name):
        raise InputError(f"{name}: is a single DICOM file; give the folder that holds the whole series")
    return read_nifti(path, name)
