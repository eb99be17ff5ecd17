"""Activation checkpointing: the same numbers in less memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mpfnl.networks import PFNL3DNet, RCAN3DNet

Make = Callable[[bool], nn.Module]
MAKERS: list[Make] = [
    lambda on: PFNL3DNet(features=16, blocks=4, activation_checkpointing=on),
    lambda on: RCAN3DNet(phases=3, channels=16, groups=4, blocks=2, activation_checkpointing=on),
]


class Allocations(TorchDispatchMode):
    """Knows of every storage that was made meanwhile, and which of them still live."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.sizes[reference.cdata] = (reference, storage.nbytes())
        return result

    def living(self) -> int:
        return sum(size for reference, size in self.sizes.values() if not reference.expired())


def pair(make: Make) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    plain, checkpointed = make(False), make(True)
    for parameter in plain.parameters():
        nn.init.normal_(parameter, std=0.1)
    checkpointed.load_state_dict(plain.state_dict())
    return plain, checkpointed


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("make", MAKERS)
def test_results_and_gradients_are_the_same_bit_for_bit(
    make: Make, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    plain, checkpointed = (network.to(memory_format=layout) for network in pair(make))
    x = torch.rand(2, 3, 8, 6, 10)
    results = []
    for network in (plain, checkpointed):
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
            results.append(network(x))
        results[-1].float().square().mean().backward()
    assert torch.equal(*results)
    for (name, ours), (_, theirs) in zip(
        plain.named_parameters(), checkpointed.named_parameters(), strict=True
    ):
        assert ours.grad is not None
        assert torch.equal(ours.grad, theirs.grad), name


@pytest.mark.parametrize("make", MAKERS)
def test_it_holds_less_than_half_of_the_memory_between_forward_and_backward(make: Make) -> None:
    x = torch.rand(1, 3, 12, 12, 12)
    held = []
    for network in pair(make):
        with Allocations() as allocations:
            result = network(x)
        held.append(allocations.living())
        assert result.requires_grad
    assert held[1] < 0.5 * held[0]


@pytest.mark.parametrize("make", MAKERS)
def test_it_is_off_in_evaluation_and_without_gradients(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    _, network = pair(make)
    calls = []

    def counted(block: nn.Module, features: Tensor, *shared: object, **_: object) -> Tensor:
        calls.append(block)
        return block(features, *shared)

    monkeypatch.setattr("mpfnl.networks.layers.checkpoint", counted)
    x = torch.rand(1, 3, 6, 6, 6)
    network(x)
    assert len(calls) == 4
    with torch.no_grad():
        network(x)
    network.eval()(x)
    assert len(calls) == 4
