"""The benchmark of the patches: all loaders give what they are compared by, and the ratios are theirs."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import patch_throughput
import pytest
import torch
from patch_throughput import DEGRADED, LOADERS, OURS, QUEUE, Measured, Settings

from mpfnl.data.manifest import Split, read_manifest
from mpfnl.phases import PHASES
from mpfnl.volumes import read_volume

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux' /proc"),
]

STUDIES, PER_STUDY = 3, 4


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return patch_throughput.make_cohort(tmp_path_factory.mktemp("small") / "cohort", STUDIES, (48, 40, 32))


def small(manifest: Path, workers: int = 0) -> Settings:
    return Settings(str(manifest), 8, batch=4, per_study=PER_STUDY, workers=workers, repeats=2, pause_s=0.0)


def test_the_made_cohort_is_as_prepare_writes_it(manifest: Path) -> None:
    for study in read_manifest(manifest):
        assert study.split is Split.TRAIN
        for phase in PHASES:
            scan = read_volume(study.file(phase), phase)
            assert study.file(phase).suffix == ".nii"
            assert scan.data.dtype == scan.storage == "int16"
            assert scan.data.min() == -1000
            assert 0 < (scan.data > -300).mean() < 0.6  # a body in air


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("workers", [0, 1])
def test_every_loader_gives_as_many_windowed_patches(manifest: Path, name: str, workers: int) -> None:
    epochs = LOADERS[name](small(manifest, workers))
    for _ in range(2):
        batches = list(next(epochs))
        assert [tuple(batch.shape) for batch in batches] == STUDIES * [(4, 3, 8, 8, 8)]
        joined = torch.cat(batches)
        assert joined.dtype == torch.float32
        assert 0 <= joined.min() < joined.max() <= 1


def test_each_is_measured_in_a_process_of_its_own(manifest: Path) -> None:
    found = patch_throughput.measure_apart(OURS, small(manifest, workers=1))
    assert 0 < found.slowest <= found.per_second <= found.fastest
    assert found.peak > found.idle > 50e6


def test_the_rows_are_what_was_measured(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {
        QUEUE: Measured(10, 9, 11, peak=1000, idle=200),
        OURS: Measured(40, 39, 41, peak=300, idle=100),
        DEGRADED: Measured(5, 4, 6, peak=500, idle=100),
    }
    asked: list[tuple[str, int, int]] = []

    def measure_apart(name: str, settings: Settings) -> Measured:
        studies = len(read_manifest(settings.manifest).split("train"))
        asked.append((name, settings.patch, studies))
        return measured[name]

    monkeypatch.setattr(patch_throughput, "measure_apart", measure_apart)
    table = tmp_path / "rows.csv"
    arguments = ["--skip-tests", "--cohort", str(manifest), "--patch", "8", "16", "--csv", str(table)]
    patch_throughput.main([*arguments, "--passes", "3"])
    assert asked == [(name, 8, 9) for name in (QUEUE, OURS, DEGRADED)] + [(n, 16, 9) for n in (QUEUE, OURS)]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    ours = rows[1]
    assert math.isclose(float(ours["speed_over_queue"]), 4)
    assert math.isclose(float(ours["peak_over_queue"]), 0.3)
    assert math.isclose(float(ours["peak_over_queue_above_idle"]), 0.25)
    assert {"commit", "torch", "cpu", "torchio", "lightning"} <= set(ours)
    assert "DataModule: 40.0 patches/s" in capsys.readouterr().out


def test_nothing_is_measured_while_tests_fail(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_throughput, "tests_pass", lambda paths: False)
    with pytest.raises(SystemExit, match="nothing is measured"):
        patch_throughput.main(["--cohort", str(manifest)])
    for path in patch_throughput.TESTS:
        assert (Path(__file__).parents[2] / path).is_file()
