"""Positions and cosines that a scanner or a program rounded are no gaps, no copies and no tilt."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mpfnl.errors import ConflictError, GridError, InputError, InputWarning
from mpfnl.volumes import Grid, Volume, read_mask, read_volume
from mpfnl.volumes.dicom.rounding import distances_from_others, fit_line, last_unit, rounded_line
from mpfnl.volumes.grid import same_grid

MakeSeries: TypeAlias = Callable[..., list[Path]]
Refused: TypeAlias = Callable[..., str]

QUICK = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SPACING = np.array([0.7, 0.8])
DIRECTIONS = {
    "axial": np.eye(3),
    "feet first": np.diag([-1.0, 1.0, -1.0]),
    "sagittal": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "oblique": Rotation.from_euler("xyz", [11, -7, 4], degrees=True).as_matrix(),
}
"""Axes (columns) of columns, rows and slices, LPS+."""


def text(value: float, digits: int) -> str:
    """A rounded number as programs write it: Python's 103.0 where there is no digit."""
    return f"{value:.{digits}f}" if digits else str(float(np.round(value)))


def numbers(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3000, (5, 4, count)).astype(np.uint16)


def write(
    make_series: MakeSeries,
    folder: Path,
    places: np.ndarray,
    digits: int,
    axes: np.ndarray = DIRECTIONS["axial"],
    cosine_digits: int = 9,
    **elements: Any,
) -> np.ndarray:
    """Slices at places (slices, 3), rounded; the file names tell nothing. Returns the stored numbers."""
    shutil.rmtree(folder, ignore_errors=True)
    count = len(places)
    shuffled = np.random.default_rng(count).permutation(count)
    make_series(
        folder,
        numbers(count),
        names=[f"I{index}" for index in shuffled],
        each=[{"ImagePositionPatient": [text(value, digits) for value in place]} for place in places],
        **{
            "ImageOrientationPatient": [
                f"{value:.{cosine_digits}f}" for value in axes[:, :2].T.ravel() + 0.0
            ],
            **elements,
        },
    )
    return numbers(count).astype(int) - 1024


def misplacement(scan: Volume, hu: np.ndarray, start: np.ndarray, axes: np.ndarray, step: float) -> float:
    """The largest distance in mm, along one axis, of a voxel from where the patient has it."""
    matrix = axes * np.array([*SPACING, step])
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        cut = tuple(slice(None, None, sign) for sign in signs)
        if np.array_equal(hu.transpose(order)[cut], scan.data):
            index = np.indices(hu.shape).transpose(0, *(axis + 1 for axis in order))[(slice(None), *cut)]
            there = np.diag([-1, -1, 1]) @ (start[:, None] + matrix @ index.reshape(3, -1))
            here = scan.affine[:3, :3] @ np.indices(scan.shape).reshape(3, -1) + scan.affine[:3, 3:]
            return float(np.abs(there - here).max())
    raise AssertionError("the slices are not in their order")


@QUICK
@given(
    name=st.sampled_from(sorted(DIRECTIONS)),
    digits=st.integers(0, 4),
    cosine_digits=st.sampled_from([3, 4, 6]),
    step=st.sampled_from([0.3, 0.5, 0.625, 0.75, 1.0, 1.25, 2.5, 3.0, 5.0]),
    count=st.integers(3, 25),
    start=st.tuples(*[st.floats(-400, 400)] * 3),
)
@example("axial", 1, 6, 0.3, 40, (0.0, 0.05, 0.04))
@example("axial", 0, 6, 2.5, 40, (0.0, 0.0, 0.0))
@example("oblique", 0, 6, 5.0, 8, (0.5, 0.5, 0.5))
def test_rounding_is_forgiven(
    tmp_path: Path,
    make_series: MakeSeries,
    name: str,
    digits: int,
    cosine_digits: int,
    step: float,
    count: int,
    start: tuple[float, float, float],
) -> None:
    """icometrix/dicom2nifti#36, moloney/dcmstack#55, ITK#1607: distances that differ by rounding alone."""
    axes = DIRECTIONS[name]
    unit = 10.0**-digits
    assume(step >= 2 * unit * np.abs(axes[:, 2]).sum())
    places = np.array(start) + np.arange(count)[:, None] * step * axes[:, 2]
    hu = write(make_series, tmp_path / "scan", places, digits, axes, cosine_digits)
    scan = read_volume(tmp_path / "scan")
    turned = 0.001 * (5 + 4 + count * step) if name == "oblique" else 0  # cosines with three digits
    assert misplacement(scan, hu, np.array(start), axes, step) <= 0.75 * unit + turned + 1e-6
    assert (
        max(abs(scan.spacing - np.array(size)).min() for size in (*SPACING, step))
        <= unit / (count - 1) + 1e-6
    )


def test_many_thin_slices_rounded_to_a_tenth(tmp_path: Path, make_series: MakeSeries) -> None:
    """icometrix/dicom2nifti#36: 200 slices 0.625 mm apart, each within 0.05 mm of its place."""
    places = np.array([-30, -20, -812.34]) + np.arange(200)[:, None] * [0, 0, 0.625]
    hu = write(make_series, tmp_path / "scan", places, 1)
    scan = read_volume(tmp_path / "scan")
    assert np.array_equal(scan.data, hu)
    assert scan.spacing[2] == pytest.approx(0.625, abs=1e-3)


def test_rounding_of_float32(tmp_path: Path, make_series: MakeSeries) -> None:
    """Positions such as -198.199997, which several archives write for -198.2, were rounded to 0.1 mm."""
    places = np.float32(np.round(-198.23 + np.arange(60)[:, None] * [0, 0, 0.625], 1)).astype(float)
    hu = write(make_series, tmp_path / "scan", places, 6)
    assert np.array_equal(read_volume(tmp_path / "scan").data, hu)


@QUICK
@given(
    digits=st.integers(0, 4),
    step=st.sampled_from([0.5, 0.625, 1.0, 1.25, 2.5, 5.0]),
    count=st.integers(4, 16),
    lost=st.integers(0, 100),
    start=st.floats(-400, 400),
    numbered=st.booleans(),
)
def test_a_missing_slice_is_found(
    tmp_path: Path,
    make_series: MakeSeries,
    refused: Refused,
    digits: int,
    step: float,
    count: int,
    lost: int,
    start: float,
    numbered: bool,
) -> None:
    """However coarsely positions are rounded, and whether or not the rest was numbered anew."""
    assume(step >= 4 * 10.0**-digits)
    kept = [index for index in range(count) if index != 1 + lost % (count - 2)]
    places = np.array([[-30, -20, start + index * step] for index in kept])
    extra = {} if numbered else {"InstanceNumber": None}
    write(make_series, tmp_path / "scan", places, digits, **extra)
    message = refused(tmp_path / "scan", GridError)
    assert re.search("1 slice |rounded to 1 mm", message)  # whole numbers, 1 mm apart, may be either


@QUICK
@given(
    digits=st.integers(1, 4),
    step=st.sampled_from([0.625, 1.0, 3.0]),
    moved=st.sampled_from([0.3, 0.45, -0.4]),
    count=st.integers(5, 12),
)
def test_an_unequal_distance_is_no_rounding(
    tmp_path: Path,
    make_series: MakeSeries,
    refused: Refused,
    digits: int,
    step: float,
    moved: float,
    count: int,
) -> None:
    places = np.arange(count)[:, None] * np.array([0, 0, step])
    places[count // 2, 2] += moved
    write(make_series, tmp_path / "scan", places, digits)
    refused(tmp_path / "scan", GridError)


@pytest.mark.parametrize("step", [0.6, 0.625, 0.7, 0.8])
def test_slices_at_one_rounded_position(tmp_path: Path, make_series: MakeSeries, step: float) -> None:
    """Rounded to 1 mm, neighbours may lie at one position: their numbers tell their order."""
    places = np.arange(30)[:, None] * np.array([0, 0, step])
    hu = write(make_series, tmp_path / "scan", places, 0)
    scan = read_volume(tmp_path / "scan")
    assert np.array_equal(scan.data, hu)
    assert scan.spacing[2] == pytest.approx(step, abs=1 / 29)


@pytest.mark.parametrize("element", ["SliceThickness", "SpacingBetweenSlices", None])
def test_two_slices_at_each_position(
    tmp_path: Path, make_series: MakeSeries, refused: Refused, element: str | None
) -> None:
    """Two at each position are two acquisitions, or slices 0.5 mm apart: SpacingBetweenSlices must say so.

    Slices 0.5 mm thick may be taken 1 mm apart, in two phases.
    """
    places = np.arange(20)[:, None] * np.array([0, 0, 0.5]) + 0.1
    places[:, 2] = np.floor(places[:, 2])
    hu = write(make_series, tmp_path / "scan", places, 0, **({element: 0.5} if element else {}))
    if element == "SpacingBetweenSlices":
        assert np.array_equal(read_volume(tmp_path / "scan").data, hu)
    else:
        message = refused(tmp_path / "scan", ConflictError)
        assert "1 mm" in message
        assert "@2 (10 files)" in message


def test_longer_gaps_that_nothing_explains(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    """1 mm and once 2 mm, rounded to 1 mm: a missing slice, or 1.2 mm that the header must state."""
    places = np.array([[0, 0, float(z)] for z in (0, 1, 2, 4, 5, 6)])
    write(make_series, tmp_path / "scan", places, 0)
    assert "1 mm" in refused(tmp_path / "scan", GridError)
    write(make_series, tmp_path / "scan", places, 0, SliceThickness=1.25)
    assert read_volume(tmp_path / "scan").spacing[2] == pytest.approx(1.25, abs=0.1)


@pytest.mark.parametrize("count", [6, 12, 40])
@pytest.mark.parametrize("where", [0, 1, 3, -2, -1])
def test_a_copy_at_whole_positions(
    tmp_path: Path, make_series: MakeSeries, refused: Refused, count: int, where: int
) -> None:
    """A slice sent twice and numbered anew is no slice of its own: a step of 1 mm is never rounded to 0."""
    stored = numbers(count)
    order = np.insert(np.arange(count), where % count, where % count)
    each = [{"ImagePositionPatient": [0, 0, int(z)], "InstanceNumber": i} for i, z in enumerate(order)]
    make_series(tmp_path, stored[:, :, order], each=each, SliceThickness=1)
    scan = read_volume(tmp_path)
    assert np.array_equal(scan.data, stored.astype(int) - 1024)
    assert scan.spacing[2] == 1
    make_series(
        tmp_path, (np.arange(count + 1) + stored[:, :, order]).astype("u2"), each=each, SliceThickness=1
    )
    refused(tmp_path, ConflictError)


@pytest.mark.parametrize("count", [6, 20])
@pytest.mark.parametrize("where", [1, 3, -2])
@pytest.mark.parametrize("numbered", [True, False])
def test_a_slice_missing_at_whole_positions(
    tmp_path: Path, make_series: MakeSeries, refused: Refused, count: int, where: int, numbered: bool
) -> None:
    """The step that the header states is never rounded to 2 mm, wherever in the stack a slice is missing."""
    places = np.delete(np.arange(count), where)[:, None] * np.array([0, 0, 1.0])
    extra = {} if numbered else {"InstanceNumber": None}
    write(make_series, tmp_path / "scan", places, 0, SliceThickness=1, **extra)
    refused(tmp_path / "scan", GridError)


@pytest.mark.parametrize("step", [0.5, 0.625, 0.8])
@pytest.mark.parametrize("where", [1, 7, 15, -2])
def test_a_gap_in_the_numbers_of_thin_slices(
    tmp_path: Path, make_series: MakeSeries, refused: Refused, step: float, where: int
) -> None:
    """Where numbers with a gap explain whole positions, the slice is missing."""
    kept = np.delete(np.arange(30), where)
    each = [
        {"ImagePositionPatient": [0, 0, int(np.floor(z * step + 0.5))], "InstanceNumber": z + 1} for z in kept
    ]
    make_series(tmp_path, numbers(29), each=each, SliceThickness=step)
    refused(tmp_path, InputError)


@pytest.mark.parametrize("step", [0.3, 0.5, 0.625, 0.8])
def test_thin_slices_without_numbers(
    tmp_path: Path, make_series: MakeSeries, refused: Refused, step: float
) -> None:
    """Without numbers nobody can tell their order; the reason is the rounding."""
    write(make_series, tmp_path, np.arange(30)[:, None] * [0, 0, step], 0, InstanceNumber=None)
    assert "rounded to 1 mm" in refused(tmp_path, ConflictError)


@pytest.mark.parametrize("angles", [(5, 3, 2), (20, -10, 35), (0.2, 0.1, 0)])
def test_cosines_with_three_digits(
    tmp_path: Path, make_series: MakeSeries, angles: tuple[float, float, float]
) -> None:
    """wasserth/TotalSegmentator#461, MONAILabel#1634: about 100 public scans are turned so, not tilted."""
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    start = np.array([-100.0, -80, 40])
    hu = write(
        make_series,
        tmp_path / "scan",
        start + np.arange(60)[:, None] * 3 * axes[:, 2],
        6,
        axes,
        cosine_digits=3,
    )
    scan = read_volume(tmp_path / "scan")  # without the warning of a tilt
    assert misplacement(scan, hu, start, axes, 3.0) <= 0.001 * 60 * 3
    turned = scan.affine[:3, :3] / scan.spacing
    np.testing.assert_allclose(turned.T @ turned, np.eye(3), atol=1e-9)


def test_cosines_that_differ_from_slice_to_slice(tmp_path: Path, make_series: MakeSeries) -> None:
    rng = np.random.default_rng(0)
    cosines = [np.array([1, 0, 0, 0, 1, 0]) + rng.uniform(-4e-4, 4e-4, 6) for _ in range(9)]
    stored = numbers(9)
    each = [{"ImageOrientationPatient": [f"{value:.6f}" for value in six]} for six in cosines]
    make_series(tmp_path, stored, each=each)
    scan = read_volume(tmp_path)
    assert np.array_equal(scan.data, stored.astype(int) - 1024)
    np.testing.assert_allclose(scan.spacing, (0.7, 0.8, 3), rtol=1e-5)


@pytest.mark.parametrize("angle", [0.5, 2.0, 12.0])
def test_a_tilt_is_more_than_rounding(tmp_path: Path, make_series: MakeSeries, angle: float) -> None:
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    tilted = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])
    places = np.arange(60)[:, None] * np.array([0, 0, 3.0]) + 0.123
    write(make_series, tmp_path / "scan", places, 1, tilted, cosine_digits=4)
    with pytest.warns(InputWarning) as caught:
        read_volume(tmp_path / "scan")
    (told,) = re.findall(r"([0-9.]+) degrees", str(caught[0].message))
    assert float(told) == pytest.approx(angle, abs=0.02)


def test_as_simpleitk_reads_it(tmp_path: Path, make_series: MakeSeries) -> None:
    """Where positions are exact, SimpleITK has the same order and the same place to 0.1 micrometres."""
    for name, axes in DIRECTIONS.items():
        folder = tmp_path / name
        hu = write(make_series, folder, np.arange(7)[:, None] * 2.5 * axes[:, 2] + [3, -4, 5], 8, axes)
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        assert np.array_equal(sitk.GetArrayFromImage(image).T, hu)
        scan = read_volume(folder)
        assert np.array_equal(scan.data, hu)
        matrix = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
        np.testing.assert_allclose(scan.affine[:3, :3], np.diag([-1, -1, 1]) @ matrix, atol=1e-6)
        np.testing.assert_allclose(scan.affine[:3, 3], np.diag([-1, -1, 1]) @ image.GetOrigin(), atol=1e-6)


def test_one_position_for_all(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    """imageio/imageio#347, #349: scrubbed positions are no acquisitions, whatever else counts up."""
    for number, elements in enumerate(({}, {"InstanceNumber": None}, {"AcquisitionNumber": None})):
        folder = tmp_path / str(number)
        each = [{"ImagePositionPatient": [0, 0, 0], "SliceLocation": 3.0 * z} for z in range(6)]
        make_series(folder, numbers(6), each=each, **elements)
        message = refused(folder, GridError)
        assert "ImagePositionPatient" in message
        assert "acquisition" not in message


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["103", "106"], 1),
        (["103.0", "105.5"], 0.1),
        (["103.0", "106.0"], 1),
        (["103.000000", "106.000000"], 0.1),
        (["-198.199997", "-204.000000"], 0.1),
        (["1.025e2", "103"], 0.1),
        (["-0.12345678", "3"], 1e-8),
        (["0.1234", "none", ""], 1e-4),
        ([], 1),
    ],
)
def test_the_last_digit(texts: list[str], unit: float) -> None:
    assert last_unit(texts) == pytest.approx(unit)


@QUICK
@given(
    step=st.floats(0.3, 5),
    start=st.floats(-500, 500),
    count=st.integers(2, 60),
    unit=st.sampled_from([0.001, 0.1, 1.0]),
)
def test_a_line_that_is_rounded(step: float, start: float, count: int, unit: float) -> None:
    """NumPy's own line of least squares; and what was rounded is known to be so."""
    exact = start + step * np.arange(count)
    assert rounded_line(np.round(exact / unit) * unit, unit)
    first, found = fit_line(exact)
    slope, intercept = np.polyfit(np.arange(count), exact, 1)
    np.testing.assert_allclose([first, found], [intercept, slope], rtol=1e-8, atol=1e-7)
    if count > 4:
        moved = exact.copy()
        moved[count // 2] += 2.5 * unit
        assert not rounded_line(moved, unit)
        assert distances_from_others(moved)[count // 2] == pytest.approx(2.5 * unit, rel=1e-6, abs=1e-9)


def test_refusals_name_the_element(tmp_path: Path, make_series: MakeSeries, refused: Refused) -> None:
    """Each tells the element, the file and what it holds."""
    wrong: dict[str, Any] = {
        "ImagePositionPatient": ["1", "2"],
        "ImageOrientationPatient": ["1", "0", "0"],
        "PixelSpacing": ["0.8"],
    }
    for keyword, values in wrong.items():
        folder = tmp_path / keyword
        make_series(folder, numbers(4), each=[{}, {}, {keyword: values}, {}])
        message = refused(folder, InputError)
        assert keyword in message
        assert "002.dcm" in message
        assert repr("\\".join(values)) in message


@pytest.mark.parametrize(("digits", "step"), [(0, 2.5), (0, 1.25), (1, 0.625)])
def test_a_mask_that_itk_made_of_rounded_positions(
    tmp_path: Path, make_series: MakeSeries, digits: int, step: float
) -> None:
    """ITK begins at the first slice's position, and divides the way to the last one."""
    places = np.array([-10.2, 20.3, -700.44]) + np.arange(40)[:, None] * [0, 0, step]
    hu = write(make_series, tmp_path / "series", places, digits)
    scan = read_volume(tmp_path / "series")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    sitk.WriteImage(sitk.Cast(reader.Execute() > 0, sitk.sitkUInt8), str(tmp_path / "mask.nii.gz"))
    for like in (scan, scan.canonical(), scan.crop(scan.grid.box)):
        np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", like=like), like.data > 0)
    assert scan.data.shape == hu.shape
    for shift in ([0.2, 0, 0], [0, 0, 0.5 * step + 0.01], [0, 0, -step]):
        moved = scan.affine.copy()
        moved[:3, 3] += shift
        assert not same_grid(scan.grid, Grid(scan.shape, moved))


def test_exact_positions_forgive_no_more(tmp_path: Path, make_series: MakeSeries) -> None:
    places = np.array([-10.0, 20.0, -700.0]) + np.arange(40)[:, None] * [0, 0, 2]
    write(make_series, tmp_path / "series", places, 0)
    assert max(read_volume(tmp_path / "series").grid.rounding) < 1e-9
