"""A file format that is registered from outside is read wherever a scan is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import mpfnl
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import Split, Study, write_manifest
from mpfnl.errors import GridError, IntensityError, NotFoundError
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study
from mpfnl.inference.tiling import Tiling
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Grid, open_scan, read_mask, read_volume, register_format
from mpfnl.volumes.formats import REGISTERED, Format, StoredArray
from mpfnl.volumes.scan import content_files, scan_exists

SHAPE = (24, 22, 20)
AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])


class ArrayFormat(Format):
    """NumPy archives of stored values, an affine and a rescale intercept."""

    def matches(self, path: Path) -> bool:
        return path.suffix == ".npz" and path.is_file()

    def open(self, path: Path, name: str) -> StoredArray:
        with np.load(path) as content:
            stored = content["stored"]
            return StoredArray(stored, Grid(stored.shape, content["affine"]), intercept=-1024.0)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    file_format = register_format(ArrayFormat())
    yield
    REGISTERED.remove(file_format)


def stored(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(900, 1200, SHAPE).astype(np.uint16)


@pytest.fixture
def scans(tmp_path: Path) -> dict[Phase, Path]:
    files = {phase: tmp_path / f"{phase}.npz" for phase in PHASES}
    for seed, file in enumerate(files.values()):
        np.savez(file, stored=stored(seed), affine=AFFINE)
    return files


def test_a_scan_is_read_whole_and_in_boxes(scans: dict[Phase, Path]) -> None:
    path = scans[Phase.ARTERIAL]
    volume = read_volume(path, Phase.ARTERIAL)
    assert np.array_equal(volume.data, stored(1).astype(int) - 1024)
    assert volume.data.dtype == volume.storage == np.int16
    assert np.array_equal(volume.affine, AFFINE)
    scan = open_scan(path, Phase.ARTERIAL)
    assert np.array_equal(scan.read((slice(1, 5), slice(0, 4), slice(2, 9))), volume.data[1:5, :4, 2:9])
    assert scan_exists(path)
    assert not scan_exists(path.with_name("none.npz"))
    assert content_files(path) == [path]
    labels = (stored(1) % 3).astype(np.uint16)
    np.savez(path.with_name("labels.npz"), stored=labels + 1024, affine=AFFINE)
    assert np.array_equal(read_mask(path.with_name("labels.npz"), like=volume, label=2), labels == 2)


def test_it_is_checked_as_any_other(scans: dict[Phase, Path]) -> None:
    path = scans[Phase.ARTERIAL]
    np.savez(path, stored=np.full(SHAPE, 1024, np.uint16), affine=AFFINE)
    with pytest.raises(IntensityError, match=r"arterial\.npz \(arterial phase\)"):
        read_volume(path, Phase.ARTERIAL)
    with pytest.raises(NotFoundError, match=r"none\.npz"):
        read_volume(path.with_name("none.npz"))
    np.savez(path, stored=stored(1), affine=np.diag([-0.8, -0.8, 3.0, 1.0]))
    with pytest.raises(GridError, match=r"arterial\.npz"):
        read_mask(path, like=read_volume(scans[Phase.NONCONTRAST]), label=1)


def test_the_data_module_takes_patches_of_it(tmp_path: Path, scans: dict[Phase, Path]) -> None:
    studies = [Study(f"s{split}", f"p{split}", split, scans) for split in (Split.TRAIN, Split.VAL)]
    manifest = write_manifest(tmp_path / "cohort.csv", studies).path
    data = MultiphaseDataModule(
        manifest, batch_size=2, patch_size=16, patches_per_study=2, workers=0, degradation=None, seed=1
    )
    batch = next(iter(data.train_dataloader()))
    assert batch["phases"].shape == (2, 3, 16, 16, 16)
    assert 0 < batch["target"].mean() < 1


def test_it_is_enhanced(tmp_path: Path, scans: dict[Phase, Path]) -> None:
    model = mpfnl.RCAN3D(phases=3)
    options = EnhanceOptions(Tiling(16, 4), precision=torch.float32)
    enhanced = enhance_study(model, scans, tmp_path / "enhanced.nii.gz", options)
    assert enhanced.shape == SHAPE
    assert np.array_equal(read_volume(tmp_path / "enhanced.nii.gz").data, enhanced.data)
