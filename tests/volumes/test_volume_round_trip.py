"""What is written is read back the same, by this package, nibabel and SimpleITK."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mpfnl.errors import ConflictError, InputError, OutputError
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.volumes.writing import check_output

SHAPE = (6, 5, 4)


def hu(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3024, 3071, SHAPE).astype(np.int16)


def itk_affine(path: Path) -> np.ndarray:
    """SimpleITK's geometry as a RAS+ affine (ITK's world is LPS+)."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Rotated, flipped, permuted and anisotropic grids anywhere within 1 m."""
    angles = draw(st.tuples(*[st.sampled_from([0, 90, 180, -90, 12.5]) | st.floats(-180, 180)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.2, 8.0)] * 3))
    flips = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    affine[:3, :3] = (rotation * np.array(spacing) * np.array(flips))[:, draw(st.permutations(range(3)))]
    affine[:3, 3] = draw(st.tuples(*[st.floats(-1000, 1000)] * 3))
    return affine


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(affine=affines(), suffix=st.sampled_from([".nii", ".nii.gz"]), space=st.sampled_from([1, 2, 4]))
def test_geometry(tmp_path: Path, affine: np.ndarray, suffix: str, space: int) -> None:
    path = tmp_path / f"scan{suffix}"
    write_volume(path, hu(), Volume.from_array(hu(), affine, path, space=space))
    stored = affine.astype(np.float32).astype(np.float64)
    again = read_volume(path)
    image = nib.load(path)
    assert np.array_equal(again.affine, stored)
    assert np.array_equal(image.affine, stored)
    # ITK takes the quaternion: of its float32 numbers a^2 = 1 - b^2 - c^2 - d^2, whose root near 0 is as
    # uncertain as the root of their precision.
    uncertain = np.sqrt(np.finfo(np.float32).eps) * np.linalg.norm(stored[:3, :3], axis=0).max()
    np.testing.assert_allclose(itk_affine(path)[:, 3], stored[:, 3], atol=2e-4)
    np.testing.assert_allclose(itk_affine(path)[:3, :3], stored[:3, :3], atol=max(2e-4, uncertain))
    np.testing.assert_allclose(again.spacing, image.header.get_zooms(), rtol=1e-5)
    assert image.header["sform_code"] == image.header["qform_code"] == again.grid.space == space
    assert image.header.get_slope_inter() in [(1, 0), (None, None)]
    assert image.header.get_xyzt_units()[0] == "mm"
    assert np.array_equal(np.asanyarray(image.dataobj), hu())
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T, hu())


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_number_type_is_kept(tmp_path: Path, dtype: type) -> None:
    data = hu().astype(dtype)
    if np.issubdtype(dtype, np.floating):
        data += np.asarray(0.1, dtype)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 3, 1])), tmp_path / "in.nii.gz")
    scan = read_volume(tmp_path / "in.nii.gz")
    write_volume(tmp_path / "out.nii.gz", scan.data, scan)
    image = nib.load(tmp_path / "out.nii.gz")
    assert image.get_data_dtype() == dtype
    assert np.array_equal(np.asanyarray(image.dataobj), data)


@pytest.mark.parametrize("by", ["storage", "dtype"])
def test_masks_are_bytes(tmp_path: Path, by: str) -> None:
    mask = np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8)
    path = tmp_path / "labels.nii.gz"
    if by == "storage":
        write_volume(path, mask, Volume.from_array(mask, np.diag([2.0, 2, 3, 1]), path))
    else:
        like = Volume.from_array(hu(), np.diag([2.0, 2, 3, 1]), path)
        write_volume(path, mask, like, np.dtype(np.uint8))
    image, other = nib.load(path), sitk.ReadImage(str(path))
    assert image.get_data_dtype() == np.uint8
    assert other.GetPixelID() == sitk.sitkUInt8
    assert (image.dataobj.slope, image.dataobj.inter) == (1, 0)
    assert np.array_equal(np.asanyarray(image.dataobj), mask)
    assert np.array_equal(sitk.GetArrayFromImage(other).T, mask)


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "written"),
    [
        (np.uint16, 1, -1024, np.int16),
        (np.int16, 2, 5, np.int16),
        (np.uint8, 10, -1000, np.int16),
        (np.uint16, 1, 0, np.int16),
        (np.int16, 0.25, -100.5, np.float32),
        (np.uint16, 3, 0, np.int32),
    ],
)
def test_scaled_storage(tmp_path: Path, stored: type, slope: float, intercept: float, written: type) -> None:
    top = 20000 if slope == 3 else 250
    raw = np.random.default_rng(0).integers(0, top + 1, SHAPE).astype(stored)
    raw[0, 0, 0] = top
    image = nib.Nifti1Image(raw, np.diag([2.0, 2, 3, 1]))
    image.header.set_slope_inter(slope, intercept)
    content = bytearray(image.to_bytes())
    header = nib.Nifti1Header(bytes(content[:348]))
    header["scl_slope"], header["scl_inter"] = slope, intercept
    content[:348] = header.binaryblock
    content[352:] = raw.tobytes(order="F")
    (tmp_path / "in.nii").write_bytes(content)
    expected = nib.load(tmp_path / "in.nii").get_fdata()

    scan = read_volume(tmp_path / "in.nii")
    write_volume(tmp_path / "out.nii", scan.data, scan)
    assert np.array_equal(scan.data, expected)
    assert scan.storage == written
    assert np.array_equal(np.asanyarray(nib.load(tmp_path / "out.nii").dataobj), expected)


def test_big_endian_and_nifti2_are_read(tmp_path: Path) -> None:
    affine = np.diag([2.0, 2, 3, 1])
    big = nib.Nifti1Image(hu().astype(">i2"), affine, nib.Nifti1Header(endianness=">"))
    big.set_data_dtype(np.int16)
    nib.save(big, tmp_path / "big.nii.gz")
    nib.save(nib.Nifti2Image(hu(), affine), tmp_path / "two.nii.gz")
    assert gzip.decompress((tmp_path / "big.nii.gz").read_bytes())[:4] == b"\0\0\x01\x5c"
    for name in ("big.nii.gz", "two.nii.gz"):
        scan = read_volume(tmp_path / name)
        assert np.array_equal(scan.data, hu())
        assert scan.data.dtype == np.int16
        assert np.array_equal(scan.affine, affine)


def test_qform_alone_is_read(tmp_path: Path) -> None:
    image = nib.Nifti1Image(hu(), None)
    image.set_qform(np.diag([-0.8, -0.8, 5, 1.0]), code=1)
    nib.save(image, tmp_path / "q.nii")
    np.testing.assert_allclose(read_volume(tmp_path / "q.nii").affine, np.diag([-0.8, -0.8, 5, 1]), atol=1e-6)


def test_rounds_and_saturates(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    like = Volume.from_array(hu(), np.eye(4), path)
    values = np.full(SHAPE, -0.6, np.float32)
    values[0, 0, :4] = 1e6, -1e6, 32767.4, 99.5
    write_volume(path, values, like)
    assert np.asanyarray(nib.load(path).dataobj)[0, 0].tolist() == [32767, -32768, 32767, 100]
    assert read_volume(path).data[1, 1, 1] == -1
    with pytest.raises(ValueError, match="NaN"):
        write_volume(path, np.full(SHAPE, np.nan), like)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nii"]


def test_same_voxels_give_the_same_bytes(tmp_path: Path) -> None:
    like = Volume.from_array(hu(), np.eye(4), tmp_path / "x.nii.gz")
    write_volume(tmp_path / "one.nii.gz", hu(), like)
    write_volume(tmp_path / "another.nii.gz", np.asfortranarray(hu()), like)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "another.nii.gz").read_bytes()


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    like = Volume.from_array(hu(), np.eye(4), path)
    write_volume(path, hu(), like)
    before = path.read_bytes()
    bad = hu().astype(np.float32)
    bad[0, 0, -1] = np.inf  # found only when the last slice is written
    with pytest.raises(ValueError, match="infinite"):
        write_volume(path, bad, like)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def refused(kind: type[InputError], output: Path, *inputs: Path) -> str:
    with pytest.raises(kind) as caught:
        check_output(output, inputs)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{output}: ")
    return str(caught.value)


def test_an_output_that_is_an_input(tmp_path: Path) -> None:
    scan = tmp_path / "pv.nii.gz"
    scan.write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.nii.gz").symlink_to(scan)
    (tmp_path / "hard.nii.gz").hardlink_to(scan)
    (tmp_path / "folder").symlink_to(tmp_path)
    same = ["pv.nii.gz", "sub/../pv.nii.gz", "link.nii.gz", "hard.nii.gz", "folder/pv.nii.gz"]
    for name in same:
        refused(ConflictError, tmp_path / name, tmp_path / "nc.nii.gz", scan)
    refused(ConflictError, tmp_path / "nc.nii.gz", tmp_path / "nc.nii.gz")
    check_output(tmp_path / "out.nii.gz", [scan, tmp_path / "link.nii.gz"])


def test_other_bad_outputs(tmp_path: Path) -> None:
    (tmp_path / "folder.nii").mkdir()
    assert ".nii.gz" in refused(OutputError, tmp_path / "out.mha")
    refused(OutputError, tmp_path / "out.nii.gz.txt")
    assert str(tmp_path / "none") in refused(OutputError, tmp_path / "none" / "out.nii.gz")
    refused(OutputError, tmp_path / "folder.nii")


@pytest.mark.realdata
@pytest.mark.parametrize(
    "name", ["crlm_pv_1004/CRLM-CT-1004_pv_bodycrop.nii.gz", "ts_noncontrast/example_ct.nii.gz"]
)
def test_real_scans(real_data: Path, tmp_path: Path, name: str) -> None:
    source = real_data / name
    scan = read_volume(source, Phase.PORTAL_VENOUS)
    write_volume(tmp_path / "out.nii.gz", scan.data, scan)
    before, after = nib.load(source), nib.load(tmp_path / "out.nii.gz")
    assert after.get_data_dtype() == before.get_data_dtype()
    assert np.array_equal(np.asanyarray(after.dataobj), np.asanyarray(before.dataobj))
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-6)
    np.testing.assert_allclose(after.header.get_qform(), before.affine, atol=1e-5)
    np.testing.assert_allclose(itk_affine(tmp_path / "out.nii.gz"), itk_affine(source), atol=1e-5)
    np.testing.assert_allclose(itk_affine(tmp_path / "out.nii.gz"), after.affine, atol=1e-4)
