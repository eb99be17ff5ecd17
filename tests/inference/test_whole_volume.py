"""A study in slabs: the same result however it is cut, in memory that does not grow with its length."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_networks import drawn
from torch import nn

from mpfnl.errors import OptionError
from mpfnl.inference import hounsfield
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study, open_study
from mpfnl.inference.hounsfield import restore_hu
from mpfnl.inference.memory import GB
from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling
from mpfnl.networks import RCAN3DNet
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import Grid, Volume, read_volume, scan, write_volume
from mpfnl.volumes.writing import volume_writer
from mpfnl.window import ABDOMEN, Window

SHAPE = (30, 26, 61)
AFFINE = np.diag([-0.8, -0.8, 2.5, 1.0])
SLABS = EnhanceOptions(Tiling(20, 8, 3), precision=torch.float32)


@dataclass
class Model:
    """What `enhance_study` asks of a model."""

    network: nn.Module
    phases: tuple[Phase, ...] = PHASES
    name: str = "stand-in"
    target: Phase = Phase.PORTAL_VENOUS
    window: Window = ABDOMEN
    optional_phases: tuple[Phase, ...] = ()
    trained_without_phases: bool = False
    reference_noise: None = None
    patch_size: int | None = None


@pytest.fixture
def model() -> Model:
    return Model(drawn(RCAN3DNet(3, 8, groups=1, blocks=1)))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[Phase, Path]:
    folder, files = tmp_path_factory.mktemp("study"), {}
    for seed, phase in enumerate(PHASES):
        files[phase] = folder / f"{phase}.nii{'.gz' if seed else ''}"
        rng = np.random.default_rng(seed)
        hu = (60 + 70 * rng.standard_normal(SHAPE)).astype(np.int16)
        hu[:5] = -1000
        hu[20:24, :, 10:50] = 900
        write_volume(files[phase], hu, Volume.from_array(hu, AFFINE, files[phase]))
    return files


def test_slab_by_slab_is_the_whole_at_once(model: Model, files: dict[Phase, Path]) -> None:
    """Against the parts called on whole arrays, bit for bit."""
    volumes = {phase: read_volume(file, phase).canonical() for phase, file in files.items()}
    stacked = torch.stack([ABDOMEN.normalize(torch.as_tensor(volumes[p].data).float()) for p in PHASES])
    unit = tiled_forward(model.network, stacked, SLABS.tiling, torch.float32)
    target = volumes[Phase.PORTAL_VENOUS]
    expected = restore_hu(target.data, unit.numpy(), ABDOMEN)
    assert (expected != target.data).mean() > 0.3
    for sources in (files, volumes):
        assert np.array_equal(enhance_study(model, sources, options=SLABS).canonical().data, expected)


@pytest.mark.parametrize(("restored", "read", "surveyed"), [(1, 1, 1), (3, 7, 5), (16, 64, 64)])
def test_cuts_leave_no_trace(
    model: Model,
    files: dict[Phase, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    restored: int,
    read: int,
    surveyed: int,
) -> None:
    enhance_study(model, files, tmp_path / "usual.nii.gz", SLABS)
    monkeypatch.setattr(hounsfield, "SLAB_VOXELS", restored * SHAPE[0] * SHAPE[1])
    monkeypatch.setattr(scan, "READ_SLICES", read)
    monkeypatch.setattr(scan, "SURVEY_BYTES", surveyed * SHAPE[0] * SHAPE[1] * 2)
    with open_study(model, files, SLABS, keeps_result=False) as study:
        assert study.plan.slices == restored
        study.write(tmp_path / "cut.nii.gz")
    assert (tmp_path / "cut.nii.gz").read_bytes() == (tmp_path / "usual.nii.gz").read_bytes()


def test_a_budget_is_kept_to_or_refused(model: Model, files: dict[Phase, Path], tmp_path: Path) -> None:
    with open_study(model, files, SLABS) as study:
        peak, slices = study.plan.peak, study.plan.slices
        assert study.plan.limit is not None
        assert peak <= study.plan.limit
    assert slices == SHAPE[2]
    with pytest.raises(OptionError) as caught:
        enhance_study(
            model, files, tmp_path / "out.nii.gz", EnhanceOptions(Tiling(24, 8), max_memory=GB // 100)
        )
    message = str(caught.value)
    assert "\n" not in message
    for word in ("30x26x61", "24", "0.01 GB", "--max-memory"):
        assert word in message
    assert not list(tmp_path.iterdir())


class Stops(nn.Module):
    """Is interrupted at a tile."""

    def __init__(self, at: int, by: type[BaseException]) -> None:
        super().__init__()
        self.left, self.by = at, by

    def forward(self, phases: torch.Tensor) -> torch.Tensor:
        self.left -= phases.shape[-1] == 20  # not the small ones that memory is predicted by
        if self.left < 0:
            raise self.by
        return phases[:, -1:]


@pytest.mark.parametrize("by", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_leaves_nothing(
    files: dict[Phase, Path], tmp_path: Path, by: type[BaseException]
) -> None:
    network = Stops(15, by).train()
    with pytest.raises(by), open_study(Model(network), files, SLABS) as study:
        study.write(tmp_path / "out.nii.gz")
    assert network.left < 0  # some tiles were done
    assert not list(tmp_path.iterdir())
    assert network.training


SCRIPT = """
import sys
from dataclasses import dataclass
from pathlib import Path
import torch
from mpfnl.inference.enhancement import EnhanceOptions, open_study
from mpfnl.inference.memory import highest
from mpfnl.inference.tiling import Tiling
from mpfnl.models.rcan3d import RCAN3D
class Last(torch.nn.Module):
    def forward(self, phases):
        return 0.9 * phases[:, -1:]
folder, kind, tile = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
torch.manual_seed(0)
model = RCAN3D(phases=3, channels=8, groups=1, blocks=1)
if kind == "trivial":
    model.network = Last()
files = {phase: folder / f"{phase}.nii" for phase in model.phases}
options = EnhanceOptions(Tiling(tile, tile // 8), torch.float32)
with open_study(model, files, options, keeps_result=False) as study:
    study.write(folder / "out.nii")
print(study.plan.peak, highest())
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="there is no VmHWM elsewhere")


def peak_of(folder: Path, kind: str, tile: int, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Bytes that were predicted, and those that were held at most, in a process of its own."""
    folder.mkdir()
    hu = (60 + 50 * np.random.default_rng(0).standard_normal((*shape[:2], 16))).astype(np.int16)
    grid = Grid(shape, AFFINE)
    for phase in PHASES:
        with volume_writer(folder / f"{phase}.nii", grid, np.dtype(np.int16)) as writer:
            for _ in range(shape[2] // 16):
                writer.write(hu)
    command = [sys.executable, "-c", SCRIPT, str(folder), kind, str(tile)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    predicted, peak = map(int, done.stdout.split())
    return predicted, peak


@linux
def test_memory_is_as_predicted(tmp_path: Path) -> None:
    """In float32, as on most processors; its convolutions of a tile of 48 voxels are unfolded."""
    predicted, peak = peak_of(tmp_path / "study", "RCAN3D", 48, (112, 96, 80))
    assert predicted == pytest.approx(peak, rel=0.25)


@linux
def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    _, short = peak_of(tmp_path / "short", "trivial", 32, (256, 224, 96))
    predicted, long = peak_of(tmp_path / "long", "trivial", 32, (256, 224, 480))
    grown = 3 * 2 * 256 * 224 * (480 - 96)  # what the scans alone take more
    assert grown > 130_000_000
    assert long - short < 0.25 * grown
    assert predicted == pytest.approx(long, rel=0.25)
