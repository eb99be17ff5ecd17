"""What the tests of derived series share: a valid source, what was done to it, and how others read it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from mpfnl.phases import PHASES
from mpfnl.volumes.dicom.derived import write_derived_series
from mpfnl.volumes.dicom.provenance import Derivation

MakeSeries: TypeAlias = Callable[..., list[Path]]
Derive: TypeAlias = Callable[..., list[pydicom.Dataset]]

ABOUT = Derivation("PFNL3D", "0123456789abcdef" * 4, "1.2.3", PHASES, "Enhanced for a test")
WHEN = datetime(2026, 5, 4, 3, 2, 1)
VALID = {
    "StudyInstanceUID": "1.2.826.0.1.9999.7",
    "FrameOfReferenceUID": "1.2.826.0.1.9999.8",
    "SliceThickness": 3,
    "WindowCenter": [50, 40],
    "WindowWidth": [450, 400],
}
"""What the plain slices of `make_series` lack."""


@pytest.fixture
def about() -> Derivation:
    return ABOUT


@pytest.fixture
def when() -> datetime:
    return WHEN


@pytest.fixture
def source(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray) -> Callable[..., Path]:
    """Makes a series from which one can be derived; returns its folder."""

    def make(folder: str = "source", pixels: np.ndarray = stored, **elements: Any) -> Path:
        make_series(tmp_path / folder, pixels, **{**VALID, **elements})
        return tmp_path / folder

    return make


@pytest.fixture
def derive(tmp_path: Path, stored: np.ndarray) -> Derive:
    """Derives a series; returns its slices as pydicom reads them, strictly, without a warning."""

    def write(source: Path, hu: np.ndarray | None = None, **given: Any) -> list[pydicom.Dataset]:
        hu = stored.astype(np.int16) - 1024 if hu is None else hu
        out = tmp_path / given.pop("out", "derived")
        files = write_derived_series(out, hu, source, **{"about": ABOUT, "when": WHEN, **given})
        assert sorted(out.iterdir()) == files
        with warnings.catch_warnings(), pydicom.config.strict_reading():
            warnings.simplefilter("error")
            return [pydicom.dcmread(file) for file in files]

    return write


def itk_series(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """SimpleITK's own reader: HU (x, y, z), and the affine (LPS+)."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, affine


@pytest.fixture(name="itk_series")
def itk_series_fixture() -> Callable[[Path], tuple[np.ndarray, np.ndarray]]:
    """`itk_series`, above."""
    return itk_series
