"""Each file that cannot be used is refused with one line that names it and its phase."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from mpfnl.errors import DamagedError, FormatError, GridError, InputError, IntensityError, NotFoundError
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, open_scan, read_mask, read_volume

SHAPE = (6, 5, 4)
PIXDIM, SFORM_CODE, SFORM, DIM, XYZT = 76, 254, 280, 40, 123  # byte offsets in a NIfTI-1 header


def hu(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)


def saved(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(data, np.diag([0.8, 0.8, 5, 1]) if affine is None else affine), path)
    return path


def patched(path: Path, *changes: tuple[int, str, Any]) -> Path:
    content = bytearray(saved(path, hu()).read_bytes())
    for offset, form, value in changes:
        struct.pack_into(form, content, offset, value)
    path.write_bytes(content)
    return path


def refusal(path: Path, kind: type[InputError] = InputError, phase: Phase = Phase.PORTAL_VENOUS) -> str:
    with pytest.raises(kind) as caught:
        read_volume(path, phase)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path} ({phase.label} phase): ")
    assert ";" in message or ":" in message.split("phase): ", 1)[1]  # what is wrong, and what to do
    return message


def test_missing(tmp_path: Path) -> None:
    refusal(tmp_path / "pv.nii.gz", NotFoundError)


def test_a_folder_without_slices(tmp_path: Path) -> None:
    saved(tmp_path / "pv.nii.gz", hu())
    assert "DICOM" in refusal(tmp_path, NotFoundError, Phase.ARTERIAL)


@pytest.mark.parametrize("content", [b"hello", b"x" * 5000, gzip.compress(b"x" * 5000, mtime=0)])
def test_not_an_image(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pv.nii.gz"
    path.write_bytes(content)
    assert "NIfTI" in refusal(path, FormatError, Phase.NONCONTRAST)


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "pv.nii.gz"
    path.touch()
    refusal(path, DamagedError)


def test_header_of_a_pair(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(hu(), np.eye(4)), tmp_path / "pv.hdr")
    refusal(tmp_path / "pv.hdr", FormatError)


@pytest.mark.parametrize("name", ["pv.nii", "pv.nii.gz"])
def test_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    whole = saved(tmp_path / name, hu((20, 20, 20))).read_bytes()
    for kept in (3, 200, 360, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        (tmp_path / name).write_bytes(whole[:kept])
        refusal(tmp_path / name, InputError if kept < 300 else DamagedError)


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    path = saved(tmp_path / "pv.nii.gz", hu((20, 20, 20)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    refusal(path, DamagedError)


def test_a_header_that_promises_terabytes(tmp_path: Path) -> None:
    changes = [(DIM + 2 * axis, "<h", 32000) for axis in (1, 2, 3)]
    path = patched(tmp_path / "pv.nii", *changes)
    (tmp_path / "pv.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    refusal(path, DamagedError)
    refusal(tmp_path / "pv.nii.gz", DamagedError)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, bad: float) -> None:
    data = hu().astype(np.float32)
    data[1, 2, 3] = data[2, 2, 2] = bad
    assert "2 voxels " in refusal(saved(tmp_path / "pv.nii.gz", data), IntensityError)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4, 2), (6, 5, 4, 1, 3), (6, 5, 1)])
def test_not_three_dimensional(tmp_path: Path, shape: tuple[int, ...]) -> None:
    message = refusal(saved(tmp_path / "pv.nii.gz", hu(shape)), GridError)
    assert " by ".join(map(str, shape)) in message


def test_colour_and_complex(tmp_path: Path) -> None:
    colour = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "colour" in refusal(saved(tmp_path / "rgb.nii", colour), FormatError)
    assert "complex" in refusal(saved(tmp_path / "c.nii", hu().astype(np.complex64)), FormatError)


@pytest.mark.parametrize("spacing", [0.0, -5.0, np.nan])
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_spacing_that_nibabel_would_repair(tmp_path: Path, spacing: float, axis: int) -> None:
    path = patched(tmp_path / "pv.nii", (PIXDIM + 4 * axis, "<f", spacing))
    assert f"{spacing:.6g}" in refusal(path, GridError)


def test_zero_spacing_in_the_affine(tmp_path: Path) -> None:
    path = patched(tmp_path / "pv.nii", (SFORM, "<f", 0.0))
    assert "(0, 0.8, 5)" in refusal(path, GridError)


def test_two_spacings(tmp_path: Path) -> None:
    path = patched(tmp_path / "pv.nii", (PIXDIM + 4, "<f", 0.7))
    message = refusal(path, GridError)
    assert "(0.7, 0.8, 5)" in message
    assert "(0.8, 0.8, 5)" in message


@pytest.mark.parametrize("angle", [0.1, 5.0, 20.0])
def test_sheared(tmp_path: Path, angle: float) -> None:
    affine = np.diag([0.8, 0.8, 5.0, 1.0])
    affine[1:3, 2] = 5 * np.sin(np.radians(angle)), 5 * np.cos(np.radians(angle))
    assert f"{90 - angle:.2f} degrees between y and z" in refusal(
        saved(tmp_path / "pv.nii.gz", hu(), affine), GridError
    )


def test_affine_not_finite(tmp_path: Path) -> None:
    refusal(patched(tmp_path / "pv.nii", (SFORM + 12, "<f", np.nan)), GridError)


def test_no_orientation(tmp_path: Path) -> None:
    path = patched(tmp_path / "pv.nii", (SFORM_CODE, "<h", 0))
    assert "qform" in refusal(path, GridError)


def test_lengths_in_metres(tmp_path: Path) -> None:
    assert "metres" in refusal(patched(tmp_path / "pv.nii", (XYZT, "<B", 1)), GridError)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_already_windowed(tmp_path: Path, low: float) -> None:
    data = np.random.default_rng(0).uniform(low, 1, SHAPE).astype(np.float32)
    refusal(saved(tmp_path / "pv.nii.gz", data), IntensityError)


def test_eight_bits(tmp_path: Path) -> None:
    assert "8 bits" in refusal(saved(tmp_path / "pv.nii.gz", np.abs(hu()).astype(np.uint8)), IntensityError)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_unreadable(tmp_path: Path) -> None:
    path = saved(tmp_path / "pv.nii.gz", hu())
    path.chmod(0)
    refusal(path, DamagedError)


def test_mask_values_and_labels(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
    path = saved(tmp_path / "labels.nii.gz", labels)
    assert np.array_equal(read_mask(path, label=3), labels == 3)
    with pytest.raises(IntensityError, match=r"labels\.nii\.gz: .* from 0 to 3"):
        read_mask(path)
    mask = saved(tmp_path / "mask.nii.gz", (labels == 2).astype(np.uint8))
    assert np.array_equal(read_mask(mask), labels == 2)


def test_mask_on_another_grid(tmp_path: Path) -> None:
    scan = read_volume(saved(tmp_path / "pv.nii.gz", hu()), Phase.PORTAL_VENOUS)
    mask = saved(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8), np.diag([0.8, 0.8, 4, 1]))
    with pytest.raises(GridError, match=r"mask\.nii\.gz: .*3 mm .*portal venous phase"):
        read_mask(mask, scan)


def test_names_no_phase_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / "pv.nii")
    assert str(caught.value).startswith(f"{tmp_path / 'pv.nii'}: ")


@pytest.mark.parametrize("canonical", [False, True])
@pytest.mark.parametrize(
    ("data", "at", "value", "kind"),
    [
        (hu(), (0, 0), np.nan, GridError),
        (hu(), (1, 1), 0.0, GridError),
        (hu(), (0, 2), 1.0, GridError),
        (hu((6, 5, 1)), (0, 0), 0.8, GridError),
        (hu((6, 5, 0)), (0, 0), 0.8, GridError),
        (hu().astype(complex), (0, 0), 0.8, FormatError),
        (hu().astype(object), (0, 0), 0.8, FormatError),
        (hu().astype(str), (0, 0), 0.8, FormatError),
    ],
)
def test_volumes_in_memory(
    data: np.ndarray, at: tuple[int, int], value: float, kind: type[InputError], canonical: bool
) -> None:
    affine = np.diag([0.8, 0.8, 5, 1])
    affine[at] = value
    volume = Volume.from_array(data, affine, "memory", Phase.ARTERIAL)
    with pytest.raises(kind, match=r"^memory \(arterial phase\): [^\n]+; [^\n]+$"):
        open_scan(volume, canonical=canonical)


@pytest.mark.parametrize(
    ("datatype", "bits", "what"),
    [(0, 0, "unknown"), (1, 1, "binary"), (1536, 128, "128-bit"), (128, 24, "RGB"), (32, 64, "complex")],
)
def test_number_types_by_their_names(tmp_path: Path, datatype: int, bits: int, what: str) -> None:
    path = patched(tmp_path / "pv.nii", (70, "<h", datatype), (72, "<h", bits))
    assert what in refusal(path, FormatError)
