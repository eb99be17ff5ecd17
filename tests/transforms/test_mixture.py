"""Mixtures of degradations: each alternative comes as often as it is meant to, an undegraded scan too."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from mpfnl.transforms.degradation import Preset, find_preset
from mpfnl.transforms.degradation.low_dose import LowDoseStage
from mpfnl.transforms.degradation.mixture import Alternative, MixtureStage
from mpfnl.transforms.degradation.motion import MotionStage
from mpfnl.transforms.degradation.records import Record
from mpfnl.transforms.seeds import Draws

DOSE, MOTION = LowDoseStage((0.5, 0.5)), MotionStage((0.0, 3.0), (2.0, 10.0), (0.0, 0.6))


def test_alternatives_come_with_their_probabilities() -> None:
    mixture = MixtureStage((Alternative(0.2), Alternative(0.5, (DOSE,)), Alternative(0.3, (DOSE, MOTION))))
    drawn = Counter(len(mixture.sample(Draws.one(seed))) for seed in range(2000))
    assert drawn.keys() == {0, 1, 2}
    for count, probability in ((0, 0.2), (1, 0.5), (2, 0.3)):
        assert drawn[count] / 2000 == pytest.approx(probability, abs=0.04)


def test_a_mixture_needs_what_its_alternatives_need() -> None:
    dose = MixtureStage((Alternative(0.5), Alternative(0.5, (DOSE,))))
    assert dose.whole_slices
    assert dose.margin == DOSE.margin
    assert not MixtureStage((Alternative(1.0),)).whole_slices
    assert MixtureStage((Alternative(1.0),)).margin == 0


@pytest.mark.parametrize("probabilities", [(0.5, 0.4), (1.2, -0.2)])
def test_probabilities_sum_to_one(probabilities: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        MixtureStage(tuple(Alternative(each) for each in probabilities))


def test_a_study_shares_its_alternative_where_it_shares_the_acquisition() -> None:
    preset = find_preset("mixed")
    for seed in range(20):
        one, two = (
            Draws(np.random.default_rng(seed), np.random.default_rng([seed, phase])) for phase in (1, 2)
        )
        kinds = [[type(each) for each in preset.sample(draws).degradations] for draws in (one, two)]
        assert kinds[0] == kinds[1]


def test_the_shipped_mixture_leaves_some_scans_as_they_are() -> None:
    preset = find_preset("mixed")
    assert preset.name == "mixed-v1"
    records = [preset.sample(seed) for seed in range(400)]
    untouched = [record for record in records if not record.degradations]
    assert 0.05 < len(untouched) / 400 < 0.16
    scan = torch.full((6, 6, 6), 900.0)
    assert torch.equal(untouched[0].apply(scan, (1.0, 1.0, 1.0)), scan)
    degraded = next(record for record in records if record.degradations)
    assert Record.from_json(degraded.to_json()) == degraded


def test_a_mixture_works_in_a_preset_beside_other_stages() -> None:
    preset = Preset(
        "half-or-none-v1", 1, (MixtureStage((Alternative(0.5), Alternative(0.5, (DOSE,)))), MOTION)
    )
    steps = [[step.stage for step in preset.sample(seed).steps] for seed in range(40)]
    assert [2] in steps
    assert [1, 2] in steps
