"""No feature map is copied or laid out anew on its way through a network, forward or backward."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mpfnl.networks import PFNL3DNet, RCAN3DNet

onednn_bf16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="oneDNN does not convolve in bfloat16 on this processor: PyTorch's own code does, and copies",
)
CHANNELS, SIDES, LAYOUT = 16, (12, 10, 8), torch.channels_last_3d
COPIES = {"_to_copy", "clone", "copy_", "cat", "stack", "contiguous", "constant_pad_nd", "new_zeros"}


def tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Watch(TorchDispatchMode):
    """Notes what copies as many values as a feature map has, and convolutions that must lay one out anew."""

    def __init__(self, large: int) -> None:
        super().__init__()
        self.large = large
        self.copies: list[str] = []
        self.strays: list[str] = []
        self.convolutions = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        before = tensors((args, kwargs))
        result = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        after = tensors(result)
        if name in COPIES and any(self.is_large(tensor) for tensor in after):
            self.copies.append(name)
        if "convolution" in name:
            self.convolutions += 1
            self.strays += [name for tensor in (*before, *after) if self.stray(tensor)]
        elif not any(info.alias_info and not info.alias_info.is_write for info in func._schema.returns):
            self.strays += [name for tensor in after if self.stray(tensor)]  # views move nothing
        return result

    def is_large(self, tensor: Tensor) -> bool:
        weight = tensor.ndim == 5 and tensor.shape[-1] <= 5
        return tensor.numel() >= self.large and not weight

    def stray(self, tensor: Tensor) -> bool:
        volume = self.is_large(tensor) and tensor.ndim == 5
        return volume and not tensor.is_contiguous(memory_format=LAYOUT)


def networks() -> Iterator[nn.Module]:
    for checkpointing in (False, True):
        yield PFNL3DNet(features=CHANNELS, blocks=2, activation_checkpointing=checkpointing)
        yield RCAN3DNet(3, CHANNELS, groups=1, blocks=2, activation_checkpointing=checkpointing)


def study(batch: int, how: str) -> Tensor:
    """As the data module yields it (`contiguous`), as a tile is cut, or in the networks' own layout."""
    if how == "tile":
        return torch.rand(batch, 3, 20, 20, 20)[:, :, : SIDES[0], 4 : 4 + SIDES[1], : SIDES[2]]
    x = torch.rand(batch, 3, *SIDES)
    return x.to(memory_format=LAYOUT) if how == "channels_last" else x


def large(batch: int) -> int:
    return batch * CHANNELS * SIDES[0] * SIDES[1] * SIDES[2]


@onednn_bf16
@pytest.mark.parametrize("how", ["contiguous", "tile", "channels_last"])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("network", list(networks()))
def test_a_forward_pass_copies_no_feature_map(network: nn.Module, batch: int, how: str) -> None:
    network = network.to(memory_format=LAYOUT)
    x = study(batch, how)
    for gradients in (False, True):
        with (
            torch.set_grad_enabled(gradients),
            torch.autocast("cpu", torch.bfloat16),
            Watch(large(batch)) as seen,
        ):
            network(x)
        assert seen.convolutions > 5
        assert (seen.copies, seen.strays) == ([], [])


@onednn_bf16
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("network", list(networks()))
def test_a_backward_pass_copies_no_feature_map(network: nn.Module, batch: int) -> None:
    network = network.to(memory_format=LAYOUT)
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(study(batch, "contiguous")).float().square().mean()
    with Watch(large(batch)) as seen:
        loss.backward()
    assert seen.convolutions > 5
    # The gradients of PFNL3D's last merge, a 3x3x3 convolution of the phases, are put together once.
    merged_once = ["cat"] if isinstance(network, PFNL3DNet) else []
    assert (seen.copies, seen.strays) == (merged_once, [])


def test_the_watch_sees_copies_and_other_layouts() -> None:
    with torch.no_grad(), Watch(large(1)) as seen:
        features = torch.rand(1, CHANNELS, *SIDES)
        features.to(torch.bfloat16)
        nn.Conv3d(CHANNELS, CHANNELS, 1)(features)
    assert seen.copies == ["_to_copy"]
    assert "convolution" in seen.strays
