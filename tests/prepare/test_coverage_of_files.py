"""Acceptance: a phase that covers a part, from the raw files through the preparation to the enhanced scan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from raw_studies import write_scan

import mpfnl
from mpfnl.data.degradation import SampleSettings, degrade_study
from mpfnl.data.manifest import Split, Study
from mpfnl.data.studies import load_study
from mpfnl.inference.tiling import Tiling
from mpfnl.metrics.phase_leak import organ_zones
from mpfnl.phantoms import generate_study
from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.labels import LABELS
from mpfnl.phantoms.study import PhantomStudy
from mpfnl.phases import PHASES, Phase
from mpfnl.prepare import PrepareSettings
from mpfnl.prepare.study import prepare_study
from mpfnl.transforms.degradation import find_preset
from mpfnl.volumes import Volume, write_volume
from mpfnl.window import ABDOMEN

NC, ART, PV = PHASES
Change = Callable[[np.ndarray], tuple[np.ndarray, int] | None]
"""Makes a phase's scan of the whole one, with its first slice; None for a phase that the study lacks."""

ORGANS = ("liver", "spleen", "kidney_left", "kidney_right", "pancreas")


@dataclass(frozen=True)
class Enhanced:
    """The enhanced scan of a study, and where no phase but the portal venous one has voxels."""

    phases: tuple[Phase, ...]
    hu: np.ndarray
    uncovered: np.ndarray


@pytest.fixture(scope="module")
def phantom() -> PhantomStudy:
    return generate_study(77, 3, replace(SMALL, in_plane_mm=(4, 4), slice_mm=(4, 4), misalignment=0.0))


@pytest.fixture(scope="module")
def model() -> mpfnl.PFNL3D:
    return mpfnl.PFNL3D.from_pretrained("pfnl3d-phantoms")


def enhance(phantom: PhantomStudy, model: mpfnl.PFNL3D, folder: Path, change: Change) -> Enhanced:
    """Prepares, degrades and enhances the phantom, its other phases changed."""
    files = {PV: write_scan(folder / "raw" / f"{PV}.nii", phantom.phases[PV], phantom.affine)}
    for phase in (NC, ART):
        if (changed := change(phantom.phases[phase].copy())) is not None:
            hu, start = changed
            affine = phantom.affine.copy()
            affine[:3, 3] += start * affine[:3, 2]
            files[phase] = write_scan(folder / "raw" / f"{phase}.nii", hu, affine)
    (folder / "prepared").mkdir()
    study = Study("s", "p", Split.TEST, files)
    record = prepare_study(study, PrepareSettings(steps=(), crop="none"), "key", folder / "prepared")
    scans = {phase: folder / "prepared" / f"{phase}.nii" for phase in files}
    used = replace(study, scans={p: file for p, file in scans.items() if p not in record["left_out"]})
    settings = SampleSettings(used.phases, PV, find_preset("paper"), seed=3)
    clean = load_study(used, settings.loaded)
    degraded = degrade_study(clean, settings)
    uncovered = np.ones(clean.grid.shape, dtype=bool)
    for phase, scan in degraded.items():
        scans[phase] = folder / f"{phase}_degraded.nii.gz"
        write_volume(scans[phase], scan, like=Volume.from_array(scan, clean.grid.affine))
        uncovered &= (scan == -2048) | (phase is PV)
    named = {phase: scans[phase] for phase in used.phases}
    result = model.enhance(named, tiling=Tiling(48, 16), precision=torch.float32)
    return Enhanced(used.phases, result.data.astype(np.float32), uncovered)


@pytest.fixture(scope="module")
def alone(phantom: PhantomStudy, model: mpfnl.PFNL3D, tmp_path_factory: pytest.TempPathFactory) -> Enhanced:
    return enhance(phantom, model, tmp_path_factory.mktemp("alone"), lambda hu: None)


def psnr(phantom: PhantomStudy, hu: np.ndarray) -> float:
    unit, clean = (ABDOMEN.normalize(torch.from_numpy(np.float32(each))) for each in (hu, phantom.phases[PV]))
    return float(-10 * torch.log10((unit - clean).square().mean()))


def blank(hu: np.ndarray) -> tuple[np.ndarray, int]:
    hu[:, :, -9:] = -1024
    return hu, 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda hu: (hu[:, :, : hu.shape[2] // 2], 0),
        lambda hu: (hu[:, :, -(hu.shape[2] // 4) :], hu.shape[2] - hu.shape[2] // 4),
        lambda hu: (hu, 1000),
        blank,
    ],
    ids=["half", "a quarter", "nothing", "blank end slices"],
)
def test_no_organ_is_erased_and_no_quality_lost(
    phantom: PhantomStudy, model: mpfnl.PFNL3D, alone: Enhanced, tmp_path: Path, change: Change
) -> None:
    result = enhance(phantom, model, tmp_path, change)
    compared = 0
    for name in ORGANS:
        (number,) = (number for number, organ in LABELS.items() if organ == name)
        mask = (phantom.labels == number) & result.uncovered
        if mask.any():
            zones = organ_zones(mask, phantom.spacing)
            if zones.core_ml >= 1:
                compared += 1
                means = [each.hu[zones.box][zones.core].mean() for each in (result, alone)]
                assert abs(means[0] - means[1]) <= 10, name
    assert compared >= 2
    assert psnr(phantom, result.hu) >= psnr(phantom, alone.hu) - 0.05
