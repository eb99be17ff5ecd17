"""Presets, settings, and what a study's work is known by."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path

import numpy as np
import pytest
from raw_studies import body, raw_study, write_scan

from mpfnl.errors import InputError
from mpfnl.phases import Phase
from mpfnl.prepare.presets import PRESETS, find_steps
from mpfnl.prepare.private import without_paths
from mpfnl.prepare.settings import PrepareSettings, study_key

FREEDOM = ("rigid", "affine", "deformable")


@pytest.mark.parametrize("names", [p for n in (1, 2, 3) for p in permutations(PRESETS, n)], ids=" ".join)
def test_steps_come_in_the_order_of_their_freedom(names: tuple[str, ...]) -> None:
    kinds = [FREEDOM.index(name.split("-")[0]) for name in names]
    if all(a < b for a, b in pairwise(kinds)):
        assert [step.name for step in find_steps(names)] == list(names)
    else:
        with pytest.raises(InputError, match="rigid then affine then deformable"):
            find_steps(names)


def test_levels_agree() -> None:
    for step in PRESETS.values():
        assert len(step.iterations) == len(step.shrink) == len(step.smoothing)
        assert len(step.arguments("f", "m")) % 2 == 0


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


@pytest.mark.parametrize("wrong", [{"grid_mm": 0.0}, {"margin_mm": -1.0}, {"grid_mm": np.nan}])
def test_sizes_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give a size in mm"):
        replace(PrepareSettings(), **wrong)


def test_reasons_lose_their_paths(tmp_path: Path) -> None:
    study = raw_study(tmp_path / "Jane Doe", 0)
    arterial, target = study.file(Phase.ARTERIAL), study.file(Phase.PORTAL_VENOUS)
    reason = f"{arterial} (arterial phase): its grid lies off that of {target}"
    told = without_paths(study, reason)
    assert "Jane" not in told
    assert "arterial phase" in told
    assert "off that of <portal_venous>" in told
