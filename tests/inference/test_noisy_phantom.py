"""Acceptance: strong noise throws soft-tissue voxels out of the window; none of them stays there alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from mpfnl.inference.enhancement import enhance_study
from mpfnl.phantoms import generate_study
from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.labels import LABELS
from mpfnl.phases import Phase
from mpfnl.volumes import Volume
from mpfnl.window import ABDOMEN, Window

NOISE_SD_HU = 60.0
SOFT = {
    *("liver", "liver_lesion", "spleen", "pancreas", "gallbladder", "kidney_left", "kidney_right"),
    *("adrenal_gland_left", "adrenal_gland_right", "autochthon_left", "autochthon_right"),
    *("iliopsoas_left", "iliopsoas_right", "heart", "aorta", "inferior_vena_cava"),
    "portal_vein_and_splenic_vein",
}
BONE = ("vertebrae", "rib", "costal")
LUMEN_OR_LUNG = ("stomach", "small_bowel", "duodenum", "colon", "esophagus", "lung")


class Smooth(torch.nn.Module):
    """Stands in for a network: the mean over 3x3x3 voxels."""

    def forward(self, phases: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool3d(phases, 3, stride=1, padding=1, count_include_pad=False)


@dataclass(frozen=True)
class Smoother:
    """What `enhance_study` asks of a model."""

    network: torch.nn.Module
    phases: tuple[Phase, ...] = (Phase.PORTAL_VENOUS,)
    name: str = "stand-in"
    target: Phase = Phase.PORTAL_VENOUS
    window: Window = ABDOMEN
    optional_phases: tuple[Phase, ...] = ()
    trained_without_phases: bool = False
    reference_noise: None = None
    patch_size: int | None = None


@dataclass(frozen=True)
class Case:
    noisy: np.ndarray
    enhanced: np.ndarray
    soft: np.ndarray


def labelled(labels: np.ndarray, *prefixes: str) -> np.ndarray:
    return np.isin(labels, [number for number, name in LABELS.items() if name.startswith(prefixes)])


def isolated(hu: np.ndarray) -> np.ndarray:
    """Voxels outside of the window without such a neighbour across a face."""
    outside = (hu < ABDOMEN.lower) | (hu > ABDOMEN.upper)
    parts, _ = ndimage.label(outside)
    return outside & (np.bincount(parts.ravel())[parts] == 1)


@pytest.fixture(scope="module", params=[0, 1])
def case(request: pytest.FixtureRequest) -> Case:
    """A phantom with noise that is correlated in the slice, as a low-dose scan's is."""
    study = generate_study(request.param, 0, SMALL)
    white = np.random.default_rng(request.param).standard_normal(study.labels.shape)
    noise = ndimage.gaussian_filter(white, (1.0, 1.0, 0.0))
    clean = study.phases[Phase.PORTAL_VENOUS]
    noisy = np.rint(clean + noise * (NOISE_SD_HU / noise.std())).clip(-1024, 3071).astype(np.int16)
    scan = Volume.from_array(noisy, study.affine, Path("noisy.nii.gz"), Phase.PORTAL_VENOUS)
    enhanced = enhance_study(Smoother(Smooth()), {Phase.PORTAL_VENOUS: scan}).data
    away = ndimage.distance_transform_edt(~labelled(study.labels, *BONE, *LUMEN_OR_LUNG)) >= 2
    soft = np.isin(study.labels, [number for number, name in LABELS.items() if name in SOFT]) & away
    return Case(noisy, enhanced, soft)


def test_no_soft_tissue_voxel_stays_outside_the_window_alone(case: Case) -> None:
    assert case.soft.sum() > 50_000
    assert (isolated(case.noisy) & case.soft).sum() > 50  # the noise makes what must go
    assert (isolated(case.enhanced) & case.soft).sum() == 0


def test_what_lies_outside_the_window_is_the_input_bit_by_bit(case: Case) -> None:
    smoothed = ndimage.uniform_filter(case.noisy.astype(np.float64), 3, mode="nearest")
    outside = (smoothed < ABDOMEN.lower - 50) | (smoothed > ABDOMEN.upper + 50)
    assert 0.05 < outside.mean() < 0.95
    assert np.array_equal(case.enhanced[outside], case.noisy[outside])
    assert (case.enhanced != case.noisy)[~outside].mean() > 0.9
