"""Training with phases left out."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import mpfnl
from mpfnl.models.dropout import uncover
from mpfnl.phases import PHASES, Phase


def model(phase_dropout: float, target: str = "portal_venous") -> mpfnl.PFNL3D:
    return mpfnl.PFNL3D(target=target, features=4, blocks=1, phase_dropout=phase_dropout)


@given(step=st.integers(0, 10**6), target=st.sampled_from(PHASES))
def test_the_target_is_never_left_out_and_the_order_is_kept(step: int, target: Phase) -> None:
    drawn = model(0.9, target).drawn_phases(step)
    assert list(Phase).index(target) in drawn
    assert drawn == sorted(set(drawn))


def test_each_phase_is_left_out_as_often_as_told() -> None:
    torch.manual_seed(5)
    dropping = model(0.3)
    steps = 2000
    seen = Counter(place for step in range(steps) for place in dropping.drawn_phases(step))
    assert seen[2] == steps
    for place in (0, 1):
        assert seen[place] / steps == pytest.approx(0.7, abs=0.05)  # five standard deviations


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    torch.manual_seed(1)
    first = [model(0.5).drawn_phases(step) for step in range(40)]
    assert [model(0.5).drawn_phases(step) for step in range(40)] == first
    torch.manual_seed(2)
    assert [model(0.5).drawn_phases(step) for step in range(40)] != first


def test_a_training_step_takes_the_phases_that_were_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    dropping = model(0.5)
    monkeypatch.setattr(dropping, "drawn_phases", lambda step: [0, 2])
    phases = torch.rand(1, 3, 8, 8, 8)
    changed = phases.clone()
    changed[:, 1] = 0.5  # the phase that is left out
    with torch.no_grad():
        torch.nn.init.normal_(dropping.network.reconstruct[0].weight)
    assert torch.equal(dropping.training_forward(phases), dropping.training_forward(changed))
    assert not torch.equal(dropping(phases), dropping(changed))


def test_without_dropout_nothing_is_left_out() -> None:
    assert all(model(0.0).drawn_phases(step) == [0, 1, 2] for step in range(50))


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_a_wrong_probability_is_refused(probability: float) -> None:
    with pytest.raises(ValueError, match="phase_dropout"):
        model(probability)


def test_every_phase_but_the_target_is_optional() -> None:
    assert model(0, "arterial").optional_phases == (Phase.NONCONTRAST, Phase.PORTAL_VENOUS)
    assert mpfnl.PFNL3D(phases=1, features=4, blocks=1).optional_phases == ()


def test_fields_of_view_end_alike_in_the_parts_of_a_batch() -> None:
    """As several processes split a batch; see tests/models/test_distributed.py for whole trainings."""
    torch.manual_seed(3)
    batch = torch.rand(4, 3, 6, 6, 6)
    ended = 0
    for step in range(40):
        whole = uncover(batch, 2, 0.5, step)
        parts = torch.cat([uncover(part, 2, 0.5, step) for part in batch.split(2)])
        torch.testing.assert_close(whole, parts, equal_nan=True)
        assert not whole[:, 2].isnan().any()
        assert not whole.isnan().all(dim=(2, 3, 4)).any()
        ended += bool(whole.isnan().any())
    assert 10 < ended < 40
