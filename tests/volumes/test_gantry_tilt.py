"""A tilted gantry's slices come onto right angles, where SimpleITK's resampling puts them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import SimpleITK as sitk

from mpfnl.errors import InputWarning
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume
from mpfnl.volumes.grid import check_affine

MakeSeries: TypeAlias = Callable[..., list[Path]]

SPACING = (0.7, 0.8)
CORNER = np.array([-30.0, -20.0, 100.0])
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def tilted(angle: float, axis: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The in-plane axes (2, 3) of a gantry that leans about one of them, and the elements that say so."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    axes = np.eye(3)[:2]
    axes[axis] = (cos, 0, -sin) if axis == 0 else (0, cos, -sin)
    return axes, {"ImageOrientationPatient": [f"{value:.9f}" for value in axes.ravel() + 0.0]}


def sheared(hu: np.ndarray, axes: np.ndarray, step: np.ndarray) -> sitk.Image:
    """The slices as they lie, as a SimpleITK image whose axes are not at right angles."""
    image = sitk.GetImageFromArray(hu.T.astype(np.float64))
    length = float(np.linalg.norm(step))
    image.SetSpacing([*SPACING, length])
    image.SetOrigin(CORNER.tolist())
    image.SetDirection(np.stack([*axes, step / length], axis=1).ravel().tolist())
    return image


def resampled(image: sitk.Image, onto: Volume) -> np.ndarray:
    """SimpleITK's linear interpolation on a volume's grid; NaN where the image has nothing."""
    affine = LPS_TO_RAS @ onto.affine
    filter_ = sitk.ResampleImageFilter()
    filter_.SetSize(onto.shape)
    filter_.SetOutputSpacing(onto.spacing)
    filter_.SetOutputOrigin(affine[:3, 3].tolist())
    filter_.SetOutputDirection((affine[:3, :3] / np.array(onto.spacing)).ravel().tolist())
    filter_.SetDefaultPixelValue(np.nan)
    return sitk.GetArrayFromImage(filter_.Execute(image)).T


@pytest.mark.parametrize("angle", [12.0, -20.0, 1.5])
@pytest.mark.parametrize("axis", [0, 1])
def test_against_simpleitk(tmp_path: Path, make_series: MakeSeries, angle: float, axis: int) -> None:
    rng = np.random.default_rng(3)
    hu = rng.integers(-1000, 1000, (24, 21, 8))
    axes, elements = tilted(angle, axis)
    step = np.array([0, 0, 4.0])
    make_series(tmp_path, (hu + 1024).astype(np.uint16), step=step, **elements)
    with pytest.warns(InputWarning, match=f"tilted by {abs(angle):g} degrees") as caught:
        scan = read_volume(tmp_path, Phase.ARTERIAL)
    assert str(caught[0].message).startswith(f"{tmp_path} (arterial phase): ")
    check_affine(scan.affine, "the straightened scan")
    normal = np.cross(*axes)
    np.testing.assert_allclose(scan.spacing, (*SPACING, step @ normal), rtol=1e-6)
    assert scan.data.dtype == np.int16

    expected = resampled(sheared(hu, axes, step), scan)
    inside = np.isfinite(expected)
    interior = inside.copy()  # on its rim SimpleITK repeats the last pixel, we fade to air
    for shift in (1, -1):
        interior &= np.roll(inside, shift, axis)
    assert interior.mean() > 0.4
    assert np.abs(scan.data - expected)[interior].max() <= 0.5 + 1e-3
    beyond = ~(inside | np.roll(inside, 1, axis) | np.roll(inside, -1, axis))
    assert (scan.data[beyond] == -1024).all()


@pytest.mark.parametrize("angle", [8.0, -25.0])
def test_a_ramp_in_the_patient_stays_where_it_is(
    tmp_path: Path, make_series: MakeSeries, angle: float
) -> None:
    """HU that rise evenly along z: what linear interpolation reproduces wherever the slices lie."""
    axes, elements = tilted(angle, 1)
    step = np.array([0, 0, 3.0])
    index = np.indices((12, 30, 9))
    z = sum(
        index[k] * vector[2] for k, vector in enumerate([SPACING[0] * axes[0], SPACING[1] * axes[1], step])
    )
    make_series(tmp_path, np.rint(10 * z + 1500).astype(np.uint16), step=step, **elements)
    with pytest.warns(InputWarning):
        scan = read_volume(tmp_path)
    where = np.einsum("k,k...->...", scan.affine[2, :3], np.indices(scan.shape)) + scan.affine[2, 3]
    expected = 10 * (where - CORNER[2]) + 1500 - 1024
    filled = np.abs(scan.data - expected) < 1.01  # rounded twice
    rows = np.nonzero(filled[5, :, 4])[0]
    assert filled.mean() > 12 * 27 * 9 / filled.size
    assert filled[:, rows[0] : rows[-1] + 1, 4].all()


def test_no_pixel_is_lost(tmp_path: Path, make_series: MakeSeries) -> None:
    axes, elements = tilted(20.0, 1)
    step = np.array([0, 0, 5.0])
    make_series(tmp_path, np.full((8, 9, 7), 1124, np.uint16), step=step, **elements)
    with pytest.warns(InputWarning):
        scan = read_volume(tmp_path)
    to_index = np.linalg.inv(LPS_TO_RAS @ scan.affine)
    for column, row, number in product((0, 7), (0, 8), (0, 6)):
        place = CORNER + column * SPACING[0] * axes[0] + row * SPACING[1] * axes[1] + number * step
        index = to_index[:3, :3] @ place + to_index[:3, 3]
        assert (index > -1e-3).all()
        assert (index < np.array(scan.shape) - 1 + 1e-3).all()
    weight = (scan.data.astype(float) + 1024).sum(axis=(0, 1)) / (8 * 9 * 1124)
    np.testing.assert_allclose(weight, 1, atol=2e-3)  # each slice keeps its sum


def test_padding_does_not_bleed(tmp_path: Path, make_series: MakeSeries) -> None:
    hu = np.full((20, 20, 5), -3024)
    hu[5:15, 5:15] = 40
    _, elements = tilted(15.0, 1)
    make_series(tmp_path, (hu + 1024).astype(np.int16), **elements)
    with pytest.warns(InputWarning):
        scan = read_volume(tmp_path)
    assert scan.data.min() == -1024
    assert scan.data.max() == 40


def test_fractions_stay_fractions(tmp_path: Path, make_series: MakeSeries, stored: np.ndarray) -> None:
    _, elements = tilted(10.0, 1)
    make_series(tmp_path, stored, RescaleSlope=0.5, **elements)
    with pytest.warns(InputWarning):
        scan = read_volume(tmp_path)
    assert scan.data.dtype.kind == "f"
