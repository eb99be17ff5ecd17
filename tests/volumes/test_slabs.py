"""Scans read and written slab by slab: the same voxels, types and refusals as whole ones."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpfnl.errors import InputError
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, open_scan, read_volume, write_volume
from mpfnl.volumes import scan as scan_module
from mpfnl.volumes.scan import MovingSlab
from mpfnl.volumes.writing import volume_writer

SHAPE = (7, 6, 23)
AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])


def hu(low: int = -1000, high: int = 1500) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, SHAPE).astype(np.int16)


def save(path: Path, data: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> Path:
    image = nib.Nifti1Image(data, AFFINE)
    image.header.set_slope_inter(slope, intercept)
    if (slope, intercept) == (1.0, 0.0):
        nib.save(image, path)
        return path
    content = bytearray(nib.Nifti1Image(data, AFFINE).to_bytes())
    content[112:120] = np.array([slope, intercept], np.float32).tobytes()  # scl_slope, scl_inter
    path.write_bytes(content)
    return path


CASES: dict[str, tuple[np.ndarray, float, float]] = {
    "int16": (hu(), 1, 0),
    "one slice beyond int16": (np.where(np.arange(23) == 20, 40000, hu()).astype(np.int32), 1, 0),
    "uint16": ((hu().astype(int) + 1024).astype(np.uint16), 1, -1024),
    "bytes scaled": (np.random.default_rng(0).integers(0, 256, SHAPE).astype(np.uint8), 10, -1000),
    "halves": (hu(), 0.5, 0.25),
    "float32": (hu().astype(np.float32) + np.float32(0.1), 1, 0),
    "float64 that float32 holds": (hu().astype(np.float64) + 0.5, 1, 0),
    "one slice that needs float64": (np.where(np.arange(23) == 3, 0.1, hu()).astype(np.float64), 1, 0),
    "big endian": (hu().astype(">i2"), 1, 0),
}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "SURVEY_BYTES", 4 * 7 * 6 * 2)
    monkeypatch.setattr(scan_module, "READ_SLICES", 3)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("case", CASES)
def test_slabs_are_those_of_the_whole(tmp_path: Path, case: str, suffix: str) -> None:
    data, slope, intercept = CASES[case]
    path = save(tmp_path / f"in{suffix if slope == 1 and intercept == 0 else '.nii'}", data, slope, intercept)
    whole, scan = read_volume(path, Phase.ARTERIAL), open_scan(path, Phase.ARTERIAL)
    assert not scan.in_memory
    assert (scan.dtype, scan.storage) == (whole.data.dtype, whole.storage)
    assert (scan.grid.shape, scan.grid.space, scan.name) == (whole.shape, whole.grid.space, whole.name)
    assert np.array_equal(scan.grid.affine, whole.affine)
    slabs = MovingSlab(scan)
    for start, stop, dropped in ((0, 5, 0), (3, 9, 2), (2, 9, 8), (8, 23, 23)):
        slab = slabs.read(start, stop)
        assert slab.dtype == whole.data.dtype
        assert np.array_equal(slab, whole.data[:, :, start:stop])
        slabs.drop(dropped)
    with pytest.raises(ValueError, match="dropped"):
        slabs.read(22, 23)
    slabs.close()
    assert np.array_equal(slabs.read(0, 2), whole.data[:, :, :2])  # from the beginning again
    assert np.array_equal(scan.read((slice(2, 5), slice(0, 4), slice(1, 9))), whole.data[2:5, :4, 1:9])
    slabs.close()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=1, max_size=12))
def test_a_moving_slab(tmp_path: Path, moves: list[tuple[int, int]]) -> None:
    path = tmp_path / "in.nii.gz"
    if not path.exists():
        save(path, hu())
    slabs, start = MovingSlab(open_scan(path)), 0
    for step, length in moves:
        start = min(start + step, SHAPE[2] - 1)
        slabs.drop(start)
        stop = min(start + length, SHAPE[2])
        assert np.array_equal(slabs.read(start, stop), hu()[:, :, start:stop])
        assert slabs._slices.shape[2] <= SHAPE[2] - start  # nothing before the slab
    slabs.close()


def test_everything_is_shown_in_order(tmp_path: Path) -> None:
    path = save(tmp_path / "in.nii.gz", hu())
    for source in (path, read_volume(path)):
        seen: list[np.ndarray] = []
        starts: list[int] = []

        def visit(start: int, slab: np.ndarray, depth: int, seen=seen, starts=starts) -> None:
            assert depth == SHAPE[2]
            assert start == sum(each.shape[2] for each in seen)
            starts.append(start)
            seen.append(slab.copy())

        open_scan(source, visit=visit)
        assert len(starts) > 3
        assert np.array_equal(np.concatenate(seen, axis=2), hu())


def test_other_formats_and_volumes_are_in_memory(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(hu().T)
    image.SetSpacing((0.8, 0.8, 2.5))
    sitk.WriteImage(image, str(tmp_path / "in.nrrd"))
    for source in (tmp_path / "in.nrrd", read_volume(tmp_path / "in.nrrd")):
        slabs = MovingSlab(open_scan(source))
        assert slabs.scan.in_memory
        assert np.array_equal(slabs.read(3, 9), hu()[:, :, 3:9])
        slabs.drop(20)
        assert np.array_equal(slabs.read(3, 9), hu()[:, :, 3:9])
        slabs.close()


def spoiled(kind: str, path: Path) -> Path:
    data = hu().astype(np.float32)
    if kind == "NaN in several slabs":
        data[0, 0, [1, 9, 20]] = np.nan
    if kind == "windowed":
        data = (data + 1000) / 2500
    if kind == "8 bits":
        return save(path, np.zeros(SHAPE, np.uint8))
    if kind == "missing":
        return path
    save(path, data if kind in ("NaN in several slabs", "windowed") else hu())
    content = path.read_bytes()
    if kind == "cut off":
        path.write_bytes(content[:-30])
    if kind == "wrong checksum":
        path.write_bytes(content[:-8] + b"\0\0\0\0" + content[-4:])
    return path


@pytest.mark.parametrize(
    "kind", ["NaN in several slabs", "windowed", "8 bits", "missing", "cut off", "wrong checksum"]
)
def test_what_is_refused_whole_is_refused_with_the_same_words(tmp_path: Path, kind: str) -> None:
    path = spoiled(kind, tmp_path / "in.nii.gz")
    with pytest.raises(InputError) as whole:
        read_volume(path, Phase.ARTERIAL)
    with pytest.raises(InputError) as slabwise:
        open_scan(path, Phase.ARTERIAL)
    assert str(slabwise.value) == str(whole.value)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("cuts", [(23,), (1, 22), (5, 7, 11)])
def test_the_same_bytes_however_it_is_cut(tmp_path: Path, suffix: str, cuts: tuple[int, ...]) -> None:
    like = Volume.from_array(hu(), AFFINE, tmp_path / "like.nii")
    values = hu().astype(np.float32) * 1.001
    write_volume(tmp_path / f"whole{suffix}", values, like)
    with volume_writer(tmp_path / f"cut{suffix}", like.grid, like.storage) as writer:
        start = 0
        for length in cuts:
            writer.write(values[:, :, start : start + length])
            start += length
    assert (tmp_path / f"cut{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()


@pytest.mark.parametrize("kind", ["too few", "too many", "other size", "interrupted"])
def test_what_is_not_whole_is_not_there(tmp_path: Path, kind: str) -> None:
    like = Volume.from_array(hu(), AFFINE, tmp_path / "like.nii")
    part = {"too few": hu()[:, :, :9], "other size": hu()[:5]}.get(kind, hu())

    def write() -> None:
        with volume_writer(tmp_path / "out.nii.gz", like.grid, like.storage) as writer:
            writer.write(part)
            if kind == "too many":
                writer.write(hu()[:, :, :1])
            if kind == "interrupted":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt if kind == "interrupted" else ValueError, match=r"slices|fit|^$"):
        write()
    assert not list(tmp_path.iterdir())
