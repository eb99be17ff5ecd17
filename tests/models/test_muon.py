"""Muon against PyTorch's own optimisers, and what a step must be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import Parameter

from mpfnl.models.muon import Muon, is_hidden, orthogonalise


def after(optimizer: type[torch.optim.Optimizer], start: torch.Tensor, **settings: Any) -> torch.Tensor:
    """A weight after five steps with gradients that are the same for every optimiser."""
    weight = Parameter(start.clone())
    chosen = optimizer([weight], **settings)
    draw = torch.Generator().manual_seed(3)
    for _ in range(5):
        weight.grad = torch.randn(start.shape, generator=draw)
        chosen.step()
    return weight.detach()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
@pytest.mark.parametrize("shape", [(16, 40), (40, 16), (8, 8)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_matrix_is_trained_as_by_pytorch(shape: tuple[int, int], decay: float) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    ours = after(Muon, start, lr=0.01, weight_decay=decay) - start
    settings = {"lr": 0.01, "weight_decay": decay, "adjust_lr_fn": "match_rms_adamw"}
    theirs = after(torch.optim.Muon, start, **settings) - start
    assert torch.linalg.norm(ours - theirs) < 0.03 * torch.linalg.norm(theirs)  # theirs iterates in bfloat16


@pytest.mark.parametrize("shape", [(16,), (1, 8, 3, 3, 3), (8, 1, 5, 5, 5)])
def test_what_is_no_hidden_convolution_is_trained_as_by_adam(shape: tuple[int, ...]) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    ours = after(Muon, start, lr=0.01, betas=(0.9, 0.99))
    torch.testing.assert_close(ours, after(torch.optim.Adam, start, lr=0.01, betas=(0.9, 0.99)))


def test_a_convolution_is_its_matrix() -> None:
    start = torch.randn(6, 4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    assert is_hidden(start)
    folded = after(Muon, start.flatten(1), lr=0.01).view_as(start)
    torch.testing.assert_close(after(Muon, start, lr=0.01), folded)
    in_layout = start.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(after(Muon, in_layout, lr=0.01), folded)


@given(rows=st.integers(2, 24), columns=st.integers(2, 24), seed=st.integers(0, 999))
def test_orthogonalising_keeps_the_singular_vectors(rows: int, columns: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(rows, rows, generator=draw, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, columns, generator=draw, dtype=torch.float64)).Q
    least = min(rows, columns)
    values = torch.rand(least, generator=draw, dtype=torch.float64) + 0.1
    matrix = left[:, :least] * values @ right[:, :least].T
    found = left[:, :least].T @ orthogonalise(matrix) @ right[:, :least]
    assert (found - torch.diag(found.diag())).abs().max() < 1e-6
    assert found.diag().min() > 0.6
    assert found.diag().max() < 1.25


def test_no_gradient_and_a_gradient_of_zero_leave_a_weight_as_it_is() -> None:
    still, zero = Parameter(torch.ones(4, 4)), Parameter(torch.ones(4, 4))
    zero.grad = torch.zeros(4, 4)
    Muon([still, zero], lr=1.0).step()
    assert torch.equal(still, torch.ones(4, 4))
    assert torch.equal(zero, torch.ones(4, 4))


def test_a_momentum_that_dies_away_ends_the_steps() -> None:
    weight = Parameter(torch.ones(2, 16))
    optimizer = Muon([weight], lr=0.1)
    weight.grad = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    for _ in range(2500):  # through the numbers whose squares are zero in float32
        optimizer.step()
        weight.grad = torch.zeros(2, 16)
        before = weight.detach().clone()
    optimizer.step()
    assert torch.equal(weight, before)
    assert weight.isfinite().all()


def test_it_goes_on_from_its_state_dict() -> None:
    def train(net: nn.Module, optimizer: Muon, steps: range) -> None:
        for step in steps:
            optimizer.zero_grad()
            volume = torch.randn(1, 1, 6, 6, 6, generator=torch.Generator().manual_seed(step))
            net(volume).square().mean().backward()
            optimizer.step()

    torch.manual_seed(0)
    whole = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Conv3d(4, 4, 3), nn.Conv3d(4, 1, 1))
    optimizer = Muon(whole.parameters(), lr=0.01)
    train(whole, optimizer, range(3))
    resumed, state = copy.deepcopy(whole), copy.deepcopy(optimizer.state_dict())
    train(whole, optimizer, range(3, 6))
    again = Muon(resumed.parameters(), lr=0.5)
    again.load_state_dict(state)
    train(resumed, again, range(3, 6))
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_closure_gives_the_loss() -> None:
    weight = Parameter(torch.ones(3))
    optimizer = Muon([weight], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 3
    torch.testing.assert_close(weight.detach(), torch.full((3,), 0.9))


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"eps": -1.0}, {"weight_decay": -1.0}, {"betas": (0.9, 1.0)}])
def test_settings_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Muon([Parameter(torch.ones(2))], **bad)
