"""NRRD and MetaImage files read as SimpleITK reads them, and what it would let pass is refused."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from mpfnl.errors import DamagedError, FormatError, GridError, InputError, IntensityError, NotFoundError
from mpfnl.volumes import Volume, read_mask, read_volume
from mpfnl.volumes.masks import read_label_volume
from mpfnl.volumes.scan import content_files

Refused: TypeAlias = Callable[..., str]

SHAPE = (6, 5, 4)
SUFFIXES = [".nrrd", ".nhdr", ".mha", ".mhd"]
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def hu(dtype: type = np.int16) -> np.ndarray:
    values = np.random.default_rng(0).integers(-1000, 3000, SHAPE)
    return values.astype(dtype) + (np.asarray(0.3, dtype) if np.issubdtype(dtype, np.floating) else 0)


def itk_image(values: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(values.T)
    image.SetSpacing((0.7, 0.8, 3.0))
    image.SetOrigin((-120.0, -90.5, 33.0))
    return image


def saved(path: Path, values: np.ndarray, packed: bool = False) -> Path:
    sitk.WriteImage(itk_image(values), str(path), packed)
    return path


def itk_read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, LPS_TO_RAS @ affine


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(SUFFIXES),
    packed=st.booleans(),
    dtype=st.sampled_from([np.int16, np.int32, np.int64, np.float32, np.float64, np.uint16, np.uint32]),
    angles=st.tuples(*[st.sampled_from([0.0, 90.0]) | st.floats(-180, 180)] * 3),
    mirrored=st.booleans(),
)
def test_as_simpleitk(
    tmp_path: Path,
    suffix: str,
    packed: bool,
    dtype: type,
    angles: tuple[float, float, float],
    mirrored: bool,
) -> None:
    values = hu(dtype) if np.issubdtype(dtype, np.signedinteger) else np.abs(hu(np.float64)).astype(dtype)
    image = itk_image(values)
    axes = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    image.SetDirection((axes * [1, 1, -1] if mirrored else axes).ravel().tolist())
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(image, str(path), packed)
    scan = read_volume(path)
    expected, affine = itk_read(path)
    assert np.array_equal(scan.data, expected)
    assert scan.data.flags.writeable
    np.testing.assert_allclose(scan.affine, affine, atol=1e-6)
    whole = np.issubdtype(dtype, np.integer)
    assert scan.data.dtype == (np.int16 if whole else dtype)
    files = content_files(path)
    assert files[0] == path
    assert len(files) == (2 if suffix in (".nhdr", ".mhd") else 1)
    assert all(file.is_file() for file in files)


def nrrd(path: Path, *fields: str, data: bytes | None = None, **changed: str) -> Path:
    header = {
        "type": "short",
        "dimension": "3",
        "sizes": " ".join(map(str, SHAPE)),
        "endian": "little",
        "encoding": "raw",
        "space": "left-posterior-superior",
        "space directions": "(0.7,0,0) (0,0.8,0) (0,0,3)",
        "space origin": "(1,2,3)",
    }
    header |= {key.replace("_", " "): value for key, value in changed.items()}
    lines = ["NRRD0005", *(f"{key}: {value}" for key, value in header.items() if value), *fields]
    raw = hu().tobytes(order="F") if data is None else data
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + raw)
    return path


def meta(path: Path, data: bytes | None = None, **changed: str) -> Path:
    header = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "1 2 3",
        "ElementSpacing": "0.7 0.8 3",
        "DimSize": " ".join(map(str, SHAPE)),
        "ElementType": "MET_SHORT",
    }
    header |= changed
    lines = [f"{key} = {value}" for key, value in header.items() if value] + ["ElementDataFile = LOCAL"]
    raw = hu().tobytes(order="F") if data is None else data
    path.write_bytes("\n".join(lines).encode() + b"\n" + raw)
    return path


@pytest.mark.parametrize("space", ["right-anterior-superior", "RAS", "LPS", "left-anterior-superior"])
def test_worlds_of_nrrd(tmp_path: Path, space: str) -> None:
    directions = "(0,0.7,0) (0.8,0,0) (0,0,-3)"
    path = nrrd(
        tmp_path / "a.nrrd", "a key:=some text: 1", "# a note: 2", space=space, space_directions=directions
    )
    scan = read_volume(path)
    values, affine = itk_read(path)
    assert np.array_equal(scan.data, values)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-9)


def test_big_endian(tmp_path: Path) -> None:
    swapped = hu().astype(">i2").tobytes(order="F")
    files = [
        nrrd(tmp_path / "a.nrrd", data=swapped, endian="big"),
        meta(tmp_path / "a.mha", swapped, BinaryDataByteOrderMSB="True"),
    ]
    for file in files:
        assert np.array_equal(read_volume(file).data, itk_read(file)[0])
        assert np.array_equal(read_volume(file).data, hu())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("packed", [False, True])
def test_cut_off_anywhere(tmp_path: Path, refused: Refused, suffix: str, packed: bool) -> None:
    path = saved(tmp_path / f"scan{suffix}", hu(), packed)
    file = content_files(path)[-1]
    whole = file.read_bytes()
    for kept in (len(whole) - 1, len(whole) - 3, len(whole) - 9, len(whole) - 100, 60):
        file.write_bytes(whole[:kept])
        refused(path, DamagedError)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damaged_in_any_byte(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"scan{suffix}", hu(), packed=True)
    file = content_files(path)[-1]
    whole = file.read_bytes()
    for place in range(5, 200, 13):
        content = bytearray(whole)
        content[-place] ^= 0xFF
        file.write_bytes(content)
        with pytest.raises(DamagedError, match=path.name):
            read_volume(path)


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_voxels_missing(tmp_path: Path, refused: Refused, suffix: str) -> None:
    path = saved(tmp_path / f"scan{suffix}", hu())
    content_files(path)[1].unlink()
    assert "scan.raw" in refused(path, NotFoundError)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_not_an_image(tmp_path: Path, refused: Refused, suffix: str) -> None:
    path = tmp_path / f"scan{suffix}"
    refused(path, NotFoundError)
    path.touch()
    refused(path, DamagedError)
    for content in (b"hello", b"x = y\n" * 900, np.random.default_rng(0).bytes(4000)):
        path.write_bytes(content)
        refused(path, FormatError)


NRRD: dict[str, tuple[dict[str, str], type[InputError]]] = {
    "no space": ({"space": ""}, GridError),
    "space by number": ({"space": "", "space_dimension": "3"}, GridError),
    "scanner's axes": ({"space": "scanner-xyz"}, GridError),
    "no directions": ({"space_directions": "", "spacings": "1 1 1"}, GridError),
    "no origin": ({"space_origin": ""}, GridError),
    "sheared": ({"space_directions": "(0.7,0,0) (0,0.8,0) (0,0.5,3)"}, GridError),
    "not finite": ({"space_directions": "(0.7,0,0) (0,0.8,0) (0,0,nan)"}, FormatError),
    "no extent": ({"space_directions": "(0.7,0,0) (0,0.8,0) (0,0,0)"}, GridError),
    "metres": ({"space_units": '"m" "m" "m"'}, GridError),
    "4-D": ({"sizes": "6 5 2 2", "dimension": "4"}, FormatError),
    "flat": ({"sizes": "60 2 1"}, GridError),
    "no sizes": ({"sizes": "6 5 x"}, FormatError),
    "colour": ({"type": "block"}, FormatError),
    "text": ({"encoding": "ascii"}, FormatError),
    "skip": ({"byte_skip": "-1"}, FormatError),
    "no byte order": ({"endian": ""}, FormatError),
    "fewer rows": ({"sizes": "6 5 3"}, DamagedError),
    "slices in files": ({"data_file": "slice%03d.raw 1 4 1"}, FormatError),
}


@pytest.mark.parametrize("case", list(NRRD))
def test_nrrd_refused(tmp_path: Path, refused: Refused, case: str) -> None:
    changed, kind = NRRD[case]
    refused(nrrd(tmp_path / "scan.nrrd", **changed), kind)


META: dict[str, tuple[dict[str, str], type[InputError]]] = {
    "no matrix": ({"TransformMatrix": ""}, GridError),
    "no offset": ({"Offset": ""}, GridError),
    "no spacing": ({"ElementSpacing": ""}, GridError),
    "negative spacing": ({"ElementSpacing": "0.7 0.8 -3"}, GridError),
    "spacing not finite": ({"ElementSpacing": "0.7 0.8 nan"}, GridError),
    "sheared": ({"TransformMatrix": "1 0 0 0 1 0 0 0.2 0.979796"}, GridError),
    "scaled": ({"TransformMatrix": "2 0 0 0 1 0 0 0 1"}, GridError),
    "metres": ({"DistanceUnits": "m"}, GridError),
    "4-D": (
        {
            "NDims": "4",
            "DimSize": "6 5 2 2",
            "ElementSpacing": "0.7 0.8 3 1",
            "Offset": "1 2 3 0",
            "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
        },
        GridError,
    ),
    "axes that do not fit": ({"NDims": "4", "DimSize": "6 5 2 2"}, FormatError),
    "channels": ({"ElementNumberOfChannels": "3"}, FormatError),
    "unknown type": ({"ElementType": "MET_STRING"}, FormatError),
    "text": ({"BinaryData": "False"}, FormatError),
    "skip": ({"HeaderSize": "-1"}, FormatError),
    "slope": ({"ElementToIntensityFunctionSlope": "2"}, IntensityError),
    "fewer rows": ({"DimSize": "6 5 3"}, DamagedError),
}


@pytest.mark.parametrize("case", list(META))
def test_metaimage_refused(tmp_path: Path, refused: Refused, case: str) -> None:
    changed, kind = META[case]
    refused(meta(tmp_path / "scan.mha", **changed), kind)


def test_slices_in_files(tmp_path: Path, refused: Refused) -> None:
    path = meta(tmp_path / "scan.mhd")
    path.write_bytes(path.read_bytes().replace(b"LOCAL", b"LIST"))
    refused(path, FormatError)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_that_are_no_hu(tmp_path: Path, refused: Refused, suffix: str) -> None:
    values = hu(np.float32)
    values[1, 2, 3] = np.nan
    assert "1 voxel " in refused(saved(tmp_path / f"nan{suffix}", values), IntensityError)
    windowed = np.random.default_rng(0).uniform(0, 1, SHAPE).astype(np.float32)
    refused(saved(tmp_path / f"unit{suffix}", windowed), IntensityError)
    assert "8 bits" in refused(
        saved(tmp_path / f"bytes{suffix}", np.abs(hu()).astype(np.uint8)), IntensityError
    )
    vectors = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.int16), isVector=True)
    sitk.WriteImage(vectors, str(tmp_path / f"vectors{suffix}"))
    refused(tmp_path / f"vectors{suffix}", FormatError)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".nii.gz"])
def test_masks_and_label_maps(tmp_path: Path, suffix: str) -> None:
    labels = np.random.default_rng(0).integers(0, 118, SHAPE).astype(np.uint8)
    path = saved(tmp_path / f"labels{suffix}", labels)
    scan = read_volume(saved(tmp_path / f"scan{suffix}", hu()))
    assert np.array_equal(read_mask(path, like=scan, label=7), labels == 7)
    with pytest.raises(IntensityError, match=path.name):
        read_mask(path)
    volume = read_label_volume(path)
    assert volume.data.dtype == volume.storage == np.uint8
    assert np.array_equal(volume.data, labels)
    np.testing.assert_allclose(volume.affine, scan.affine, atol=1e-5)
    moved = Volume.from_array(scan.data, scan.affine + np.eye(4)[:, [2, 1, 0, 3]] * 0.01, scan.path)
    with pytest.raises(GridError, match=path.name):
        read_mask(path, like=moved, label=7)


def test_labels_of_every_kind(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 60000, SHAPE)
    wide[0, 0, :3] = 0, 1, 60000
    for dtype in (np.uint16, np.int32, np.float32):
        volume = read_label_volume(saved(tmp_path / "wide.nrrd", wide.astype(dtype)))
        assert volume.data.dtype == np.uint16
        assert np.array_equal(volume.data, wide)
    for bad in (wide - 1, wide * 2, wide / 2):
        path = saved(tmp_path / "bad.nrrd", bad)
        with pytest.raises(IntensityError, match=r"bad\.nrrd.* 65535"):
            read_label_volume(path)


@pytest.mark.parametrize("make", [nrrd, meta])
def test_bytes_after_the_image(tmp_path: Path, refused: Refused, make: Callable[..., Path]) -> None:
    """Fewer than a slice cannot be voxels; a slice more contradicts the header."""
    raw = hu().tobytes(order="F")
    path = make(tmp_path / ("a.nrrd" if make is nrrd else "a.mha"), data=raw + b"\r\n--boundary--\r\n")
    assert np.array_equal(read_volume(path).data, itk_read(path)[0])
    assert np.array_equal(read_volume(path).data, hu())
    make(path, data=raw + raw[:60])
    refused(path, DamagedError)


def test_bytes_too_many_in_a_detached_file(tmp_path: Path, refused: Refused) -> None:
    """They may lie before the voxels as well as after them."""
    path = saved(tmp_path / "scan.mhd", hu())
    file = content_files(path)[1]
    file.write_bytes(file.read_bytes() + b"\n")
    refused(path, DamagedError)


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress])
@pytest.mark.parametrize("after", [b"", b"\r\n--boundary--\r\n"])
def test_packed_by_either(tmp_path: Path, pack: Callable[[bytes], bytes], after: bytes) -> None:
    """MetaIO inflates zlib and gzip, and knows where to stop by CompressedDataSize."""
    packed = pack(hu().tobytes(order="F"))
    size = str(len(packed))
    path = meta(tmp_path / "a.mha", packed + after, CompressedData="True", CompressedDataSize=size)
    assert np.array_equal(read_volume(path).data, itk_read(path)[0])


ORDERS = {
    "True": ({"BinaryDataByteOrderMSB": "True"}, ">i2"),
    "T": ({"BinaryDataByteOrderMSB": "T"}, ">i2"),
    "1": ({"BinaryDataByteOrderMSB": "1"}, ">i2"),
    "by element": ({"BinaryDataByteOrderMSB": "", "ElementByteOrderMSB": "True"}, ">i2"),
    "both": ({"BinaryDataByteOrderMSB": "True", "ElementByteOrderMSB": "False"}, ">i2"),
    "neither": ({"BinaryDataByteOrderMSB": ""}, "<i2"),
    "no": ({"BinaryDataByteOrderMSB": "no"}, "<i2"),
}


@pytest.mark.parametrize("case", ORDERS)
@pytest.mark.parametrize("packed", [False, True])
def test_byte_orders(tmp_path: Path, case: str, packed: bool) -> None:
    changed, dtype = ORDERS[case]
    raw = hu().astype(dtype).tobytes(order="F")
    data = gzip.compress(raw) if packed else raw
    size = {"CompressedData": "True", "CompressedDataSize": str(len(data))} if packed else {}
    path = meta(tmp_path / "a.mha", data, **changed, **size)
    assert np.array_equal(read_volume(path).data, hu())
    assert np.array_equal(itk_read(path)[0], hu())


FOUR_AXES = {
    "NDims": "4",
    "DimSize": "6 5 4 1",
    "ElementSpacing": "0.7 0.8 3 1",
    "Offset": "1 2 3 0",
    "TransformMatrix": "1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1",
}
SAME_SCAN: dict[str, dict[str, str]] = {
    "one time point": FOUR_AXES,
    "slope of one": {"ElementToIntensityFunctionSlope": "1.0", "ElementToIntensityFunctionOffset": "0.0"},
    "binary by default": {"BinaryData": ""},
    "lengths in MM": {"DistanceUnits": "MM"},
    "rounded cosines": {"TransformMatrix": "0.998 0.052 -0.03 -0.053 0.998 -0.02 0.029 0.021 0.999"},
}


@pytest.mark.parametrize("case", SAME_SCAN)
def test_metaimage_read(tmp_path: Path, case: str) -> None:
    path = meta(tmp_path / "a.mha", **SAME_SCAN[case])
    scan, image = read_volume(path), sitk.ReadImage(str(path))
    assert np.array_equal(scan.data, sitk.GetArrayFromImage(image).T.reshape(SHAPE))
    axes = image.GetDimension()
    steps = (np.array(image.GetDirection()).reshape(axes, axes) * image.GetSpacing())[:3, :3]
    np.testing.assert_allclose(scan.affine[:3, :3], LPS_TO_RAS[:3, :3] @ steps, atol=1e-6)


SAME_NRRD: dict[str, dict[str, str]] = {
    "one time point": {
        "dimension": "4",
        "sizes": "6 5 4 1",
        "space_directions": "(0.7,0,0) (0,0.8,0) (0,0,3) none",
        "kinds": "domain domain domain list",
    },
    "lengths in words": {"space_units": '"millimeter" "millimeter" "millimeter"'},
}


@pytest.mark.parametrize("case", SAME_NRRD)
def test_nrrd_read(tmp_path: Path, case: str) -> None:
    path = nrrd(tmp_path / "a.nrrd", **SAME_NRRD[case])
    scan = read_volume(path)
    assert np.array_equal(scan.data, sitk.GetArrayFromImage(sitk.ReadImage(str(path))).T.reshape(SHAPE))
    affine = np.diag([0.7, 0.8, 3.0, 1.0])
    affine[:3, 3] = 1, 2, 3
    np.testing.assert_allclose(scan.affine, LPS_TO_RAS @ affine)
