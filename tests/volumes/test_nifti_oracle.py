"""80 random NIfTI files: the same voxels and the same place as nibabel reads."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mpfnl.volumes.scan import load_values, open_values

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]
CODES = [(1, 0), (0, 1), (1, 1), (2, 1), (4, 2), (3, 3), (5, 1)]  # sform, qform


def random_affine(rng: np.random.Generator) -> np.ndarray:
    """Any order and direction of axes, plain, slightly turned or turned at will."""
    turn = Rotation.from_rotvec(rng.standard_normal(3) * rng.choice([0, 0.05, 3])).as_matrix()
    axes = turn[:, rng.permutation(3)] * rng.choice([-1, 1], 3)
    affine = np.eye(4)
    affine[:3, :3] = axes * rng.uniform(0.3, 6, 3)
    affine[:3, 3] = rng.uniform(-800, 800, 3)
    return affine


def random_values(rng: np.random.Generator, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if dtype.kind == "f":
        return rng.normal(0, 500, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(max(limits.min, -30000), min(limits.max, 30000), shape).astype(dtype)


def random_file(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = nib.Nifti2Image if rng.random() < 0.3 else nib.Nifti1Image
    endianness = "<>"[rng.integers(2)]
    dtype = np.dtype(TYPES[seed % len(TYPES)]).newbyteorder(endianness)
    shape = tuple(rng.integers(2, 9, 3)) + (1,) * int(rng.integers(3))
    affine = random_affine(rng)
    header = kind.header_class(endianness=endianness)
    header.set_data_dtype(dtype)
    header.set_xyzt_units(["unknown", "mm"][rng.integers(2)])
    image = kind(random_values(rng, dtype, shape), affine, header)
    sform, qform = CODES[rng.integers(len(CODES))]
    image.set_sform(affine if sform else None, sform)
    image.set_qform(random_affine(rng) if sform and rng.random() < 0.3 else affine, qform, strip_shears=True)
    image.header["pixdim"][1:4] = np.linalg.norm(
        affine[:3, :3], axis=0
    )  # that of the sform where both differ
    if rng.random() < 0.3:
        image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"written by a test"))
    raw = bytearray(image.to_bytes())
    patched = kind.header_class(bytes(raw[: header.sizeof_hdr]), endianness, check=False)
    slope, intercept = [(1, 0), (0, 7), (np.nan, 0), (1, -1024), (0.25, -100.5), (-2, 3)][rng.integers(6)]
    patched["scl_slope"], patched["scl_inter"] = slope, intercept
    raw[: header.sizeof_hdr] = patched.binaryblock
    path.write_bytes(gzip.compress(raw) if rng.random() < 0.5 else bytes(raw))


@pytest.mark.parametrize("start", range(0, 80, 20))
def test_as_nibabel(tmp_path: Path, start: int) -> None:
    for seed in range(start, start + 20):
        path = tmp_path / "scan.nii"
        random_file(path, seed)
        packed = path.read_bytes()[:2] == b"\x1f\x8b"
        image = nib.load(path.rename(tmp_path / "scan.nii.gz") if packed else path)
        path = Path(image.get_filename())
        scan = load_values(open_values(path, path.name), path, None)
        expected = image.get_fdata()
        expected = expected.reshape(expected.shape[:3])
        assert scan.shape == expected.shape
        real = scan.data.dtype.kind == "f"
        np.testing.assert_allclose(scan.data, expected, rtol=1e-6 if real else 0, atol=1e-4 if real else 0)
        assert np.array_equal(scan.affine, image.affine), seed
        code = image.header["sform_code"] or image.header["qform_code"]
        assert scan.grid.space == code
