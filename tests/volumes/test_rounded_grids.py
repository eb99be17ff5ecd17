"""What rounding does to a header is no geometry: such scans are read, and lie on the grid of their masks.

Reports: pyradiomics#482, UCL/PETPVC#30, torchio#592 (2.49998 against 2.5); TotalSegmentator#461,
MONAILabel#1634 and Anima-Public#108 (cosines with few digits, which ITK calls not orthonormal).
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mpfnl.errors import GridError
from mpfnl.prepare.resampling import to_image
from mpfnl.volumes import Grid, Volume, read_mask, read_volume, write_volume
from mpfnl.volumes.grid import check_affine, same_grid

SHAPE = (8, 7, 6)
WIDE = (512, 512, 300)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, SHAPE).astype(np.int16)


def affine_of(
    axes: np.ndarray, spacing: tuple[float, ...], origin: tuple[float, ...] = (0, 0, 0)
) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = origin
    return affine


def itk_grid(path: Path, shape: tuple[int, int, int]) -> Grid:
    image = sitk.ReadImage(str(path))
    axes = np.array(image.GetDirection()).reshape(3, 3)
    return Grid(shape, LPS_TO_RAS @ affine_of(axes, image.GetSpacing(), image.GetOrigin()))


angles = st.tuples(*3 * [st.floats(-20, 20)])
spacings = st.tuples(st.floats(0.4, 1.2), st.floats(0.4, 1.2), st.floats(0.5, 8))
directions = st.tuples(*3 * [st.sampled_from([-1, 1])])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(angles=angles, spacing=spacings, directions=directions, digits=st.integers(0, 4))
def test_cosines_with_few_digits(
    tmp_path: Path,
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    directions: tuple[int, ...],
    digits: int,
) -> None:
    """Three digits are always read, fewer where they leave right angles; other programs read the output."""
    true = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * directions
    rounded = np.round(true, digits)
    lengths = np.linalg.norm(rounded, axis=0)
    assume(lengths.all())
    affine = affine_of(rounded / lengths, spacing, (-200.0, 31.5, -700.25))
    path = tmp_path / "scan.nii"
    image = nib.Nifti1Image(hu(), affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    nib.save(image, path)
    try:
        scan = read_volume(path)
    except GridError:
        assert digits < 3
        return
    assert np.array_equal(scan.affine, nib.load(path).affine)
    write_volume(tmp_path / "out.nii", scan.data, like=scan)
    assert np.array_equal(nib.load(tmp_path / "out.nii").affine, scan.affine)
    wide = Grid(WIDE, scan.affine)
    for file in (path, tmp_path / "out.nii"):
        itk = itk_grid(file, WIDE)
        assert same_grid(wide, itk) == (wide.offset_mm(itk) < 0.5 * min(spacing))
        assert same_grid(wide.canonical(), itk.canonical()) == same_grid(wide, itk)
        # nifti1_io.c takes a^2 below 1e-7 for 0, which turns a grid by twice that a at most.
        np.testing.assert_allclose(itk.affine, wide.right_angled().affine, atol=7e-4 * max(spacing))
    if digits >= 3:
        far = Grid(WIDE, affine_of(true, spacing, (-200.0, 31.5, -700.25)))
        bound = 2 * 3**0.5 * 0.5 * 10.0**-digits * sum(np.multiply(WIDE, spacing))
        assert wide.offset_mm(far) <= bound
    upright = to_image(scan.data, scan.affine)
    axes = np.array(upright.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    sitk.WriteImage(upright, str(tmp_path / "upright.nii"))  # of axes as they are ITK would read nothing
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "upright.nii"))).T, hu())


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_three_digits_in_text_headers(tmp_path: Path, suffix: str) -> None:
    axes = np.round(Rotation.from_euler("xyz", [5, 3, 2], degrees=True).as_matrix(), 3)
    image = sitk.GetImageFromArray(hu().T)
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetDirection(axes.ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / f"scan{suffix}"))
    scan = read_volume(tmp_path / f"scan{suffix}")
    np.testing.assert_allclose(scan.affine, LPS_TO_RAS @ affine_of(axes, (0.7, 0.8, 3.0)), atol=1e-6)
    assert abs(scan.grid.shear[0]) > 1e-5


@settings(max_examples=60, deadline=None)
@given(
    axis=st.permutations(range(3)),
    degrees=st.floats(0.3, 30),
    angles=angles,
    spacing=spacings,
    directions=directions,
)
def test_a_tilt_is_no_rounding(
    axis: list[int],
    degrees: float,
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    directions: tuple[int, ...],
) -> None:
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * directions
    axes[:, axis[0]] += np.tan(np.radians(degrees)) * axes[:, axis[1]]
    affine = affine_of(np.round(axes / np.linalg.norm(axes, axis=0), 3), spacing)
    with pytest.raises(GridError, match=r"^scan\.nii: .*DICOM"):
        check_affine(affine, "scan.nii")
    upright = Grid(WIDE, affine).right_angled()
    assert not same_grid(Grid(WIDE, affine), upright)


@settings(max_examples=100, deadline=None)
@given(
    angles=st.just((0, 0, 0)) | angles,
    spacing=spacings,
    directions=directions,
    origin=st.tuples(*3 * [st.floats(-900, 900)]),
    shape=st.tuples(st.integers(64, 512), st.integers(64, 512), st.integers(2, 600)),
    data=st.data(),
)
def test_the_same_grid_with_rounded_numbers(
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    directions: tuple[int, ...],
    origin: tuple[float, ...],
    shape: tuple[int, int, int],
    data: st.DataObject,
) -> None:
    """Spacing with four digits, an origin with two, float32, and a slice step that float32 positions give."""
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * directions
    grid = Grid(shape, affine_of(axes, spacing, origin))
    edge = min(spacing)
    single = grid.affine.astype(np.float32)
    ends = (np.float32(origin[2]) + np.float32(spacing[2])) - np.float32(origin[2])
    others = [
        affine_of(axes, np.round(spacing, 4), origin),
        affine_of(axes, spacing, np.round(origin, 2)),
        affine_of(axes, (*spacing[:2], float(ends)), origin),
        single,
        affine_of(axes, spacing, np.add(origin, 0.09 * edge * axes[:, 1])),
    ]
    for number, other in enumerate(others):
        assert same_grid(grid, Grid(shape, other)), number
        assert same_grid(Grid(shape, other), grid)
    part = data.draw(st.sampled_from([0.5, 1.0, 0.2, -0.5]))
    along = data.draw(st.integers(0, 2))
    shifted = grid.affine.copy()
    shifted[:3, 3] += part * grid.affine[:3, along]  # an edge for a centre, a slice too many
    assert not same_grid(grid, Grid(shape, shifted))
    assert not same_grid(grid, Grid(shape, affine_of(axes, np.multiply(spacing, [1.01, 1, 1]), origin)))


def test_a_mask_on_the_grid_that_dcm2niix_wrote(tmp_path: Path) -> None:
    """dcm2niix 1.0.20260724 wrote 1.00003 mm for 60 slices at -512.34, -511.34 mm and so on."""
    shape = (8, 6, 60)
    affine = affine_of(np.eye(3), (0.8, 0.7, 1.0), (-150.3, -160.7, -512.34))
    scan = Volume.from_array(np.zeros(shape, np.int16), affine, tmp_path / "scan.nii")
    mask = np.random.default_rng(0).integers(0, 2, shape).astype(np.uint8)
    affine = affine.copy()
    affine[2, 2] = 1.00003
    nib.save(nib.Nifti1Image(mask, affine), tmp_path / "mask.nii.gz")
    assert np.array_equal(read_mask(tmp_path / "mask.nii.gz", like=scan), mask)


def test_a_mask_that_an_itk_program_wrote(tmp_path: Path) -> None:
    """ITK-SNAP and 3D Slicer read axes at right angles of a file with 89.9 degrees, and write these."""
    axes = Rotation.from_euler("xyz", [5, 3, 2], degrees=True).as_matrix()
    axes[:, 0] += 1.6e-3 * axes[:, 1]
    axes *= [-1, -1, 1] / np.linalg.norm(axes, axis=0)
    affine = affine_of(axes, (0.7, 0.8, 3.0), (200.0, 150.0, -700.0))
    shape = (512, 300, 2)
    scan = Volume.from_array(np.zeros(shape, np.int16), affine, tmp_path / "scan.nii")
    write_volume(scan.path, scan.data, like=scan)
    image = sitk.ReadImage(str(scan.path))
    sitk.WriteImage(sitk.Cast(image, sitk.sitkUInt8) + 1, str(tmp_path / "mask.nii.gz"))
    assert nib.load(tmp_path / "mask.nii.gz").affine[:3, 0] == pytest.approx(
        itk_grid(scan.path, shape).affine[:3, 0]
    )
    for like in (scan, scan.canonical()):
        assert read_mask(tmp_path / "mask.nii.gz", like=like).all()


def right_angles(axes: np.ndarray, way: str) -> np.ndarray:
    """Axes at right angles of axes with few digits, as programs make them."""
    x, y, z = (axes / np.linalg.norm(axes, axis=0)).T
    if way == "as they are":
        return np.stack([x, y, z], axis=1)
    if way == "nearest":  # NIfTI's qform
        left, _, right = np.linalg.svd(axes)
        return left @ right
    normal = np.cross(x, y)
    normal /= np.linalg.norm(normal)
    if way == "rows":
        return np.stack([x, np.cross(normal, x), normal], axis=1)
    return np.stack([np.cross(y, normal), y, normal], axis=1)  # ITK's reader of DICOM


@settings(max_examples=60, deadline=None)
@given(
    angles=angles,
    spacing=spacings,
    directions=directions,
    ways=st.tuples(*2 * [st.sampled_from(["as they are", "nearest", "rows", "columns"])]),
    stretch=st.sampled_from([1.0, 1.002]),
)
def test_right_angles_in_any_way(
    angles: tuple[float, ...],
    spacing: tuple[float, ...],
    directions: tuple[int, ...],
    ways: tuple[str, str],
    stretch: float,
) -> None:
    """One series of three-digit cosines, read from DICOM by one program and from NIfTI by another."""
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    axes[:, :2] = np.round(axes[:, :2], 3)
    a, b = (
        Grid(WIDE, affine_of(right_angles(axes, way) * directions, edges, (-200.0, -150.0, -700.0)))
        for way, edges in zip(ways, (spacing, np.multiply(spacing, [1, 1, stretch])), strict=True)
    )
    near = a.offset_mm(b) < 0.5 * min(spacing)
    longer = (WIDE[2] - 1) * spacing[2] * (stretch - 1)
    assert same_grid(a, b) == (near and longer < 0.1 * min(spacing))
    assert same_grid(a.canonical(), b.canonical()) == same_grid(a, b)
    moved = a.affine.copy()
    moved[:3, 3] += 0.2 * min(spacing) * axes[:, 2]
    assert not same_grid(a, Grid(WIDE, moved))
