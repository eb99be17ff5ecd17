"""The body and the abdomen, on phantoms and on real scans with organ labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from mpfnl.errors import IntensityError
from mpfnl.phantoms import generate_study
from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phases import Phase
from mpfnl.prepare.cropping import abdomen_box, body_mask, box_around, find_body, lung_base
from mpfnl.volumes import Volume, read_volume
from mpfnl.volumes.masks import read_label_volume

LUNGS = (10, 11, 12, 13, 14)  # of TotalSegmentator's labels
ABDOMEN = (1, 2, 3, 4, 6, 7)  # spleen, kidneys, gallbladder, stomach, pancreas
LIVER = 5


@pytest.mark.parametrize("patient", range(3))
def test_the_phantoms_body_without_its_table(patient: int) -> None:
    study = generate_study(5, patient, SMALL)
    hu = study.phases[Phase.PORTAL_VENOUS]
    body = body_mask(hu, study.spacing)
    assert body[study.labels > 0].mean() > 0.995
    _, count = ndimage.label(body)
    assert count == 1
    table = ndimage.gaussian_filter(hu.astype(float), 1) > -700  # -480 HU, behind the back, thin
    table[:, int(np.flatnonzero(body.any(axis=(0, 2)))[0]) :] = False
    assert table.any()
    assert not (body & table).any()


@pytest.mark.parametrize("patient", range(3))
def test_the_box_keeps_the_organs(patient: int) -> None:
    study = generate_study(6, patient)
    hu = study.phases[Phase.PORTAL_VENOUS]
    box = abdomen_box(hu, find_body(hu, study.spacing), study.spacing, 10.0)
    for organ in ("liver", "pancreas", "spleen", "kidney_left", "kidney_right"):
        inside = (study.labels[box] == NUMBERS[organ]).sum()
        assert inside == (study.labels == NUMBERS[organ]).sum(), organ
    assert study.labels[box].size < 0.8 * study.labels.size


@pytest.mark.realdata
def test_a_real_whole_trunk_is_cut_to_the_abdomen(real_data: Path) -> None:
    scan = read_volume(real_data / "ts_noncontrast" / "example_ct.nii.gz").canonical()
    labels = read_label_volume(real_data / "ts_noncontrast" / "example_seg_fast_force_split.nii.gz")
    labels = labels.canonical().data
    body = find_body(scan.data, scan.spacing)
    assert body[labels > 0].mean() > 0.99
    base = lung_base(scan.data, body, scan.spacing)
    lungs = np.isin(labels, LUNGS).sum(axis=(0, 1)) * scan.spacing[0] * scan.spacing[1] / 100
    expected = int(np.flatnonzero(lungs > 10)[0])
    assert base is not None
    assert abs(base - expected) * scan.spacing[2] <= 9
    box = abdomen_box(scan.data, body, scan.spacing, 10.0)
    for organ in (*ABDOMEN, LIVER):
        assert (labels[box] == organ).sum() == (labels == organ).sum(), organ


@pytest.mark.realdata
def test_a_real_scan_without_much_lung_is_kept_along_the_body(real_data: Path) -> None:
    scan = read_volume(real_data / "crlm_pv_1004" / "CRLM-CT-1004_pv_bodycrop.nii.gz").canonical()
    box = abdomen_box(scan.data, find_body(scan.data, scan.spacing), scan.spacing, 10.0)
    assert box[2] == slice(0, scan.shape[2])


def test_bowel_gas_is_no_lung() -> None:
    hu = np.full((60, 60, 60), 40, np.int16)
    hu[:5] = hu[-5:] = -1000
    hu[20:40, 20:40, 25:35] = -800  # gas in the middle, 36 cm2 a slice, a third of a litre
    body = find_body(hu, (3.0, 3.0, 3.0))
    assert lung_base(hu, body, (3.0, 3.0, 3.0)) is None
    hu[20:40, 20:40, 50:] = -800  # now something that goes on above the scan
    assert lung_base(hu, body, (3.0, 3.0, 3.0)) == 50


def test_slices_are_kept_around_the_lungs_base() -> None:
    hu = np.full((40, 40, 200), 40, np.int16)
    hu[:2] = hu[-2:] = hu[:, :2] = hu[:, -2:] = -1000
    hu[10:30, 10:30, 140:] = -850
    spacing = (6.0, 6.0, 5.0)
    box = abdomen_box(hu, find_body(hu, spacing), spacing, 0.0)
    assert box == (slice(2, 38), slice(2, 38), slice(140 - 52, 140 + 19))


@pytest.mark.parametrize("hu", [0.0, -1000.0])
def test_no_body(hu: float) -> None:
    with pytest.raises(IntensityError):
        find_body(np.full((9, 9, 9), hu), (3.0, 3.0, 3.0))


def test_the_box_around_organs() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[5:9, 0:3, 18:20] = True
    volume = Volume.from_array(
        np.zeros(mask.shape, np.int16), np.diag([2.0, 1.0, 5.0, 1.0]), Path("scan.nii")
    )
    assert box_around(mask, volume, 4.0) == (slice(3, 11), slice(0, 7), slice(17, 20))
    with pytest.raises(IntensityError, match=r"scan\.nii: .*liver"):
        box_around(np.zeros_like(mask), volume, 4.0)
