"""NIfTI headers as other programs wrote them: read as nifti1.h says, or refused for their true reason.

Expected places come from nifti1.h; SimpleITK (nifti1_io.c) and nibabel are asked where they read the file.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from mpfnl.errors import FormatError, GridError, InputError
from mpfnl.phases import Phase
from mpfnl.volumes import open_scan, read_volume, write_volume

SHAPE = (8, 7, 6)
DIM, PIXDIM, VOX_OFFSET, SLOPE, QFORM_CODE, SFORM_CODE = 40, 76, 108, 112, 252, 254
QUATERN, QOFFSET, SFORM = 256, 268, 280
EMPTY = tuple((SFORM + 4 * place, "<f", 0.0) for place in range(12))


def hu(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, shape).astype(np.int16)


def placed() -> np.ndarray:
    affine = np.diag([0.8, 0.7, 2.5, 1.0])
    affine[:3, 3] = -50, -60, -300
    return affine


def content(
    *changes: tuple[int, str, Any], affine: np.ndarray | None = None, sform: int = 1, qform: int = 1
) -> bytearray:
    """The bytes of a file whose header fields (offset, struct format, value) no writer has repaired."""
    affine = placed() if affine is None else affine
    image = nib.Nifti1Image(hu(), affine)
    image.set_sform(affine, sform)
    image.set_qform(affine, qform, strip_shears=True)
    raw = bytearray(image.to_bytes())
    for offset, form, value in changes:
        struct.pack_into(form, raw, offset, value)
    return raw


def saved(tmp_path: Path, *changes: tuple[int, str, Any], **named: Any) -> Path:
    path = tmp_path / "scan.nii"
    path.write_bytes(content(*changes, **named))
    return path


def refusal(path: Path, kind: type[InputError]) -> str:
    with pytest.raises(kind) as caught:
        read_volume(path, Phase.ARTERIAL)
    message = str(caught.value)
    assert message.startswith(f"{path} (arterial phase): ")
    assert "\n" not in message
    assert ";" in message
    return message


def itk_affine(path: Path) -> np.ndarray:
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("qfac", [0.0, 1.0, -1.0, 0.5, -3.0, np.nan])
def test_qfac(tmp_path: Path, suffix: str, qfac: float) -> None:
    """nifti1.h: 0 counts as 1 (nipy/nibabel#1394, ITK#1484, ITK#3333); nifti1_io.c: so does all but < 0."""
    raw = content((PIXDIM, "<f", qfac), sform=0)
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(gzip.compress(raw) if suffix == ".nii.gz" else raw)
    scan = read_volume(path)
    expected = placed() * ([1, 1, -1, 1] if qfac < 0 else 1)
    np.testing.assert_allclose(scan.affine, expected, atol=1e-5)
    np.testing.assert_allclose(scan.affine, itk_affine(path), atol=1e-5)
    assert np.array_equal(scan.data, hu())


NO_PLACE = {
    "empty": EMPTY,
    "only a position": EMPTY[:3] + EMPTY[4:7] + EMPTY[8:11],
    "not finite": ((SFORM, "<f", np.nan),),
    "no extent along z": ((SFORM + 40, "<f", 0.0),),
    "two axes in one": ((SFORM, "<f", 0.0), (SFORM + 16, "<f", 0.8)),
}


@pytest.mark.parametrize("case", NO_PLACE)
def test_an_sform_without_a_place_beside_a_good_qform(tmp_path: Path, case: str) -> None:
    """Enet4/nifti-rs#41 (all zero by default); ITK takes the qform."""
    path = saved(tmp_path, *NO_PLACE[case], sform=2, qform=1)
    scan = read_volume(path)
    np.testing.assert_allclose(scan.affine, placed(), atol=1e-5)
    if case != "not finite":  # at which ITK stops
        np.testing.assert_allclose(scan.affine, itk_affine(path), atol=1e-5)
    assert scan.grid.space == 1
    refusal(saved(tmp_path, *NO_PLACE[case], sform=2, qform=0), GridError)


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("junk", [3.0, np.nan, np.inf])
def test_a_good_sform_beside_a_qform_of_junk(tmp_path: Path, junk: float, code: int) -> None:
    changes = [(QUATERN + 4 * place, "<f", junk) for place in range(6)]
    scan = read_volume(saved(tmp_path, *changes, sform=1, qform=code))
    np.testing.assert_allclose(scan.affine, placed(), atol=1e-5)
    assert "qform" in refusal(saved(tmp_path, *changes, *EMPTY, qform=1), GridError)


@pytest.mark.parametrize("excess", [1e-7, 2e-7, 3.8e-7, 1e-6, 1e-4])
@pytest.mark.parametrize("axis", range(3))
def test_a_quaternion_that_rounding_made_too_long(tmp_path: Path, axis: int, excess: float) -> None:
    """nipreps/fmriprep#845 (public files, 3.8e-7 too long): half a turn, as nifti1_io.c reads it."""
    quaternion = np.roll([1 + excess, 0, 0], axis)
    changes = [(QUATERN + 4 * part, "<f", quaternion[part]) for part in range(3)]
    path = saved(tmp_path, *changes, sform=0)
    expected = placed()
    expected[:3, :3] *= np.where(np.eye(3)[axis], 1, -1)[:, None]
    scan = read_volume(path)
    np.testing.assert_allclose(scan.affine, expected, atol=1e-4)
    np.testing.assert_allclose(scan.affine, itk_affine(path), atol=1e-4)


@pytest.mark.parametrize("length", [1.01, 1.2, 100.0])
def test_a_quaternion_that_is_none(tmp_path: Path, length: float) -> None:
    changes = [(QUATERN + 4 * part, "<f", length / 3**0.5) for part in range(3)]
    assert "qform" in refusal(saved(tmp_path, *changes, sform=0), GridError)


@pytest.mark.parametrize(
    ("sform", "qform", "space"),
    [(1, 0, 1), (0, 1, 1), (2, 1, 2), (4, 1, 4), (5, 5, 5), (-1, 3, 3), (1, -1, 1), (7, 0, 2), (0, 1000, 2)],
)
def test_codes(tmp_path: Path, sform: int, qform: int, space: int) -> None:
    """A code above 0 counts; one that nifti2.h does not name is written again as that for "aligned"."""
    path = saved(tmp_path, (SFORM_CODE, "<h", sform), (QFORM_CODE, "<h", qform))
    scan = read_volume(path)
    np.testing.assert_allclose(scan.affine, placed(), atol=1e-5)
    write_volume(tmp_path / "out.nii", scan.data, like=scan)
    again = read_volume(tmp_path / "out.nii")
    assert scan.grid.space == again.grid.space == space
    np.testing.assert_allclose(again.affine, placed(), atol=1e-5)


@pytest.mark.parametrize("codes", [(0, 0), (-1, 0), (0, -2)])
def test_no_code(tmp_path: Path, codes: tuple[int, int]) -> None:
    refusal(saved(tmp_path, (SFORM_CODE, "<h", codes[0]), (QFORM_CODE, "<h", codes[1])), GridError)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("more", [(1,), (1, 1), (1, 1, 1, 1)])
def test_further_axes_of_one(tmp_path: Path, suffix: str, more: tuple[int, ...]) -> None:
    """nipreps/mriqc#738, nipreps/fmriprep#792, neurosynth/neurosynth#43: (x, y, z, 1) is one volume."""
    path = tmp_path / f"scan{suffix}"
    nib.save(nib.Nifti1Image(hu().reshape(*SHAPE, *more), placed()), path)
    assert np.array_equal(read_volume(path).data, hu())
    scan = open_scan(path)
    assert np.array_equal(scan.read(scan.grid.slab(2, 5)), hu()[:, :, 2:5])
    scan.close()


def test_a_fourth_axis_of_none(tmp_path: Path) -> None:
    """nifti1_io.c: a further size of 0 counts as 1."""
    path = saved(tmp_path, (DIM, "<h", 4), (DIM + 8, "<h", 0))
    assert np.array_equal(read_volume(path).data, hu())


@pytest.mark.parametrize(("more", "count"), [((3,), "3"), ((1, 2), "2"), ((2, 1, 2), "4")])
def test_several_volumes(tmp_path: Path, more: tuple[int, ...], count: str) -> None:
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(hu((*SHAPE, *more)), placed()), path)
    assert f"{count} volumes" in refusal(path, GridError)


@pytest.mark.parametrize("axes", [0, -1, 8, 3 << 8])
def test_a_number_of_axes_that_cannot_be(tmp_path: Path, axes: int) -> None:
    """nifti1.h: dim[0] tells the byte order; 3 << 8 is 3 the other way round, and the sizes are then not."""
    refusal(saved(tmp_path, (DIM, "<h", axes)), InputError)


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_pixdim_is_rounded(tmp_path: Path, digits: int) -> None:
    affine = np.diag([0.703125, 0.703125, 2.49998, 1.0])
    changes = [(PIXDIM + 4 * axis, "<f", round(affine[axis - 1, axis - 1], digits)) for axis in (1, 2, 3)]
    scan = read_volume(saved(tmp_path, *changes, affine=affine, qform=0))
    np.testing.assert_allclose(scan.affine, affine, atol=1e-6)
    refusal(saved(tmp_path, (PIXDIM + 12, "<f", 2.6), affine=affine, qform=0), GridError)


@pytest.mark.parametrize("packed", [False, True])
def test_where_the_voxels_begin(tmp_path: Path, packed: bool) -> None:
    """Also without the four bytes after the header, which some writers leave out, and with any extension."""
    raw, voxels = content(), hu().tobytes(order="F")
    cases = {
        (352.0, b"\0\0\0\0"),
        (352.7, b"\0\0\0\0"),
        (0.0, b"\0\0\0\0"),
        (348.0, b"\0\0\0\0"),
        (0.0, b""),
        (348.0, b""),
        (-5.0, b"\0\0\0\0"),
        (353.0, b"\0\0\0\0\0"),
        (400.0, b"\1\0\0\0" + struct.pack("<2i", 48, 6) + b"a comment".ljust(40)),
    }
    for offset, between in cases:
        struct.pack_into("<f", raw, VOX_OFFSET, offset)
        whole = bytes(raw[:348]) + between + voxels
        path = tmp_path / "scan.nii"
        path.write_bytes(gzip.compress(whole) if packed else whole)
        assert np.array_equal(read_volume(path).data, hu()), (offset, between)
    for offset in (np.nan, np.inf, -np.inf, 1e30):
        struct.pack_into("<f", raw, VOX_OFFSET, offset)
        path.write_bytes(gzip.compress(raw) if packed else raw)
        refusal(path, InputError)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("intercept", [0.0, 5.0, np.nan])
def test_a_slope_that_is_none(tmp_path: Path, slope: float, intercept: float) -> None:
    path = saved(tmp_path, (SLOPE, "<f", slope), (SLOPE + 4, "<f", intercept))
    assert np.array_equal(read_volume(path).data, hu())
    assert np.array_equal(nib.load(path).dataobj, hu())


@pytest.mark.parametrize("units", [0, 2, 8, 10, 7])
def test_units_that_are_not_metres(tmp_path: Path, units: int) -> None:
    np.testing.assert_allclose(read_volume(saved(tmp_path, (123, "<B", units))).affine, placed(), atol=1e-5)


def test_analyze_is_named(tmp_path: Path) -> None:
    assert "ANALYZE" in refusal(saved(tmp_path, (344, "<i", 0)), FormatError)
