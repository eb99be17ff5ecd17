"""The order in which a file stores its axes: read in canonical order, written back in its own.

Reported as wasserth/TotalSegmentator#509, neheller/kits21#57 (slices first) and tomaroberts/nii2dcm#59. The
oracle is nibabel's `as_closest_canonical`.
"""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from mpfnl.errors import GridError
from mpfnl.volumes import Grid, Volume, open_scan, read_mask, read_volume, write_volume
from mpfnl.volumes import scan as scan_module
from mpfnl.volumes.scan import MovingSlab, open_random_access
from mpfnl.volumes.writing import volume_writer

PAIRS = ("RL", "AP", "SI")
CODES = ["".join(codes) for axes in permutations(PAIRS) for codes in product(*axes)]
SHAPE = (7, 6, 11)
TILT = nib.eulerangles.euler2mat(0.1, -0.2, 0.05)
AFFINE = nib.affines.from_matvec(TILT @ np.diag([0.7, 0.8, 2.5]), [-30.0, 20.0, 100.0])


def stored_as(hu: np.ndarray, codes: str, affine: np.ndarray = AFFINE) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of a RAS grid and their affine, in another order of axes."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    turned = nib.orientations.apply_orientation(hu, turn)
    return np.ascontiguousarray(turned), affine @ inv_ornt_aff(turn, hu.shape)


def save(path: Path, codes: str, hu: np.ndarray) -> Path:
    data, affine = stored_as(hu, codes)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.fixture
def hu() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1500, SHAPE).astype(np.int16)


def test_there_are_48_orders() -> None:
    assert len(set(CODES)) == 48


@given(st.sampled_from(CODES), st.data())
@settings(max_examples=60, deadline=None)
def test_a_grid_turns_and_turns_back(codes: str, data: st.DataObject) -> None:
    voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    stored, affine = stored_as(voxels, codes)
    grid = Grid(stored.shape, affine)
    canonical = grid.canonical()
    assert canonical.shape == SHAPE
    np.testing.assert_allclose(canonical.affine, AFFINE, atol=1e-12)
    np.testing.assert_array_equal(grid.to_canonical(stored), voxels)
    np.testing.assert_array_equal(canonical.to_stored(voxels), stored)
    back = canonical.stored or canonical
    assert (back.shape, back.affine.tolist()) == (grid.shape, grid.affine.tolist())  # to the last bit
    box: Any = tuple(
        slice(*sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))))
        for n in SHAPE
    )
    np.testing.assert_array_equal(grid.to_canonical(stored[canonical.stored_box(box)]), voxels[box])
    part = canonical.crop(box)
    np.testing.assert_allclose((part.stored or part).canonical().affine, part.affine, atol=1e-9)
    finer = canonical.finer(2)
    np.testing.assert_allclose((finer.stored or finer).canonical().affine, finer.affine, atol=1e-9)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", CODES)
def test_every_order_is_read_slab_by_slab_as_nibabel_turns_it(
    codes: str, suffix: str, hu: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "SURVEY_BYTES", 4 * 7 * 6 * 2)
    monkeypatch.setattr(scan_module, "READ_SLICES", 3)
    path = save(tmp_path / f"scan{suffix}", codes, hu)
    seen: list[np.ndarray] = []
    scan = open_scan(path, visit=lambda start, slab, depth: seen.append(np.array(slab)), canonical=True)
    oracle = nib.as_closest_canonical(nib.load(path))
    np.testing.assert_array_equal(np.concatenate(seen, axis=2), np.asarray(oracle.dataobj))
    np.testing.assert_allclose(scan.grid.affine, oracle.affine, atol=1e-5)
    slabs = MovingSlab(scan)
    np.testing.assert_array_equal(slabs.read(2, 7), hu[:, :, 2:7])
    slabs.drop(5)
    np.testing.assert_array_equal(slabs.read(5, 11), hu[:, :, 5:])
    slabs.close()


@pytest.mark.parametrize("codes", CODES)
def test_boxes_of_a_plain_file_are_read_in_canonical_order(
    codes: str, hu: np.ndarray, tmp_path: Path
) -> None:
    scan = open_random_access(save(tmp_path / "scan.nii", codes, hu))
    assert scan is not None
    assert not scan.in_memory
    np.testing.assert_array_equal(scan.read((slice(1, 4), slice(2, 6), slice(3, 9))), hu[1:4, 2:6, 3:9])
    scan.close()


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("slices", [3, 11])
def test_what_was_turned_is_written_in_the_order_of_its_file(
    codes: str, slices: int, hu: np.ndarray, tmp_path: Path
) -> None:
    source = save(tmp_path / "scan.nii", codes, hu)
    volume = read_volume(source).canonical()
    with volume_writer(tmp_path / "again.nii", volume.grid, volume.storage) as writer:
        for start in range(0, SHAPE[2], slices):
            writer.write(volume.data[:, :, start : start + slices])
    write_volume(tmp_path / "whole.nii", volume.data, like=volume)
    assert (tmp_path / "again.nii").read_bytes() == (tmp_path / "whole.nii").read_bytes()
    before, after = nib.load(source), nib.load(tmp_path / "whole.nii")
    np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))
    np.testing.assert_array_equal(after.affine, before.affine)
    write_volume(tmp_path / "ras.nii", volume.data, like=volume.detached())
    assert nib.aff2axcodes(nib.load(tmp_path / "ras.nii").affine) == ("R", "A", "S")


def test_missing_slices_of_a_turned_scan_are_noticed(hu: np.ndarray, tmp_path: Path) -> None:
    volume = read_volume(save(tmp_path / "scan.nii", "SAR", hu)).canonical()
    with (
        pytest.raises(ValueError, match="slices"),
        volume_writer(tmp_path / "out.nii", volume.grid, volume.storage) as writer,
    ):
        writer.write(volume.data[:, :, :4])
    assert not (tmp_path / "out.nii").exists()


@pytest.mark.parametrize("codes", ["LPS", "SAR", "ASR", "IPL"])
def test_a_mask_in_another_order_is_turned_to_that_of_its_scan(
    codes: str, hu: np.ndarray, tmp_path: Path
) -> None:
    scan = read_volume(save(tmp_path / "scan.nii", "LAS", hu))
    mask = save(tmp_path / "mask.nii", codes, (hu > 0).astype(np.uint8))
    np.testing.assert_array_equal(read_mask(mask, like=scan), scan.data > 0)


def test_a_mask_that_lies_half_a_voxel_off_is_on_another_grid(hu: np.ndarray, tmp_path: Path) -> None:
    scan = read_volume(save(tmp_path / "scan.nii", "LAS", hu))
    data, affine = stored_as((hu > 0).astype(np.uint8), "LAS")
    affine[:3, 3] += 0.5 * affine[:3, 0]
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "mask.nii")
    with pytest.raises(GridError, match=r"mask\.nii"):
        read_mask(tmp_path / "mask.nii", like=scan)


def test_a_volume_in_memory_turns_and_turns_back(hu: np.ndarray) -> None:
    for codes in CODES:
        volume = Volume.from_array(*stored_as(hu, codes))
        turned = volume.canonical()
        np.testing.assert_array_equal(turned.data, hu)
        np.testing.assert_array_equal(turned.stored().data, volume.data)
        np.testing.assert_array_equal(turned.stored().affine, volume.affine)
