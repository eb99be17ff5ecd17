"""What a network takes for a tile: counted on small ones, before the start. Torch only."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mpfnl.inference.runner import TileRunner
from mpfnl.inference.tiles import Tiling

SMALL, LARGE = 8, 16  # edges of the tiles that are tried, in voxels


@dataclass(frozen=True)
class Unfolded:
    """A float32 convolution on a CPU, which PyTorch may do by unfolding its input into a matrix.

    Args:
        weight: The shape of its weight.
        padding: Of its input.
    """

    weight: tuple[int, ...]
    padding: tuple[int, ...]

    def bytes(self, sides: Sequence[int]) -> int:
        """What the matrix takes for a tile; 0 where PyTorch leaves the convolution to oneDNN."""
        _, channels, *kernel = self.weight
        number = torch.empty(1)
        tile, weight = number.expand(1, channels, *sides), number.expand(self.weight)
        ones, none = (1, 1, 1), (0, 0, 0)
        # Private, and there is no public one: the rule depends on sizes and changes between versions.
        backend = torch._C._select_conv_backend(tile, weight, None, ones, self.padding, ones, False, none, 1)
        unfolds = str(backend).endswith("Slow3d")
        return channels * math.prod(kernel) * math.prod(sides) * tile.itemsize if unfolds else 0


@dataclass(frozen=True)
class TileCost:
    """Bytes that are taken at once while a network works on a tile.

    Args:
        fixed: Of tensors, whatever the tile's size.
        a_voxel: Of tensors, for each voxel.
        unfolded: Every call of a convolution that may take more.
    """

    fixed: float = 0.0
    a_voxel: float = 0.0
    unfolded: tuple[Unfolded, ...] = ()

    def of(self, tiling: Tiling, sides: Sequence[int]) -> int:
        """Bytes for a tile of a volume with these sides."""
        voxels = math.prod(min(tiling.tile, side) for side in sides)
        return int(self.fixed + self.a_voxel * voxels) + self.matrices(tiling, sides)[0]

    def matrices(self, tiling: Tiling, sides: Sequence[int]) -> tuple[int, int]:
        """Bytes of the largest matrix of an unfolded convolution, and of the one that comes next in size."""
        tile = [min(tiling.tile, side) for side in sides]
        sizes = {convolution: convolution.bytes(tile) for convolution in set(self.unfolded)}
        largest = sorted((sizes[convolution] for convolution in self.unfolded), reverse=True)
        first, second, *_ = [*largest, 0, 0]
        return first, second


@torch.inference_mode()
def tile_cost(runner: TileRunner, phases: int) -> TileCost:
    """Runs a network on two small tiles, and counts the bytes of all tensors that are alive at once.

    Feature maps, which are nearly all of it, grow with the tile's voxels; so does the attention of the
    non-local block, which stores no matrix of pairs. What libraries beneath take is not seen, but for
    unfolded convolutions.

    Args:
        runner: Runs the network.
        phases: How many it is given.
    """

    def count(edge: int) -> _Counting:
        tile = torch.full((phases, edge, edge, edge), 0.5)
        counting = counted(lambda: runner(tile))
        counting.most += tile.nbytes
        return counting

    with torch.compiler.set_stance("force_eager"):
        small, large = count(SMALL), count(LARGE)
    a_voxel = (large.most - small.most) / (LARGE**3 - SMALL**3)
    return TileCost(max(0.0, small.most - a_voxel * SMALL**3), a_voxel, tuple(large.unfolded))


def live_bytes(run: Callable[[], object]) -> int:
    """The most bytes that the tensors made in a call take at one time."""
    return counted(run).most


def counted(run: Callable[[], object]) -> _Counting:
    """Counts what is made in a call."""
    with _Counting() as counting:
        run()
    return counting


class _Counting(TorchDispatchMode):
    """Adds up the storages that operations make, until each is freed; and notes convolutions."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = 0
        self.unfolded: list[Unfolded] = []
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        if func is torch.ops.aten.conv3d.default:
            self._note(*args)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._alive:
            self._alive[key] = storage.nbytes()
            weakref.finalize(storage, self._alive.pop, key, None)
            self.most = max(self.most, sum(self._alive.values()))

    def _note(
        self,
        tile: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Sequence[int] = (1,),
        padding: Sequence[int] = (0, 0, 0),
        dilation: Sequence[int] = (1,),
        groups: int = 1,
    ) -> None:
        plain = set(stride) == set(dilation) == {1} and groups == 1
        if plain and tile.dtype is torch.float32 and tile.device.type == "cpu":
            self.unfolded.append(Unfolded(tuple(weight.shape), tuple(padding)))
