"""Registration steps, settings, and the key of a study's work."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from raw_studies import body, raw_study, write_scan

from mpfnl.errors import OptionError
from mpfnl.phases import Phase
from mpfnl.prepare import PrepareSettings
from mpfnl.prepare.record import study_key, without_paths
from mpfnl.prepare.registration import step_arguments
from mpfnl.prepare.settings import STEPS, find_steps

FREEDOM = ("rigid", "affine", "deformable")


@pytest.mark.parametrize("names", [p for n in (1, 2, 3) for p in permutations(STEPS, n)], ids=" ".join)
def test_steps_come_in_the_order_of_their_freedom(names: tuple[str, ...]) -> None:
    kinds = [FREEDOM.index(name.split("-")[0]) for name in names]
    if all(a < b for a, b in pairwise(kinds)):
        assert [step.name for step in find_steps(names)] == list(names)
    else:
        with pytest.raises(OptionError, match=" ".join(names)):
            find_steps(names)


def test_levels_agree() -> None:
    for step in STEPS.values():
        assert len(step.iterations) == len(step.shrink) == len(step.smoothing)
        assert len(step_arguments(step, "f", "m")) % 2 == 0


def test_the_key_follows_content_and_settings_only(tmp_path: Path) -> None:
    study = raw_study(tmp_path / "a", 0)
    key = study_key(study, PrepareSettings())
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    elsewhere = study.located(lambda _, path: tmp_path / "b" / path.relative_to(tmp_path / "a"))
    assert study_key(elsewhere, PrepareSettings()) == key
    first, second = Phase.NONCONTRAST, Phase.ARTERIAL
    swapped = {**study.scans, first: study.file(second), second: study.file(first)}
    others = [
        study_key(study, replace(PrepareSettings(), grid_mm=5.0)),
        study_key(study, replace(PrepareSettings(), steps=())),
        study_key(replace(study, masks={"pancreas": study.masks["pancreas"]}), PrepareSettings()),
        study_key(replace(study, scans=swapped), PrepareSettings()),
    ]
    hu = body(0, Phase.ARTERIAL)
    hu[3, 3, 3] += 1
    write_scan(study.file(Phase.ARTERIAL), hu)
    others.append(study_key(study, PrepareSettings()))
    assert len({key, *others}) == len(others) + 1


def test_settings_are_plain_json() -> None:
    settings = PrepareSettings().to_json()
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"grid_mm": 0.0},
        {"margin_mm": -1.0},
        {"grid_mm": np.nan},
        {"steps": ("elastic",)},
        {"crop": "heart"},
        {"interpolation": "cubic"},
    ],
)
def test_values_are_checked(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(OptionError, match=f"^{name} "):
        replace(PrepareSettings(), **wrong)


def test_reasons_lose_their_paths(tmp_path: Path) -> None:
    study = raw_study(tmp_path / "Jane Doe", 0)
    arterial, target = study.file(Phase.ARTERIAL), study.file(Phase.PORTAL_VENOUS)
    reason = f"{arterial} (arterial phase): its grid lies off that of {target}"
    shared = without_paths(study, reason)
    assert "Jane" not in shared
    assert "arterial phase" in shared
    assert "<portal_venous>" in shared
