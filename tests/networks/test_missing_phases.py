"""Phases that are missing are left out of the fusion by design: nothing stands in for them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from mpfnl.networks import PFNL3DNet
from mpfnl.networks.nonlocal_block import NonLocalMode

SUBSETS = [(0, 2), (1, 2), (2,)]
MODES = [*NonLocalMode, None]


def network(mode: NonLocalMode | None = NonLocalMode.GAUSSIAN, **arguments: int) -> PFNL3DNet:
    torch.manual_seed(0)
    made = PFNL3DNet(3, 2, features=4, blocks=2, nonlocal_mode=mode, **arguments).double()
    with torch.no_grad():  # W and the last convolution start at zero: nothing would be seen of the rest
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return made


def phases(count: int = 3, side: int = 6) -> Tensor:
    return torch.rand(2, count, side, side + 1, side + 2, generator=torch.Generator().manual_seed(1)).double()


def cut(full: PFNL3DNet, present: Sequence[int]) -> PFNL3DNet:
    """A network of the present phases alone, its weights cut out of the full one's by hand."""
    block = full.nonlocal_block
    mode = getattr(block, "mode", None)
    small = PFNL3DNet(len(present), list(present).index(full.target), 4, 2, mode).double()
    scale = full.phases / len(present)
    cubes = [8 * phase + place for phase in present for place in range(8)]
    features = [4 * phase + place for phase in present for place in range(4)]
    weights = {}
    for name, tensor in full.state_dict().items():
        if name.startswith("nonlocal_block"):
            chosen = tensor[cubes]
            weights[name] = chosen[:, cubes] * scale if name.endswith("weight") else chosen
        elif name.endswith("merge.weight"):
            weights[name] = tensor[:, features] * scale
        else:
            weights[name] = tensor
    small.load_state_dict(weights)
    return small


@pytest.mark.parametrize("present", SUBSETS)
@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_network_of_the_phases_that_are_there(
    mode: NonLocalMode | None, present: tuple[int, ...]
) -> None:
    full = network(mode)
    given = phases()[:, list(present)]
    torch.testing.assert_close(full(given, present), cut(full, present)(given))


@pytest.mark.parametrize("present", SUBSETS)
def test_the_fast_layout_computes_the_same(present: tuple[int, ...]) -> None:
    full = network()
    given = phases()[:, list(present)]
    expected = full(given, present)
    full = full.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(full(given, present), expected)


def test_all_present_is_as_if_nothing_was_said() -> None:
    full = network()
    assert torch.equal(full(phases(), (0, 1, 2)), full(phases()))


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_gradient_is_that_of_the_weights_that_were_used(checkpointing: bool) -> None:
    full = network(activation_checkpointing=checkpointing)
    present = (0, 2)
    small = cut(full, present)
    given = phases(2)
    full(given, present).square().sum().backward()
    small(given).square().sum().backward()
    weight = full.merge.weight.grad
    assert weight is not None
    assert small.merge.weight.grad is not None
    own, missing = [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7]
    torch.testing.assert_close(weight[:, own], 1.5 * small.merge.weight.grad)
    assert not weight[:, missing].any()
    assert all(parameter.grad is not None for parameter in full.parameters())  # as DDP wants it


def test_a_new_network_returns_the_target_whatever_is_missing() -> None:
    fresh = PFNL3DNet(features=4, blocks=1)
    given = torch.rand(1, 2, 6, 6, 6)
    torch.testing.assert_close(fresh(given, (1, 2)), given[:, 1:])


@pytest.mark.parametrize(
    ("present", "count"), [((0, 1), 2), ((2, 0), 2), ((2, 2), 2), ((2, 3), 2), ((2,), 2), (None, 2), ((), 0)]
)
def test_what_does_not_fit_is_refused(present: tuple[int, ...] | None, count: int) -> None:
    with pytest.raises(ValueError, match="phases"):
        network()(phases(count), present)
