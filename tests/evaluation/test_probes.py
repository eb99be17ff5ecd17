"""Probes: models whose effect is known, on undegraded phases and on lesions inserted before degradation."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor, nn
from torch.nn.functional import avg_pool3d

from mpfnl.data.manifest import Manifest, Split, Study, write_manifest
from mpfnl.evaluation.cases import Case
from mpfnl.evaluation.probes import APART_MM, PLANNED, PROBE_COLUMNS, inserted, place_lesions
from mpfnl.evaluation.scoring import EvaluateOptions, score_cohort
from mpfnl.inference.tiling import Tiling
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, write_volume
from mpfnl.window import ABDOMEN, UNCOVERED_HU

PV, ART = Phase.PORTAL_VENOUS, Phase.ARTERIAL
SHAPE, SPACING = (60, 54, 24), (2.0, 2.0, 3.0)
OPTIONS = EvaluateOptions(tiling=Tiling(32, 8), precision=torch.float32)


class Average(nn.Module):
    """The mean over the cubes around each voxel of the target phase; of edge 1 the phase itself."""

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.edge = edge
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, phases: Tensor) -> Tensor:
        return avg_pool3d(phases[:, -1:], self.edge, 1, self.edge // 2, count_include_pad=False)


def model(edge: int) -> SimpleNamespace:
    return SimpleNamespace(
        name=f"average of {edge}",
        network=Average(edge),
        phases=(ART, PV),
        optional_phases=(),
        trained_without_phases=False,
        reference_noise=None,
        target=PV,
        window=ABDOMEN,
        patch_size=None,
        device=torch.device("cpu"),
        description={"model": "Average", "edge": edge},
    )


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A study of two phases: a liver in fat, and its label map."""
    folder = tmp_path_factory.mktemp("cohort")
    labels = np.zeros(SHAPE, np.uint8)
    labels[6:54, 6:48, 2:22] = 5
    scans = {}
    for number, (phase, level) in enumerate({ART: 80.0, PV: 110.0}.items()):
        hu = np.full(SHAPE, -1000.0)
        hu[3:-3, 3:-3] = -90
        hu[labels == 5] = level
        hu[3:-3, 3:-3] += np.random.default_rng(number).normal(0, 5, hu[3:-3, 3:-3].shape)
        scans[phase] = folder / f"{phase}.nii.gz"
        scan = Volume.from_array(hu.astype(np.int16), np.diag([*SPACING, 1.0]), scans[phase], phase)
        write_volume(scans[phase], scan.data, like=scan)
    write_volume(folder / "labels.nii.gz", labels, like=scan)
    study = Study("s", "p", Split.TEST, scans, {"labels": folder / "labels.nii.gz"})
    return write_manifest(folder / "cohort.csv", [study])


@pytest.fixture(scope="module")
def rows(cohort: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Case]]:
    folder = tmp_path_factory.mktemp("evaluation")
    evaluation = score_cohort(cohort, {"same": model(1), "mean": model(5)}, folder, OPTIONS)
    return folder, {case.method: case for case in evaluation.cases}


def test_a_model_that_changes_nothing_keeps_everything(rows: tuple[Path, dict[str, Case]]) -> None:
    degraded, same = (rows[1][name].structure for name in ("degraded", "same"))
    assert set(PROBE_COLUMNS) <= set(degraded)
    assert (degraded["undegraded_rmse_hu"], degraded["undegraded_edge_ratio"]) == (0.0, pytest.approx(1.0))
    assert same["undegraded_rmse_hu"] < 0.5  # rounding
    assert same["undegraded_edge_ratio"] == pytest.approx(1.0, abs=0.01)
    for column in PROBE_COLUMNS[2:]:
        assert same[column] == pytest.approx(degraded[column], abs=0.02)
        assert 0.3 < degraded[column] < 1.15


def test_a_mean_of_voxels_loses_the_smaller_lesions_first(rows: tuple[Path, dict[str, Case]]) -> None:
    degraded, mean = (rows[1][name].structure for name in ("degraded", "mean"))
    kept = [mean[f"inserted_{size}_mm_kept"] for size in (12, 8, 6)]
    assert 1 > kept[0] > kept[1] > kept[2] > 0
    assert all(mean[column] < degraded[column] - 0.1 for column in PROBE_COLUMNS[2:])
    assert mean["undegraded_rmse_hu"] > 5
    assert mean["undegraded_edge_ratio"] < 0.8


def test_probes_are_kept_and_not_repeated(
    cohort: Manifest, rows: tuple[Path, dict[str, Case]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = rows
    monkeypatch.setattr("mpfnl.evaluation.probes.enhance_study", None)  # a call would fail
    for options in (OPTIONS, replace(OPTIONS, probes=False)):
        again = score_cohort(cohort, {"same": model(1), "mean": model(5)}, folder, options)
        assert {case.method: case.structure for case in again.cases} == {
            name: case.structure for name, case in before.items()
        }


def test_probes_may_be_left_out(cohort: Manifest, tmp_path: Path) -> None:
    evaluation = score_cohort(cohort, {}, tmp_path, replace(OPTIONS, probes=False))
    assert not set(PROBE_COLUMNS) & set(evaluation.cases[0].structure)


def test_lesions_lie_in_the_liver_and_apart() -> None:
    liver = np.zeros((50, 44, 40), dtype=bool)
    liver[3:-3, 3:-3, 3:-3] = True
    liver[20:24, 20:24] = False  # a vessel
    lesions = place_lesions(liver, (1.5, 1.5, 2.0))
    assert [lesion.diameter_mm for lesion in lesions] == [diameter for _, diameter, _ in PLANNED]
    depth = distance_transform_edt(liver, sampling=(1.5, 1.5, 2.0))
    for lesion in lesions:
        assert depth[lesion.centre] >= lesion.diameter_mm / 2
    for one, other in combinations(lesions, 2):
        between = math.dist(*(np.array(each.centre) * (1.5, 1.5, 2.0) for each in (one, other)))
        assert between >= APART_MM + max(one.diameter_mm, other.diameter_mm) / 2
    assert lesions == place_lesions(liver, (1.5, 1.5, 2.0))
    assert place_lesions(np.zeros((8, 8, 8), dtype=bool), (1.0, 1.0, 1.0)) == []
    assert place_lesions(np.ones((6, 6, 3), dtype=bool), (1.0, 1.0, 1.0)) == []


@pytest.mark.parametrize("edge", [2.0, 3.5, 5.0, 8.0])
def test_lesions_of_less_than_two_voxels_are_left_out(edge: float) -> None:
    lesions = place_lesions(np.ones((30, 30, 30), dtype=bool), (edge, edge, edge))
    assert {lesion.diameter_mm for lesion in lesions} == {d for _, d, _ in PLANNED if d >= 2 * edge}


def test_a_one_phase_lesion_is_in_the_target_alone_and_uncovered_voxels_stay_so() -> None:
    (lesion, *_) = place_lesions(np.ones((40, 40, 40), dtype=bool), (1.0, 1.0, 1.0))
    hu = np.full((40, 40, 40), 100, np.int16)
    hu[:, :, lesion.centre[2] :] = UNCOVERED_HU
    shown = inserted(hu, (1.0, 1.0, 1.0), [lesion], is_target=False)
    assert shown[lesion.centre[0], lesion.centre[1], lesion.centre[2] - 1] == 60
    assert np.array_equal(shown == UNCOVERED_HU, hu == UNCOVERED_HU)
    assert shown.dtype == np.int16
    hidden = replace(lesion, one_phase=True)
    assert np.array_equal(inserted(hu, (1.0, 1.0, 1.0), [hidden], is_target=False), hu)
    assert not np.array_equal(inserted(hu, (1.0, 1.0, 1.0), [hidden], is_target=True), hu)
