"""The swap test over an evaluation folder: kept, added to, averaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mpfnl
from mpfnl.data.manifest import read_manifest
from mpfnl.errors import FormatError
from mpfnl.evaluation.folder import SWAP_TABLE
from mpfnl.evaluation.leaks.swap import mean_over_studies, swap_studies, swap_test
from mpfnl.evaluation.scoring import EvaluateOptions, score_cohort
from mpfnl.inference.enhancement import EnhanceOptions
from mpfnl.inference.tiling import Tiling
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phases import PHASES
from mpfnl.volumes import read_volume

OPTIONS = EnhanceOptions(Tiling(48, 8), torch.float32)


@pytest.fixture(scope="module")
def models() -> dict[str, EnhancementModule]:
    torch.manual_seed(0)
    model = mpfnl.PFNL3D(features=8, blocks=1)
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return {"RCAN3D": mpfnl.RCAN3D(channels=16, groups=1, blocks=1), "PFNL3D": model}


def test_each_study_is_swapped_once_and_the_rows_are_those_of_the_test(
    cohort: Path, models: dict[str, EnhancementModule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(cohort)
    score_cohort(manifest, models, tmp_path, EvaluateOptions(tiling=Tiling(48, 8), precision=torch.float32))
    studies = manifest.split("test").studies
    first = swap_studies(studies[:1], models, tmp_path, OPTIONS)
    assert {case.method for case in first} == {"PFNL3D"}  # a single phase cannot be swapped
    place = tmp_path / "volumes" / studies[0].study_id
    scans = {phase: read_volume(place / f"degraded_{phase}.nii.gz", phase) for phase in PHASES}
    expected = swap_test(models["PFNL3D"], scans, {}, OPTIONS)
    assert [(case.row.swapped, case.row.region) for case in first] == [
        (row.swapped, row.region) for row in expected
    ]
    assert [case.row.rms_hu for case in first] == pytest.approx([row.rms_hu for row in expected])
    assert max(case.row.rms_hu for case in first) > 0

    both = swap_studies(studies, models, tmp_path, OPTIONS)
    table = (tmp_path / SWAP_TABLE).read_text()
    monkeypatch.setattr("mpfnl.evaluation.leaks.swap.swap_test", None)  # nothing is left to do
    assert swap_studies(studies, models, tmp_path, OPTIONS) == both
    assert (tmp_path / SWAP_TABLE).read_text() == table
    means = mean_over_studies(both)["PFNL3D"]
    assert len(means) == len(first)
    for number, row in enumerate(means):
        parts = [
            case.row.given_hu
            for case in both
            if (case.row.swapped, case.row.region) == (row.swapped, row.region)
        ]
        assert len(parts) == 2, number
        assert row.given_hu == pytest.approx(sum(parts) / 2)


def test_another_table_is_refused(cohort: Path, models: dict[str, EnhancementModule], tmp_path: Path) -> None:
    (tmp_path / SWAP_TABLE).write_text("a,b\n")
    study = read_manifest(cohort).studies[0]
    with pytest.raises(FormatError, match=SWAP_TABLE):
        swap_studies([study], models, tmp_path, OPTIONS)
