"""A network made ready for many tiles: cast once, recorded as CUDA graphs, turned in eight orientations."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain, product

import torch
from torch import Tensor, nn

from mpfnl.networks.capabilities import network_capabilities
from mpfnl.shapes import PhaseVolume, SpatialVolume

GRAPH_FROM = 16
"""Tiles from which on a CUDA graph is recorded: for fewer it takes longer than it saves."""


@dataclass(frozen=True)
class RunOptions:
    """How a network is run.

    Args:
        precision: Of the convolutions; chosen by the device if None.
        present: Indices of the phases that are there, for networks that do without some; None: all.
        self_ensemble: Take the mean over eight orientations, see `SelfEnsemble`.
    """

    precision: torch.dtype | None = None
    present: Sequence[int] | None = None
    self_ensemble: bool = False


def preferred_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device computes convolutions in it, float32 elsewhere."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    # The check is private to PyTorch and there is no public one; it exists where oneDNN does.
    onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()
    if onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


class TileRunner:
    """Runs a network on tiles, one at a time.

    Args:
        network: Takes `(1, P, x, y, z)` in [0, 1], returns `(1, 1, x, y, z)`, on a grid that is `scale` times
            finer where it has that attribute; put into evaluation mode by the caller. Where phases are
            missing it is called with `present=`.
        options: How it is run.
        device: Where; the network's own by default.
    """

    def __init__(
        self, network: nn.Module, options: RunOptions | None = None, device: torch.device | None = None
    ) -> None:
        options = options or RunOptions()
        self.device = device or network_device(network) or torch.device("cpu")
        self.scale = network_capabilities(network).scale
        self.precision = options.precision or preferred_precision(self.device)
        run = frozen_copy(network, self.precision)
        if options.present is not None:
            run = _WithPresent(run, options.present)
        self._network = SelfEnsemble(run) if options.self_ensemble else run
        self._network.eval()
        self._graphed: GraphedNetwork | None = None

    def expect(self, tiles: int) -> None:
        """Says how many tiles will come: many are worth a CUDA graph."""
        if self.device.type == "cuda" and tiles >= GRAPH_FROM and self._graphed is None:
            self._graphed = GraphedNetwork(self._network)

    def __call__(self, phases: PhaseVolume) -> SpatialVolume:
        """The enhanced tile, `scale` times as long, float32, not clipped, on the runner's device.

        Args:
            phases: The tile `(P, x, y, z)` in [0, 1], on any device.

        Raises:
            ValueError: The network's result lies on another grid than it says.
        """
        tile = phases.unsqueeze(0).to(self.device)
        run = self._graphed or self._network
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not torch.float32):
            enhanced: Tensor = run(tile)
        if list(enhanced.shape[2:]) != [self.scale * side for side in tile.shape[2:]]:
            made = f"{tuple(enhanced.shape)} of {tuple(tile.shape)}"
            raise ValueError(f"the network made {made}: not its grid")
        return enhanced[0, 0].float()


def network_device(network: nn.Module) -> torch.device | None:
    """Where a network's parameters are; None if it has none."""
    return next((parameter.device for parameter in network.parameters()), None)


class _WithPresent(nn.Module):
    """A network together with which phases it is given."""

    def __init__(self, network: nn.Module, present: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.present = tuple(present)

    def forward(self, phases: Tensor) -> Tensor:
        enhanced: Tensor = self.network(phases, present=self.present)
        return enhanced


CAST = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)
"""Modules whose weights autocast would cast at every call; of these types exactly, not subclasses."""


def frozen_copy(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """A copy for inference under autocast, with the weights of its convolutions already cast.

    Under autocast the copy computes what the network computes: the inputs and the other parameters keep their
    types. The weights of convolutions are laid out in `channels_last_3d`. All else is shared with the
    network, which stays as it is; so nothing has to be put back, whatever happens.

    Args:
        network: On any device. A scripted one is returned as it is.
        precision: Autocast's type. For float32 there is nothing to do: the network is returned.

    Returns:
        A module to be called, not to be trained. It does not follow later changes of the network's weights.
    """
    if precision is torch.float32 or isinstance(network, torch.jit.ScriptModule):
        return network
    return _copy(network, precision, {})


def _copy(module: nn.Module, precision: torch.dtype, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in done:  # used in two places
        return done[module]
    copy = module.__new__(type(module))
    # Past the modules' own __setattr__: that of a compiled module would change the network.
    copy.__dict__.update(module.__dict__)
    done[module] = copy
    copy.__dict__["_modules"] = {
        name: child if child is None else _copy(child, precision, done)
        for name, child in module._modules.items()
    }
    if type(module) in CAST:
        cast = {name: _cast(weight, precision) for name, weight in module._parameters.items()}
        copy.__dict__["_parameters"] = cast
    return copy


def _cast(weight: Tensor | None, precision: torch.dtype) -> nn.Parameter | None:
    if weight is None:
        return None
    layout = torch.channels_last_3d if weight.ndim == 5 else torch.preserve_format
    kind = precision if weight.dtype is torch.float32 else weight.dtype
    return nn.Parameter(weight.detach().to(kind, memory_format=layout), requires_grad=False)


ORIENTATIONS = tuple(product((False, True), range(4)))
"""The eight orientations in the plane of the slices: mirrored along x or not, then quarter turns."""


class SelfEnsemble(nn.Module):
    """Runs a network on a tile in eight orientations and takes the mean of the results, turned back.

    In-plane quarter turns and mirror images; z is kept (Timofte et al., CVPR 2016, in 2D). What turns or
    mirrors the input then turns or mirrors the result, whatever the network. It takes eight times as long.

    Args:
        network: Takes `(batch, P, x, y, z)`, returns `(batch, 1, x, y, z)`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, phases: Tensor) -> Tensor:
        """The mean, `(batch, 1, x, y, z)`, float32."""
        total: Tensor | None = None
        for mirrored, turns in ORIENTATIONS:
            enhanced = oriented_back(self.network(oriented(phases, mirrored, turns)), mirrored, turns).float()
            total = enhanced if total is None else total + enhanced
        assert total is not None
        return total / len(ORIENTATIONS)


def oriented(volume: Tensor, mirrored: bool, turns: int) -> Tensor:
    """A volume `(..., x, y, z)` mirrored along x where asked for, then turned."""
    return torch.rot90(volume.flip(-3) if mirrored else volume, turns, (-3, -2)).contiguous()


def oriented_back(volume: Tensor, mirrored: bool, turns: int) -> Tensor:
    """Undoes `oriented`."""
    turned = torch.rot90(volume, -turns, (-3, -2))
    return turned.flip(-3) if mirrored else turned


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
