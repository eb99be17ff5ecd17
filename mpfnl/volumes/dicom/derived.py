"""An enhanced scan as a DICOM series derived from the one that was enhanced (DICOM PS3.3, A.3: CT Image)."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from mpfnl.errors import OutputError
from mpfnl.volumes.dicom.ct_image import (
    STORED,
    add_pixels,
    make_uid,
    save_slice,
    series_elements,
    slice_elements,
    stored_values,
)
from mpfnl.volumes.dicom.headers import tolerant
from mpfnl.volumes.dicom.provenance import Derivation
from mpfnl.volumes.dicom.source import SourceSeries, find_source, read_dataset
from mpfnl.volumes.fileio import one_line
from mpfnl.volumes.intensity import Voxels


def check_derived_output(folder: str | Path, source: str | Path) -> None:
    """Refuses, before any work is done, what `write_derived_series` would refuse.

    Args:
        folder: The folder to write.
        source: The series to derive from.

    Raises:
        InputError: The same errors as from there, except those about voxels.
    """
    _check_folder(Path(folder), find_source(source))


def write_derived_series(
    folder: str | Path,
    hu: Voxels,
    source: str | Path,
    about: Derivation,
    when: datetime | None = None,
) -> list[Path]:
    """Writes an enhanced scan as a DICOM series: one new CT slice for each slice of the source.

    Patient, study, frame of reference, geometry, window and contrast agent are the source's; see
    `mpfnl.volumes.dicom.attributes`. Nothing is de-identified. HU are rounded to whole numbers, and values
    below -1024 HU become -1024, as in reading. The folder appears at once and whole. UIDs depend on the
    source's UIDs, on `about` and on the voxels alone: the same scan gets the same ones again, and no other
    scan does. Apart from `when` the same goes for all bytes.

    Args:
        folder: The folder to make; an empty one is taken.
        hu: Voxels (x, y, z) in HU on the source's grid, as `read_volume` gave it. It is gone through slice by
            slice, so it may be an array that is mapped from a file.
        source: The scan that was enhanced: its folder, `FOLDER#UID` or `FOLDER#UID@ACQUISITION`.
        about: Derivation: model, weights, version and phases.
        when: The time of making, for the dates of the series and its content; now if None.

    Returns:
        The files, in the order of the slices.

    Raises:
        InputError: The source is no DICOM series, was resampled when it was read (tilted gantry), or lacks
            what identifies it; the folder has something in it, lies in the source's folder, or cannot be
            written; a voxel is above 64511 HU.
        ValueError: The shape is not the source's, or a voxel is NaN or infinite.
    """
    with derived_series_writer(folder, source, about, when) as writer:
        if hu.shape != writer.shape:
            raise ValueError(f"the voxels have the shape {hu.shape}, the series {source} has {writer.shape}")
        for z in range(hu.shape[2]):
            writer.write(hu[:, :, z : z + 1])
    return [Path(folder) / name for name in _names(hu.shape[2])]


class DerivedWriter:
    """Receives the slabs of an enhanced scan in their order; see `derived_series_writer`.

    Args:
        spool: File in which the voxels wait until all are there.
        series: The source series.
    """

    def __init__(self, spool: IO[bytes], series: SourceSeries) -> None:
        self.shape = series.shape
        self._name = series.name
        self._spool = spool
        self._digest = hashlib.sha256()
        self._written = 0

    def write(self, slab: Voxels) -> None:
        """Receives the next slices.

        Args:
            slab: HU `(x, y, slices)`.

        Raises:
            InputError: A voxel is above 64511 HU.
            ValueError: The slices do not fit the series, or a voxel is NaN or infinite.
        """
        self._written += slab.shape[2]
        if slab.shape[:2] != self.shape[:2] or self._written > self.shape[2]:
            raise ValueError(f"a slab of {slab.shape} does not fit a series of {self.shape}")
        for z in range(slab.shape[2]):
            plane = stored_values(slab[:, :, z], self._name).tobytes()
            self._digest.update(plane)
            self._spool.write(plane)

    def planes(self) -> Iterator[NDArray[np.uint16]]:
        """The stored values (rows, columns) of each slice.

        Raises:
            ValueError: Slices are missing.
        """
        if self._written != self.shape[2]:
            raise ValueError(f"{self._written} of {self.shape[2]} slices were written")
        columns, rows, count = self.shape
        self._spool.seek(0)
        for _ in range(count):
            yield np.frombuffer(self._spool.read(2 * rows * columns), STORED).reshape(rows, columns)

    def digest(self) -> str:
        """The SHA-256 of the stored values."""
        return self._digest.hexdigest()


@contextmanager
def derived_series_writer(
    folder: str | Path, source: str | Path, about: Derivation, when: datetime | None = None
) -> Iterator[DerivedWriter]:
    """Writes a derived series slab by slab, as `write_derived_series` does at once; the same bytes.

    The voxels wait in a file in the unfinished folder, since the identifiers depend on all of them. The
    folder gets its name at the end of the block, if all slices were written and nothing was raised.

    Args:
        folder: Folder to make; an empty one is taken.
        source: The series that was enhanced.
        about: Derivation: model, weights, version and phases.
        when: The time of making; that at the end of the block if None.

    Raises:
        InputError: The same errors as from `write_derived_series`.
        ValueError: Slices are missing at the end.
    """
    folder = Path(folder)
    series = find_source(source)
    _check_folder(folder, series)
    with _whole_folder(folder) as partial:
        spool = partial / "voxels"
        with spool.open("xb+") as file:
            writer = DerivedWriter(file, series)
            yield writer
            with tolerant():
                _write_slices(partial, writer, series, about, when or datetime.now().astimezone())
        spool.unlink()


def _write_slices(
    folder: Path, writer: DerivedWriter, series: SourceSeries, about: Derivation, when: datetime
) -> None:
    uid = make_uid("derived series", series.study_uid, series.series_uid, *about.identity(), writer.digest())
    common = series_elements(read_dataset(series.slices[0].path, series.name), uid, about, when)
    slices = zip(
        _names(len(series.slices)), series.slices, _instance_numbers(series), writer.planes(), strict=True
    )
    for name, each, number, plane in slices:
        data = slice_elements(common, each, number, series.name)
        add_pixels(data, plane)
        save_slice(folder / name, data)


def _names(count: int) -> list[str]:
    """The names of the files: numbers of one length."""
    return [f"{index:0{len(str(count))}d}.dcm" for index in range(1, count + 1)]


def _check_folder(folder: Path, series: SourceSeries) -> None:
    place, taken = folder.resolve(), series.folder.resolve()
    if place == taken or taken in place.parents:
        raise OutputError(f"{folder}: the output lies in the source's folder {series.folder}; choose another")
    if folder.is_dir() and not os.access(folder, os.R_OK | os.W_OK):
        raise OutputError(f"{folder}: the folder may not be written; choose another output")
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise OutputError(f"{folder}: there is a file or a link of this name; choose another output")
    if folder.is_dir() and any(folder.iterdir()):
        raise OutputError(f"{folder}: the folder is not empty; give a new folder")
    if not folder.parent.is_dir():
        raise OutputError(f"{folder}: the folder {folder.parent} does not exist; make it first")
    if not os.access(folder.parent, os.W_OK):
        raise OutputError(f"{folder}: the folder {folder.parent} is read-only; choose another output")


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that gets its name when it is whole, and disappears on any failure."""
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.mkdir()
        yield partial
        if folder.is_dir():
            folder.rmdir()  # refuses a folder that is not empty any more
        partial.rename(folder)
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror or one_line(error)}); choose another output"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _instance_numbers(series: SourceSeries) -> list[int]:
    """The source's instance numbers, or 1 to n where they do not tell its slices apart."""
    numbers = [each.number for each in series.slices if each.number is not None]
    return numbers if len(set(numbers)) == len(series.slices) else [n + 1 for n in range(len(series.slices))]
