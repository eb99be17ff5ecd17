"""CUDA graphs for inference at fixed sizes: kernels are recorded once and replayed. Torch only."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable
from itertools import chain

import torch
from torch import Tensor, nn

LOGGER = logging.getLogger(__name__)


class GraphedNetwork:
    """Calls a network through a CUDA graph for each size of input.

    The first calls with a size run the network as it is, on a side stream: kernels are compiled and chosen
    then. The next one records a graph, and from then on every call copies its input to where the graph
    reads, replays it, and returns a copy of what it wrote: a result is the caller's own, and stays as it is
    in later calls. What cannot be recorded (a network that asks the GPU for a value, say) is called as it
    is, and so is a network on a CPU, in training mode, or where gradients are taken.

    A graph holds the memory of one forward pass until it is dropped, and is recorded anew when the network's
    tensors move. Values of weights that change in place are seen. Not for several threads at a time.

    Args:
        network: Takes one tensor and returns one. What it does depends on its input's size, type and device,
            on its weights and on autocast alone.
        warm_ups: Calls of a size before its graph is recorded.
        sizes: How many sizes to keep graphs for; the one that was used longest ago is dropped.
    """

    def __init__(self, network: nn.Module, warm_ups: int = 2, sizes: int = 2) -> None:
        if warm_ups < 1 or sizes < 1:
            raise ValueError(f"warm_ups is {warm_ups}, sizes is {sizes}; both must be at least 1")
        self.network = network
        self.warm_ups = warm_ups
        self.sizes = sizes
        self._known: OrderedDict[Hashable, _Graph | int] = OrderedDict()  # a graph, or how many calls so far
        self._refused = False

    def __call__(self, x: Tensor) -> Tensor:
        """What the network returns for `x`; the caller's own tensor."""
        if not self._recordable(x):
            return self.network(x)
        key = self._key(x)
        known = self._known.pop(key, 0)
        if known == self.warm_ups:
            known = self._record(x)
        result: Tensor
        if isinstance(known, int):
            result = _on_side_stream(self.network, x)
            known = known + 1
        else:
            result = known(x)
        self._known[key] = known
        while len(self._known) > self.sizes:
            self._known.popitem(last=False)
        return result

    def _recordable(self, x: Tensor) -> bool:
        return not (self._refused or self.network.training or torch.is_grad_enabled()) and _on_gpu(x)

    def _key(self, x: Tensor) -> Hashable:
        kind = x.device.type
        tensors = chain(self.network.parameters(), self.network.buffers())
        return (
            (x.shape, x.dtype, x.device),
            (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)),
            tuple(tensor.data_ptr() for tensor in tensors),
        )

    def _record(self, x: Tensor) -> _Graph | int:
        try:
            return _Graph(self.network, x)
        except RuntimeError as error:
            self._refused = True
            LOGGER.warning("no CUDA graph of this network, it runs without: %s", error)
            return 0


class _Graph:
    def __init__(self, network: nn.Module, x: Tensor) -> None:
        with torch.inference_mode(False), torch.no_grad():  # to be written to in any mode
            self.input = torch.empty(x.shape, dtype=x.dtype, device=x.device)
            self.input.copy_(x)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads, such as those that pin memory, may go on using CUDA meanwhile.
        with torch.cuda.device(x.device), torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output = _call(network, self.input)

    def __call__(self, x: Tensor) -> Tensor:
        self.input.copy_(x)
        self.graph.replay()
        return self.output.clone()


def _call(network: nn.Module, x: Tensor) -> Tensor:
    # Not with autocast's cache of cast weights: they would be freed when autocast ends, and the graph not.
    kind = x.device.type
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    with torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False):
        return network(x)


def _on_side_stream(network: nn.Module, x: Tensor) -> Tensor:
    with torch.cuda.device(x.device):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            result = _call(network, x)
        torch.cuda.current_stream().wait_stream(stream)
        result.record_stream(torch.cuda.current_stream())
    return result


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda
