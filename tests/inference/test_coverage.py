"""Phases that do not reach as far as the target: what they do not cover is not erased."""

from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mpfnl
from mpfnl.inference.coverage import CoverageMeter
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study, open_study
from mpfnl.inference.tiling import Tiling
from mpfnl.networks.coverage import run_covered
from mpfnl.phases import PHASES, Phase
from mpfnl.window import UNCOVERED_HU

NC, ART, PV = PHASES
SHAPE = (40, 36, 24)
AFFINE = np.diag([1.5, 1.5, 3.0, 1.0])


def make_scans() -> dict[Phase, np.ndarray]:
    x, y, _ = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    body = np.where((x - 20) ** 2 + (y - 18) ** 2 < 250, 1.0, 0.0)
    rng = np.random.default_rng(0)
    levels = {NC: 50, ART: 70, PV: 100}
    return {
        phase: (np.where(body > 0, level, -1000) + rng.normal(0, 10, SHAPE)).astype(np.int16)
        for phase, level in levels.items()
    }


def save(folder: Path, scans: dict[Phase, np.ndarray]) -> dict[Phase, Path]:
    files = {}
    for phase, hu in scans.items():
        files[phase] = folder / f"{phase}.nii.gz"
        nib.save(nib.Nifti1Image(hu, AFFINE), files[phase])
    return files


@pytest.fixture(scope="module")
def model() -> mpfnl.PFNL3D:
    return mpfnl.PFNL3D.from_pretrained("pfnl3d-phantoms")


@pytest.fixture(scope="module")
def alone(model: mpfnl.PFNL3D, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The portal venous scan, enhanced without the other phases."""
    files = save(tmp_path_factory.mktemp("alone"), {PV: make_scans()[PV]})
    return model.enhance(files, precision=torch.float32).data


@pytest.mark.parametrize("filler", [UNCOVERED_HU, -3024, -32768])
def test_beyond_its_reach_a_phase_is_one_that_is_missing(
    filler: int, model: mpfnl.PFNL3D, tmp_path: Path
) -> None:
    scans = make_scans()
    for phase in (NC, ART):
        scans[phase][:, 18:] = filler
    tiling = Tiling(16, 0)
    result = model.enhance(save(tmp_path, scans), tiling=tiling, precision=torch.float32).data
    alone = model.enhance({PV: save(tmp_path, scans)[PV]}, tiling=tiling, precision=torch.float32).data
    assert np.abs(result.astype(int) - alone)[:, 32:].max() <= 1  # whole tiles without them; HU are rounded


@pytest.mark.parametrize("filler", [UNCOVERED_HU, -1024, -1000, 0])
def test_blank_end_slices_do_not_erase_an_organ(
    filler: int, model: mpfnl.PFNL3D, alone: np.ndarray, tmp_path: Path
) -> None:
    scans = make_scans()
    for phase, stop in ((NC, 12), (ART, 8)):
        scans[phase][:, :, stop:] = filler
    files = save(tmp_path, scans)
    with open_study(model, files, EnhanceOptions(precision=torch.float32)) as study:
        assert [line.split(":")[0] for line in study.lines[1:3]] == [
            f"{NC.label} phase",
            f"{ART.label} phase",
        ]
        assert "50 %" in study.lines[1].replace("50%", "50 %")
        result = study.volume().data
    organ = np.zeros(SHAPE, dtype=bool)
    organ[14:26, 12:24, 14:22] = True
    assert abs(result[organ].mean() - alone[organ].mean()) < 10
    assert abs(result[organ].mean() - 100) < 10


def test_without_the_mask_the_organ_is_erased(model: mpfnl.PFNL3D) -> None:
    """The fault that coverage mends: uncovered voxels taken for air."""
    phases = torch.zeros(1, 3, 32, 32, 32)
    phases[:, 2] = 0.6
    with torch.no_grad():
        erased = model.network(phases)[..., 8:-8, 8:-8, 8:-8].mean()
        kept = run_covered(model.network, torch.where(phases == 0, torch.nan, phases), 2)
    assert erased < 0.5
    assert abs(kept[..., 8:-8, 8:-8, 8:-8].mean() - 0.6) < 0.05


def test_whole_phases_are_enhanced_as_before_and_no_line_is_added(
    model: mpfnl.PFNL3D, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = save(tmp_path, make_scans())
    with caplog.at_level(logging.INFO), open_study(model, files) as study:
        assert len(study.lines) == 2


class Mean(nn.Module):
    def forward(self, phases: Tensor) -> Tensor:
        return phases.mean(1, keepdim=True)


def test_for_any_network_the_target_stands_in_for_what_a_phase_does_not_cover() -> None:
    phases = torch.rand(1, 3, 4, 4, 4)
    partly = phases.clone()
    partly[:, :2, :2] = torch.nan
    result = run_covered(Mean(), partly, 2)
    torch.testing.assert_close(result[:, :, :2], phases[:, 2:, :2])
    torch.testing.assert_close(result[:, :, 2:], phases.mean(1, keepdim=True)[:, :, 2:])


def test_tiles_self_ensemble_and_whole_agree(model: mpfnl.PFNL3D, tmp_path: Path) -> None:
    scans = make_scans()
    scans[ART][10:, :, :10] = UNCOVERED_HU
    files = save(tmp_path, scans)
    options = EnhanceOptions(Tiling(32, 16), torch.float32, self_ensemble=True)
    result = enhance_study(model, files, None, options).data
    inside = result[16:24, 14:22, 4:8]
    assert abs(inside.mean() - 100) < 10


@given(st.integers(0, 6), st.integers(0, 6), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_blank_slices_are_found_however_the_scan_is_read(first: int, last: int, step: int) -> None:
    scan = np.random.default_rng(1).normal(40, 5, (6, 5, 20))
    scan[:, :, 10] = -1000  # a blank slice between others counts as scanned
    scan[:, :, :first] = -1024
    scan[:, :, 20 - last :] = 0
    meter = CoverageMeter()
    for start in range(0, 20, step):
        meter(start, scan[:, :, start : start + step], 20)
    assert meter.slices == slice(first, 20 - last)
    assert meter.share == pytest.approx((20 - first - last) / 20)
