"""What is refused before TotalSegmentator sees it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpfnl.errors import SegmentationError
from mpfnl.phases import Phase
from mpfnl.segmentation.segmenter import check_scan
from mpfnl.volumes import Volume, read_volume
from mpfnl.window import ABDOMEN


@pytest.fixture
def scan() -> Volume:
    rng = np.random.default_rng(0)
    hu = np.full((20, 18, 12), -1000.0, dtype=np.float32)
    hu[4:16, 4:14, 2:10] = rng.normal(60, 20, (12, 10, 8))
    affine = np.diag([-0.8, -0.8, 2.5, 1.0])
    return Volume.from_array(hu, affine, Path("study/pv.nii.gz"), Phase.PORTAL_VENOUS)


def placed(scan: Volume, affine: np.ndarray) -> Volume:
    return replace(scan, grid=replace(scan.grid, affine=affine))


def refused(scan: Volume) -> str:
    with pytest.raises(SegmentationError) as caught:
        check_scan(scan)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("study/pv.nii.gz (portal venous phase)")
    return message


def test_hu_is_accepted_whole_and_windowed(scan: Volume) -> None:
    check_scan(scan)
    check_scan(replace(scan, data=scan.data.clip(ABDOMEN.lower, ABDOMEN.upper)))


@pytest.mark.realdata
def test_real_scans_are_accepted(real_data: Path) -> None:
    files = sorted(real_data.glob("*/*.nii.gz"))
    scans = [file for file in files if "seg" not in file.name]
    assert scans
    for file in scans:
        check_scan(read_volume(file))


def test_other_numbers_than_hu_are_refused(scan: Volume) -> None:
    for other in (
        ABDOMEN.normalize(scan.data),  # [0, 1]
        ABDOMEN.normalize(scan.data) * 255,  # grey values
        scan.data + 1024,  # without the intercept
        (scan.data - scan.data.mean()) / scan.data.std(),  # standardised
        np.full_like(scan.data, -1000.0),  # nothing but air
    ):
        refused(replace(scan, data=other))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(scan: Volume, value: float) -> None:
    data = scan.data.copy()
    data[3, 4, 5] = value
    refused(replace(scan, data=data))


def test_a_sheared_affine_is_refused(scan: Volume) -> None:
    affine = scan.affine.copy()
    affine[1, 2] = 0.3
    refused(placed(scan, affine))


def test_a_lost_or_impossible_spacing_is_refused(scan: Volume) -> None:
    refused(placed(scan, np.eye(4)))
    refused(placed(scan, np.diag([-1.0, -1.0, 1.0, 1.0])))  # SimpleITK's
    assert "0.0008" in refused(placed(scan, np.diag([0.0008, 0.0008, 0.0025, 1.0])))
    assert "30 mm" in refused(placed(scan, np.diag([1.0, 1.0, 30.0, 1.0])))
    moved = np.eye(4)
    moved[:3, 3] = (-180.0, -170.0, -400.0)  # 1 mm voxels, in their place
    check_scan(placed(scan, moved))
