"""Runner of a network on tiles: precision, missing phases, self-ensemble and CUDA graphs. Torch only."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import chain, product

import torch
from torch import Tensor, nn

from mpfnl.networks.capabilities import network_capabilities
from mpfnl.networks.coverage import run_covered
from mpfnl.shapes import PhaseVolume, SpatialVolume

GRAPH_FROM = 16
"""Fewest tiles for which a CUDA graph is recorded; for fewer the recording takes longer than it saves."""


@dataclass(frozen=True)
class RunOptions:
    """Options of a network's forward pass.

    Args:
        precision: Number type of the convolutions; the device's preferred one if None.
        present: Indices of the available phases, for networks with optional phases; None if all are there.
        self_ensemble: Mean over eight orientations, see `SelfEnsemble`.
        target: Place of the target among the available phases.
    """

    precision: torch.dtype | None = None
    present: Sequence[int] | None = None
    self_ensemble: bool = False
    target: int = -1


def preferred_precision(device: torch.device) -> torch.dtype:
    """bfloat16 if the device computes convolutions in it, else float32."""
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
        network: Network from `(1, P, x, y, z)` in [0, 1] to `(1, 1, x, y, z)`, in evaluation mode. An
            attribute `scale` is the factor by which the result's grid is finer. It is called with `present=`
            if phases are missing.
        options: Precision, phases and self-ensemble.
        device: Device; the network's own if None.
    """

    def __init__(
        self, network: nn.Module, options: RunOptions | None = None, device: torch.device | None = None
    ) -> None:
        options = options or RunOptions()
        self.device = device or network_device(network) or torch.device("cpu")
        self.scale = network_capabilities(network).scale
        self.precision = options.precision or preferred_precision(self.device)
        run = frozen_copy(network, self.precision)
        partly: nn.Module = _PartlyCovered(run, options.target, options.present)
        if options.present is not None:
            run = _WithPresent(run, options.present)
        self._network = (SelfEnsemble(run) if options.self_ensemble else run).eval()
        self._partly_covered = (SelfEnsemble(partly) if options.self_ensemble else partly).eval()
        self._graphed: GraphedNetwork | None = None

    def expect(self, tiles: int) -> None:
        """Announces the number of tiles: for many of them a CUDA graph is recorded."""
        if self.device.type == "cuda" and tiles >= GRAPH_FROM and self._graphed is None:
            self._graphed = GraphedNetwork(self._network)

    def __call__(self, phases: PhaseVolume) -> SpatialVolume:
        """The enhanced tile, `scale` times as long, float32, not clipped, on the runner's device.

        Args:
            phases: The tile `(P, x, y, z)` in [0, 1], on any device; NaN where a phase but the target has no
                voxel.

        Raises:
            ValueError: If the result's grid does not match the network's `scale`.
        """
        run = self._graphed or self._network
        if bool(torch.isnan(phases).any()):
            run = self._partly_covered
        tile = phases.unsqueeze(0).to(self.device)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision is not torch.float32):
            enhanced: Tensor = run(tile)
        if list(enhanced.shape[2:]) != [self.scale * side for side in tile.shape[2:]]:
            shapes = f"{tuple(tile.shape)} to {tuple(enhanced.shape)}"
            raise ValueError(f"the network maps {shapes}: not its scale of {self.scale}")
        return enhanced[0, 0].float()


def network_device(network: nn.Module) -> torch.device | None:
    """Device of a network's parameters; None if it has none."""
    return next((parameter.device for parameter in network.parameters()), None)


class _WithPresent(nn.Module):
    """A network with the indices of the available phases."""

    def __init__(self, network: nn.Module, present: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.present = tuple(present)

    def forward(self, phases: Tensor) -> Tensor:
        enhanced: Tensor = self.network(phases, present=self.present)
        return enhanced


class _PartlyCovered(nn.Module):
    """A network on phases that lack voxels; see `run_covered`."""

    def __init__(self, network: nn.Module, target: int, present: Sequence[int] | None) -> None:
        super().__init__()
        self.network = network
        self.target = target
        self.present = None if present is None else tuple(present)

    def forward(self, phases: Tensor) -> Tensor:
        return run_covered(self.network, phases, self.target % phases.shape[1], self.present)


CAST = (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)
"""Module types, without subclasses, whose weights autocast would cast at every call."""


def frozen_copy(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """A copy of a network for inference under autocast, with the weights of its convolutions already cast.

    Under autocast the copy computes the same as the network: inputs and other parameters keep their types.
    The weights of convolutions have the layout `channels_last_3d`. All else is shared with the network, which
    does not change.

    Args:
        network: Network on any device. A scripted network is returned unchanged.
        precision: Number type of autocast. For float32 the network is returned.

    Returns:
        Module for inference only. It does not follow later changes of the network's weights.
    """
    if precision is torch.float32 or isinstance(network, torch.jit.ScriptModule):
        return network
    return _copy(network, precision, {})


def _copy(module: nn.Module, precision: torch.dtype, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module in done:  # shared by two parents
        return done[module]
    copy = module.__new__(type(module))
    # Bypasses __setattr__, which a compiled module forwards to the network.
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
"""Eight orientations in the axial plane: mirrored along x or not, then quarter turns."""


class SelfEnsemble(nn.Module):
    """Test-time self-ensemble: the mean of a network's results over eight orientations of a tile.

    The orientations are in-plane quarter turns and mirror images (Timofte et al., CVPR 2016, in 2D). The
    result turns with the input, for any network. It takes eight times as long.

    Args:
        network: Network from `(batch, P, x, y, z)` to `(batch, 1, x, y, z)`.

    >>> ensemble = SelfEnsemble(nn.Identity())
    >>> tile = torch.rand(1, 1, 4, 4, 2)
    >>> torch.allclose(ensemble(tile), tile)
    True
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
    """A volume `(..., x, y, z)`, mirrored along x on demand and then turned by quarter turns."""
    return torch.rot90(volume.flip(-3) if mirrored else volume, turns, (-3, -2)).contiguous()


def oriented_back(volume: Tensor, mirrored: bool, turns: int) -> Tensor:
    """The inverse of `oriented`."""
    turned = torch.rot90(volume, -turns, (-3, -2))
    return turned.flip(-3) if mirrored else turned


LOGGER = logging.getLogger(__name__)


class GraphedNetwork:
    """A network that is called through one CUDA graph for each input size.

    The first calls of a size run the network eagerly on a side stream, while kernels are compiled and chosen.
    The next call records a graph. Every later call copies its input into the graph's memory, replays the
    graph and returns a copy of its output, which later calls do not change. A network that cannot be recorded
    (for example because it reads a value from the GPU) runs eagerly, as does a network on a CPU, in training
    mode or with gradients.

    A graph holds the memory of one forward pass until it is dropped. It is recorded anew if the network's
    tensors move, and follows in-place changes of their values. Not thread-safe.

    Args:
        network: Network from one tensor to one tensor. Its kernels depend only on the input's size, type and
            device, on its weights and on autocast.
        warm_ups: Eager calls of a size before its graph is recorded.
        sizes: Largest number of graphs; the least recently used one is dropped.
    """

    def __init__(self, network: nn.Module, warm_ups: int = 2, sizes: int = 2) -> None:
        if warm_ups < 1 or sizes < 1:
            raise ValueError(f"warm_ups is {warm_ups}, sizes is {sizes}; both must be at least 1")
        self.network = network
        self.warm_ups = warm_ups
        self.sizes = sizes
        self._known: OrderedDict[Hashable, _Graph | int] = (
            OrderedDict()
        )  # a graph, or the number of calls so far
        self._refused = False

    def __call__(self, x: Tensor) -> Tensor:
        """The network's result for `x`, in memory of its own."""
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
            LOGGER.warning("this network cannot be recorded as a CUDA graph and runs without: %s", error)
            return 0


class _Graph:
    def __init__(self, network: nn.Module, x: Tensor) -> None:
        with torch.inference_mode(False), torch.no_grad():  # writable in any mode
            self.input = torch.empty(x.shape, dtype=x.dtype, device=x.device)
            self.input.copy_(x)
        self.graph = torch.cuda.CUDAGraph()
        # Other threads, such as those that pin memory, may use CUDA meanwhile.
        with torch.cuda.device(x.device), torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.output = _call(network, self.input)

    def __call__(self, x: Tensor) -> Tensor:
        self.input.copy_(x)
        self.graph.replay()
        return self.output.clone()


def _call(network: nn.Module, x: Tensor) -> Tensor:
    # Without autocast's cache of cast weights: it is freed when autocast ends, but the graph lives on.
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
