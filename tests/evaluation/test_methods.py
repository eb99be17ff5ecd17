"""Models restricted to some of their phases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mpfnl
from mpfnl.cli.options import load_models
from mpfnl.data.manifest import read_manifest
from mpfnl.errors import ConflictError, InputError, OptionError
from mpfnl.evaluation.methods import PhaseSubset
from mpfnl.evaluation.report.contents import method_lines
from mpfnl.evaluation.scoring import EvaluateOptions, score_cohort
from mpfnl.inference.tiling import Tiling
from mpfnl.phases import PHASES, Phase
from mpfnl.volumes import read_volume

OPTIONS = EvaluateOptions(tiling=Tiling(32, 8), precision=torch.float32)


@pytest.fixture
def model() -> mpfnl.PFNL3D:
    torch.manual_seed(0)
    made = mpfnl.PFNL3D(features=4, blocks=1)
    torch.nn.init.normal_(made.network.reconstruct[0].weight, 0, 0.1)
    return made.eval()


def test_the_withheld_phase_changes_nothing(
    cohort: Path, model: mpfnl.PFNL3D, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = PhaseSubset(model, ["noncontrast", "portal_venous"])
    score_cohort(read_manifest(cohort), {"all": model, "two": given}, tmp_path / "out", OPTIONS)
    assert "without arterial" in caplog.text
    volumes = tmp_path / "out" / "volumes" / "test0"
    sources = {
        phase: read_volume(volumes / f"degraded_{phase}.nii.gz", phase)
        for phase in (Phase.NONCONTRAST, Phase.PORTAL_VENOUS)
    }
    expected = model.enhance(sources, tiling=OPTIONS.tiling, precision=OPTIONS.precision).data
    two, whole = (read_volume(volumes / f"{name}.nii.gz").data for name in ("two", "all"))
    assert np.array_equal(two, expected)
    assert not np.array_equal(two, whole)


def test_the_record_and_the_report_say_which(cohort: Path, model: mpfnl.PFNL3D, tmp_path: Path) -> None:
    given = PhaseSubset(model, ["portal_venous"])
    manifest = read_manifest(cohort)
    score_cohort(manifest, {"all": model, "alone": given}, tmp_path / "out", OPTIONS)
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert record["models"]["alone"]["given"] == ["portal_venous"]
    assert record["models"]["alone"]["weights_sha256"] == record["models"]["all"]["weights_sha256"]
    received, withheld = method_lines(record)["alone"].split("withheld")
    names = [phase.label for phase in PHASES]
    assert [name in received for name in names] == [False, False, True]
    assert [name in withheld for name in names] == [True, True, False]
    assert "withheld" not in method_lines(record)["all"]
    with pytest.raises(ConflictError, match="model alone"):
        score_cohort(manifest, {"all": model, "alone": model}, tmp_path / "out", OPTIONS)


def test_what_it_cannot_do_without_is_refused(model: mpfnl.PFNL3D) -> None:
    with pytest.raises(InputError, match="portal venous"):
        PhaseSubset(model, ["noncontrast", "arterial"])
    with pytest.raises(InputError, match="arterial"):
        PhaseSubset(mpfnl.RCAN3D(phases=3, channels=8, groups=1, blocks=1), ["noncontrast", "portal_venous"])
    with pytest.raises(OptionError, match="arterial"):
        PhaseSubset(mpfnl.RCAN3D(channels=8, groups=1, blocks=1), ["arterial", "portal_venous"])


def test_the_command_line_names_them(model: mpfnl.PFNL3D, tmp_path: Path) -> None:
    weights = model.save_pretrained(tmp_path / "a@b")
    named = load_models([f"all={weights}", f"two={weights}@noncontrast+portal_venous"], "cpu")
    assert named["all"].phases == PHASES
    assert named["two"].phases == (Phase.NONCONTRAST, Phase.PORTAL_VENOUS)
