"""Parts of scans read from disk, against nibabel's array of the whole file and `read_volume`'s refusals."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from mpfnl.data.manifest import Split, Study
from mpfnl.data.studies import OpenScans, StudyCache, StudyReader, load_study, open_study
from mpfnl.errors import DamagedError, InputError, IntensityError
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Scan, read_volume
from mpfnl.volumes.grid import Box
from mpfnl.volumes.scan import open_random_access

SHAPE = (7, 6, 5)
AFFINE = np.diag([1.5, 0.8, 2.5, 1.0])


def hu(shape: tuple[int, ...] = SHAPE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1024, 3000, shape, dtype=np.int16)


def write(
    path: Path,
    voxels: np.ndarray,
    endianness: str = "<",
    affine: np.ndarray = AFFINE,
    kind: Any = nib.Nifti1Image,
    change: Callable[[Any], None] = lambda header: None,
) -> Path:
    """Writes a file by nibabel; `change` then edits the header that lies on disk."""
    header = kind.header_class(endianness=endianness)
    header.set_xyzt_units("mm")
    header.set_data_dtype(voxels.dtype)
    image = kind(voxels, affine, header)
    image.header.set_slope_inter(1, 0)
    nib.save(image, path)
    if not path.name.endswith(".gz"):
        with path.open("r+b") as file:
            on_disk = type(image.header).from_fileobj(file, check=False)
            change(on_disk)
            file.seek(0)
            file.write(on_disk.binaryblock)
    return path


def opened(path: Path, phase: Phase = Phase.ARTERIAL) -> Scan:
    scan = open_random_access(path, phase)
    assert scan is not None
    return scan


def box(start: Sequence[int], stop: Sequence[int]) -> Box:
    x, y, z = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return x, y, z


WHOLE = box((0, 0, 0), SHAPE)


def study(folder: Path, **files: Path) -> Study:
    paths = {str(phase): folder / f"{phase}.nii" for phase in PHASES}
    for place, (name, path) in enumerate(paths.items()):
        if name not in files:
            write(path, hu(seed=place))
    return Study("s", "p", Split.TRAIN, {Phase(name): path for name, path in (paths | files).items()})


@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(*3 * [st.integers(2, 9)]),
    endianness=st.sampled_from("<>"),
    gap=st.sampled_from([352, 353, 400]),
    data=st.data(),
)
def test_any_box_is_that_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    endianness: str,
    gap: int,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("box") / "scan.nii"
    write(path, hu(shape), endianness)
    block = path.read_bytes()
    header = nib.Nifti1Header(block[:348], check=False)
    header["vox_offset"] = gap
    path.write_bytes(header.binaryblock + b"\1" * (gap - 348) + block[352:])
    edges = [
        sorted(data.draw(st.lists(st.integers(0, n), min_size=2, max_size=2, unique=True))) for n in shape
    ]
    start, stop = zip(*edges, strict=True)
    scan = opened(path)
    assert scan.grid.shape == shape
    part = scan.read(box(start, stop))
    assert part.dtype == np.int16
    assert part.dtype.isnative
    np.testing.assert_array_equal(part, hu(shape)[tuple(map(slice, start, stop))])


def test_the_grid_is_that_of_the_whole_file(tmp_path: Path) -> None:
    for endianness in "<>":
        scan = opened(write(tmp_path / "a.nii", hu(), endianness))
        whole = read_volume(tmp_path / "a.nii", Phase.ARTERIAL)
        np.testing.assert_array_equal(scan.grid.affine, whole.affine)
        assert (scan.grid.space, scan.name) == (whole.grid.space, whole.name)


def set_field(name: str, value: object) -> Callable[[Any], None]:
    def change(header: Any) -> None:
        header[name] = value

    return change


@pytest.mark.parametrize(
    "make",
    [
        lambda f: write(f / "a.nii.gz", hu()),
        lambda f: write(f / "a.nii", hu().astype(np.float32)),
        lambda f: write(f / "a.nii", hu().clip(0).astype(np.uint16)),
        lambda f: write(f / "a.nii", hu(), change=set_field("scl_slope", 2)),
        lambda f: write(f / "a.nii", hu(), change=set_field("scl_inter", -1024)),
    ],
    ids=["gzip", "float", "uint16", "slope", "intercept"],
)
def test_a_file_of_another_kind_is_left_to_be_read_whole(
    tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path)
    assert open_random_access(path, Phase.ARTERIAL) is None
    assert read_volume(path).shape == SHAPE
    whole = StudyReader(StudyCache([study(tmp_path, arterial=path)], PHASES, 10**6))[0]
    np.testing.assert_array_equal(whole.read(1), read_volume(path).data)


def test_nifti_2_is_read_in_parts(tmp_path: Path) -> None:
    scan = opened(write(tmp_path / "a.nii", hu(), kind=nib.Nifti2Image))
    np.testing.assert_array_equal(scan.read(box((1, 2, 1), (5, 6, 4))), hu()[1:5, 2:6, 1:4])


@pytest.mark.parametrize("slope", [0.0, 1.0, np.nan, np.inf])
def test_a_slope_of_nought_is_none(tmp_path: Path, slope: float) -> None:
    path = write(tmp_path / "a.nii", hu(), change=set_field("scl_slope", slope))
    assert open_random_access(path, Phase.ARTERIAL) is not None
    np.testing.assert_array_equal(read_volume(path).data, hu())


def cut_off(folder: Path) -> Path:
    path = write(folder / "a.nii", hu())
    path.write_bytes(path.read_bytes()[:-1])
    return path


def text(folder: Path) -> Path:
    (folder / "a.nii").write_text("no scan" * 100)
    return folder / "a.nii"


def short(folder: Path) -> Path:
    (folder / "a.nii").write_bytes(b"\0" * 20)
    return folder / "a.nii"


@pytest.mark.parametrize(
    "make",
    [
        cut_off,
        text,
        short,
        lambda f: f / "missing.nii",
        lambda f: f,
        lambda f: write(f / "a.nii", hu((*SHAPE, 2))),
        lambda f: write(f / "a.nii", (hu() % 2).astype(np.int16)),
        lambda f: write(f / "a.nii", hu((7, 6, 4))),
        lambda f: write(f / "a.nii", hu(), affine=AFFINE + 0.01),
        lambda f: write(f / "a.nii", hu(), affine=AFFINE + np.outer([1, 0, 0, 0], [0, 0, 0, 500.0])),
        lambda f: write(f / "a.nii", hu(), change=set_field("pixdim", [1, 0, 1, 1, 0, 0, 0, 0])),
        lambda f: write(f / "a.nii", hu(), change=set_field("vox_offset", 353)),
    ],
    ids=[
        "cut off",
        "text",
        "short",
        "missing",
        "folder",
        "4-D",
        "windowed",
        "shape",
        "sheared",
        "elsewhere",
        "spacing",
        "offset",
    ],
)
def test_a_bad_file_is_refused_as_when_it_is_read_whole(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    bad = study(tmp_path, arterial=make(tmp_path))
    with pytest.raises(InputError) as whole:
        load_study(bad, PHASES)
    with pytest.raises(InputError) as parts:
        StudyReader(StudyCache([bad], PHASES, 10**6))[0]
    assert str(parts.value) == str(whole.value)
    assert "(arterial phase)" in str(parts.value)


def test_a_scan_with_an_empty_middle_slice_is_not_windowed(tmp_path: Path) -> None:
    voxels = hu()
    voxels[:, :, 2] = 0
    opened(write(tmp_path / "a.nii", voxels))
    with pytest.raises(IntensityError, match=r"a\.nii \(arterial phase\)"):
        opened(write(tmp_path / "a.nii", voxels // 3000))


def test_a_study_of_plain_files_is_read_in_parts(tmp_path: Path) -> None:
    plain = study(tmp_path)
    in_parts = open_study(plain, PHASES, OpenScans())
    loaded = load_study(plain, PHASES)
    assert in_parts is not None
    assert (in_parts.study_id, in_parts.grid.shape) == ("s", loaded.grid.shape)
    np.testing.assert_array_equal(in_parts.grid.affine, loaded.grid.affine)
    part = box((1, 0, 2), (6, 3, 5))
    for place in range(3):
        np.testing.assert_array_equal(in_parts.read(place, part), loaded.read(place, part))


def test_a_file_cut_off_while_in_use_is_named(tmp_path: Path) -> None:
    scan = opened(write(tmp_path / "a.nii", hu()))
    scan.read(WHOLE)
    os.truncate(scan.path, 352 + 2 * 7 * 6 * 4)
    scan.read(box((0, 0, 0), (7, 6, 4)))
    with pytest.raises(DamagedError, match=r"a.nii \(arterial phase\): was cut off"):
        scan.read(WHOLE)


def test_a_file_gone_is_named(tmp_path: Path) -> None:
    scan = opened(write(tmp_path / "a.nii", hu()))
    scan.path.unlink()
    with pytest.raises(DamagedError, match=r"a.nii \(arterial phase\): cannot be read"):
        scan.read(WHOLE)


def open_below(folder: Path) -> int:
    """Files of a folder that this process has open."""
    links = [Path("/proc/self/fd") / number for number in os.listdir("/proc/self/fd")]
    return sum(str(folder) in os.readlink(link) for link in links if link.is_symlink())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_few_files_stay_open_and_all_are_closed(tmp_path: Path) -> None:
    scans = [opened(write(tmp_path / f"{n}.nii", hu(seed=n))) for n in range(5)]
    files = OpenScans(limit=3)
    for n in (0, 1, 2, 0, 3, 4, 0, 1):
        np.testing.assert_array_equal(files.read(scans[n], WHOLE), hu(seed=n))
        assert open_below(tmp_path) == len(files) <= 3
    assert len(files) == 3
    del files
    assert open_below(tmp_path) == 0


def test_a_copy_for_another_process_opens_its_own(tmp_path: Path) -> None:
    reader = StudyReader(StudyCache([study(tmp_path)], PHASES, 10**6))
    expected = reader[0].read(2)
    copied = pickle.loads(pickle.dumps(reader))
    assert len(reader.files) == 1
    assert len(copied.files) == 0
    np.testing.assert_array_equal(copied[0].read(2), expected)
    assert len(copied.files) == len(reader.files) == 1


class Boxes(Dataset[int]):
    """The sum of a slice, so that a wrong place in the file shows."""

    def __init__(self, scan: Scan) -> None:
        self.scan = scan

    def __len__(self) -> int:
        return 2000

    def __getitem__(self, index: int) -> int:
        z = index % self.scan.grid.shape[2]
        return int(self.scan.read(self.scan.grid.slab(z, z + 1)).astype(np.int64).sum())


def test_forked_workers_do_not_share_their_place_in_a_file(tmp_path: Path) -> None:
    shape = (40, 40, 50)
    boxes = Boxes(opened(write(tmp_path / "a.nii", hu(shape))))
    expected = hu(shape).astype(np.int64).sum((0, 1))
    assert boxes[3] == expected[3]  # open before the workers fork
    loader = DataLoader(boxes, batch_size=100, num_workers=2)
    sums = np.concatenate([np.asarray(batch) for batch in loader])
    np.testing.assert_array_equal(sums, expected[np.arange(2000) % 50])


@pytest.mark.realdata
def test_a_real_scan_unpacked_reads_the_same(tmp_path: Path, real_data: Path) -> None:
    packed = real_data / "crlm_pv_1004" / "CRLM-CT-1004_pv_bodycrop.nii.gz"
    path = tmp_path / "scan.nii"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    scan = opened(path, Phase.PORTAL_VENOUS)
    whole = np.asanyarray(nib.as_closest_canonical(nib.load(packed)).dataobj)
    rng = np.random.default_rng(0)
    for _ in range(5):
        start = (rng.random(3) * (np.array(whole.shape) - 16)).astype(int)
        part = scan.read(box(start, start + 16))
        np.testing.assert_array_equal(part, whole[tuple(map(slice, start, start + 16))])
