"""Networks with `scale` 2 and 4: tiles, place and HU of whole volumes on the finer grid."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from drawn_networks import drawn, without_attention
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor, nn
from torch.nn import functional

import mpfnl
from mpfnl.cli import main
from mpfnl.inference import hounsfield
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study, open_study
from mpfnl.inference.hounsfield import restore_hu
from mpfnl.inference.plan import TileCost, Workload, predict
from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling, receptive_radius, stretches
from mpfnl.networks import RCAN3DNet
from mpfnl.networks.capabilities import Capabilities
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume, write_volume
from mpfnl.window import ABDOMEN, Window

PV = Phase.PORTAL_VENOUS
SHAPE = (22, 18, 30)
OPTIONS = EnhanceOptions(Tiling(12, 6, 2), torch.float32)


class Interpolates(nn.Module):
    """Returns the first phase on the finer grid."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.capabilities = Capabilities(scale)

    def forward(self, phases: Tensor) -> Tensor:
        return functional.interpolate(phases[:, :1], scale_factor=self.capabilities.scale, mode="trilinear")


@dataclass
class Model:
    """What `enhance_study` asks of a model."""

    network: nn.Module
    phases: tuple[Phase, ...] = (PV,)
    name: str = "stand-in"
    target: Phase = PV
    window: Window = ABDOMEN
    optional_phases: tuple[Phase, ...] = ()
    trained_without_phases: bool = False
    reference_noise: None = None
    patch_size: int | None = None


def turned() -> np.ndarray:
    """An affine with the axes permuted and turned, and unequal spacings."""
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.8, 0.9, 2.5])[:, [1, 0, 2]]
    affine[:3, 3] = (-120.0, 40.0, 700.0)
    return affine


def world(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    voxels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    placed: np.ndarray = voxels @ affine[:3, :3].T + affine[:3, 3]
    return placed


def finer_by_scipy(scan: np.ndarray, scale: int) -> np.ndarray:
    axes = [(np.arange(side * scale) + 0.5) / scale - 0.5 for side in scan.shape]
    made: np.ndarray = map_coordinates(
        scan.astype(np.float64), np.meshgrid(*axes, indexing="ij"), order=1, mode="nearest"
    )
    return made


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(2, 40), st.sampled_from([2, 4]), st.data())
def test_weights_add_up_to_one_on_the_finer_grid(
    side: int, tile: int, scale: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    halo = data.draw(st.integers(0, overlap // 2))
    total = torch.zeros(side * scale)
    for each in stretches(side, Tiling(tile, overlap, halo), scale):
        assert (each.result.start, each.result.stop) == (scale * each.inside.start, scale * each.inside.stop)
        assert each.start == 0 or (each.weight[: scale * halo] == 0).all()
        total[each.result] += each.weight
    torch.testing.assert_close(total, torch.ones(side * scale))


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("tiling", [Tiling(12, 6, 2), Tiling(9, 3, 1), Tiling(64, 0)])
def test_tiles_make_the_finer_volume(scale: int, tiling: Tiling) -> None:
    """Against SciPy's interpolation of the whole."""
    volume = np.random.default_rng(0).random(SHAPE).astype(np.float32)
    found = tiled_forward(Interpolates(scale), torch.from_numpy(volume)[None], tiling, torch.float32)
    np.testing.assert_allclose(found.numpy(), finer_by_scipy(volume, scale), atol=1e-6)


@pytest.mark.parametrize("scale", [2, 4])
def test_tiled_is_untiled_where_the_halo_covers_what_the_network_sees(scale: int) -> None:
    network = drawn(without_attention(RCAN3DNet(1, 8, groups=1, blocks=1, scale=scale)))
    radius = receptive_radius(network)
    volume = torch.from_numpy(np.random.default_rng(1).random((1, 34, 20, 12)).astype(np.float32))
    whole = tiled_forward(network, volume, Tiling(64, 0), torch.float32)
    tiled = tiled_forward(network, volume, Tiling(2 * radius + 6, 2 * radius + 2, radius), torch.float32)
    assert whole.shape == (34 * scale, 20 * scale, 12 * scale)
    assert whole.std() > 0.02
    assert (tiled - whole).abs().max() < 1e-5


def test_a_network_that_makes_another_grid_than_it_says_is_refused() -> None:
    with pytest.raises(ValueError, match="scale of 1"):
        tiled_forward(Unsaid(), torch.rand(1, 8, 8, 8), precision=torch.float32)


class Unsaid(nn.Module):
    """Makes a finer grid and does not say so."""

    def forward(self, phases: Tensor) -> Tensor:
        return functional.interpolate(phases, scale_factor=2)


@pytest.mark.parametrize("scale", [2, 4])
def test_voxels_lie_where_they_did(tmp_path: Path, scale: int) -> None:
    """What is linear in the patient's space is so on the finer grid, at its own places, as ITK reads it."""
    file, output = tmp_path / "pv.nii.gz", tmp_path / "out.nii"
    affine, slope = turned(), np.array([0.9, -0.7, 0.4])
    hu = (world(affine, SHAPE) @ slope).astype(np.float32)
    hu -= hu.mean() - 50
    offset = float((hu - world(affine, SHAPE) @ slope).mean())
    write_volume(file, hu, Volume.from_array(hu, affine, file))
    enhance_study(Model(Interpolates(scale)), {PV: file}, output, OPTIONS)
    made = read_volume(output)
    assert made.shape == tuple(scale * side for side in SHAPE)
    inside = np.s_[scale:-scale, scale:-scale, scale:-scale]
    expected = world(made.affine, made.shape) @ slope + offset
    np.testing.assert_allclose(made.data[inside], expected[inside], atol=2e-3)
    coarse, fine = (sitk.ReadImage(str(path)) for path in (file, output))
    np.testing.assert_allclose(fine.GetSpacing(), np.array(coarse.GetSpacing()) / scale, rtol=1e-6)
    np.testing.assert_allclose(  # both fill the same box
        fine.TransformContinuousIndexToPhysicalPoint([-0.5] * 3),
        coarse.TransformContinuousIndexToPhysicalPoint([-0.5] * 3),
        atol=1e-4,
    )
    resampled = sitk.Resample(coarse, fine, sitk.Transform(), sitk.sitkLinear)
    by_itk = sitk.GetArrayFromImage(resampled).transpose(2, 1, 0)
    np.testing.assert_allclose(made.data[inside], by_itk[inside], atol=2e-3)


def scan() -> np.ndarray:
    rng = np.random.default_rng(3)
    hu = (60 + 20 * rng.standard_normal(SHAPE)).astype(np.int16)
    hu[:4] = -1000
    hu[14:, :, 8:20] = 900
    return hu


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_what_lies_outside_of_the_window_is_the_interpolated_input(dtype: type) -> None:
    hu = scan().astype(dtype)
    unit = np.full([2 * side for side in SHAPE], 0.25, np.float32)
    made = restore_hu(hu, unit, ABDOMEN)
    interpolated = finer_by_scipy(hu, 2)
    assert made.dtype == dtype
    for outside in (np.s_[:6], np.s_[32:, :, 20:36]):
        np.testing.assert_allclose(made[outside], interpolated[outside], atol=0.5001)
    np.testing.assert_allclose(made[12:24, 4:-4, 4:-4], ABDOMEN.denormalize(0.25), atol=0.51)


@pytest.mark.parametrize("restored", [1, 3, 16])
def test_cuts_leave_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored: int) -> None:
    file = tmp_path / "pv.nii.gz"
    write_volume(file, scan(), Volume.from_array(scan(), turned(), file))
    model = Model(drawn(RCAN3DNet(1, 8, groups=1, blocks=1, scale=2)))
    enhance_study(model, {PV: file}, tmp_path / "usual.nii", OPTIONS)
    monkeypatch.setattr(hounsfield, "SLAB_VOXELS", restored * SHAPE[0] * SHAPE[1] * 8)
    with open_study(model, {PV: file}, OPTIONS, keeps_result=False) as study:
        assert study.plan.slices == restored
        study.write(tmp_path / "cut.nii")
    assert (tmp_path / "cut.nii").read_bytes() == (tmp_path / "usual.nii").read_bytes()
    in_memory = enhance_study(model, {PV: Volume.from_array(scan(), turned(), file)}, options=OPTIONS)
    assert np.array_equal(in_memory.data, read_volume(tmp_path / "usual.nii").data)


def test_shapes_that_do_not_fit_are_refused() -> None:
    for shape in ((8, 8, 9), (8, 8, 4), (2, 2, 2), (6, 6, 6)):
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            restore_hu(np.zeros((4, 4, 4), np.int16), np.zeros(shape, np.float32), ABDOMEN)


def test_more_memory_is_predicted_for_a_finer_grid() -> None:
    """At least the sums of a layer, and the result."""
    sides, tiling = (100, 80, 60), Tiling(16, 4)
    peaks = {
        scale: predict(Workload(sides, [2], 2, TileCost(), held=0, highest=0, scale=scale), tiling, slices=4)
        for scale in (1, 2, 4)
    }
    least = 100 * 80 * (16 * 4 + 60 * 2)
    assert peaks[2] - peaks[1] > 7 * least
    assert peaks[4] - peaks[2] > 56 * least


def test_the_command_writes_a_finer_scan_and_no_dicom(
    tmp_path: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = mpfnl.RCAN3D(phases=1, channels=8, groups=1, blocks=1, scale=2)
    weights = model.save_pretrained(tmp_path / "weights")
    source = cohort.parent / "test0" / "portal_venous.nii.gz"
    words = ["enhance", "--weights", str(weights), "--portal-venous", str(source), "-o"]
    assert main([*words, str(tmp_path / "out.nii.gz")]) == 0
    assert "80x72x60 voxels" in capsys.readouterr().out
    made = read_volume(tmp_path / "out.nii.gz")
    assert made.shape == (80, 72, 60)
    np.testing.assert_allclose(made.spacing, (0.75, 0.75, 1.25))
    assert main([*words, str(tmp_path / "series")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert str(tmp_path / "series") in line
    assert ".nii.gz" in line
    assert not (tmp_path / "series").exists()


def test_an_evaluation_says_that_it_compares_on_one_grid(
    tmp_path: Path, cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = mpfnl.RCAN3D(phases=1, channels=8, groups=1, blocks=1, scale=2).save_pretrained(
        tmp_path / "weights"
    )
    words = ["evaluate", str(cohort), "--models", f"fine={weights}", "-o", str(tmp_path / "evaluation")]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "fine" in line
    assert "2" in line
    assert not (tmp_path / "evaluation").exists()
