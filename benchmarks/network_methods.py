"""Networks that benchmarks/networks.py compares, their modes of running, and one trial of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import cast

import torch
from attention_methods import attempt
from memory import available
from naive_ports import NAIVE
from timing import peak_above, sample
from torch import Tensor, nn

from mpfnl.inference.memory import freed_memory_reused
from mpfnl.inference.runner import GraphedNetwork, frozen_copy
from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling
from mpfnl.losses import L1SobelLoss
from mpfnl.networks import build_network

SEED = 0
DEFAULT_TILING = Tiling()
GRAPH_RUNS = 2  # the last of them is recorded
BIAS = 0.02  # standard deviation


class Task(StrEnum):
    FORWARD = "forward"
    STEP = "training step"
    VOLUME = "whole volume"


LIMITS = {
    Task.FORWARD: {torch.float32: 1e-3, torch.bfloat16: 0.05},
    Task.STEP: {torch.float32: 1e-2, torch.bfloat16: 0.3},
    Task.VOLUME: {torch.float32: 1e-3, torch.bfloat16: 0.05},
}
"""Largest difference from the naive port, |a - b| / |b|, of the output, in training of a gradient. The latter
is wide: the loss is L1, whose gradient jumps where an error is rounded past zero, in the port as well."""


@dataclass(frozen=True)
class Network:
    """A network of the library and its straight port, with the same parameters.

    Args:
        name: In the table.
        phases: Number of input phases.
        ours: Makes the library's.
        naive: Makes the port.
        sizes: Arguments of both.
    """

    name: str
    phases: int
    ours: Callable[..., nn.Module]
    naive: Callable[..., nn.Module]
    sizes: tuple[tuple[str, int], ...] = ()

    def make(self, ours: bool) -> nn.Module:
        """Either, with the same drawn weights."""
        network = (self.ours if ours else self.naive)(**dict(self.sizes))
        drawn, generator = self.ours(**dict(self.sizes)), torch.Generator().manual_seed(SEED)
        for parameter in drawn.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1 / BIAS**2
            nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
        network.load_state_dict(drawn.state_dict())
        return network


def registered(name: str, phases: int, **sizes: int) -> Network:
    """A registered network that has a straight port."""
    return Network(name, phases, partial(build_network, name, phases), NAIVE[name], tuple(sizes.items()))


FULL = (registered("PFNL3D", 3), registered("RCAN3D", 1))
TINY = (
    registered("PFNL3D", 3, features=8, blocks=1),
    registered("RCAN3D", 1, channels=8, groups=1, blocks=1),
)


@dataclass(frozen=True)
class Job:
    """What a network is given to do.

    Args:
        network: Name of the network.
        task: Timed task.
        sides: Sides of a patch or of the whole volume.
        device: "cpu" or "cuda".
        tiling: Tiling of a whole volume.
    """

    network: Network
    task: Task
    sides: tuple[int, int, int]
    device: str
    tiling: Tiling = DEFAULT_TILING

    @property
    def input(self) -> str:
        return "x".join(map(str, (self.network.phases, *self.sides)))

    def phases(self, batch: int) -> Tensor:
        """The same patch so many times: then the mean loss does not depend on the batch."""
        generator = torch.Generator().manual_seed(SEED)
        one = torch.rand(1, self.network.phases, *self.sides, generator=generator)
        return one.to(self.device).repeat(batch, 1, 1, 1, 1)


@dataclass(frozen=True)
class Variant:
    """How a network is run.

    Args:
        name: In the table.
        ours: The library's, or the naive port.
        dtype: Dtype of autocast; float32: none.
        compiled: Whether torch.compile compiles the network.
        frozen: As `tiled_forward` prepares it: weights cast once, on a CPU freed memory kept.
        graph: Replayed as a CUDA graph, as `tiled_forward` does on CUDA.
        tasks: Tasks of the variant.
    """

    name: str
    ours: bool
    dtype: torch.dtype = torch.bfloat16
    compiled: bool = False
    frozen: bool = False
    graph: bool = False
    tasks: tuple[Task, ...] = tuple(Task)


NAIVE_FP32, NAIVE_BF16, OURS = "naive fp32", "naive bf16", "ours bf16"
REFERENCE = Variant(NAIVE_FP32, ours=False, dtype=torch.float32)
PATCHES = (Task.FORWARD, Task.STEP)
VARIANTS = {
    "cpu": (
        Variant(NAIVE_FP32, False, torch.float32, tasks=PATCHES),
        Variant(NAIVE_BF16, False),
        Variant("naive bf16, torch.compile", False, compiled=True, tasks=PATCHES),
        Variant(OURS, True),
        Variant("ours bf16, frozen", True, frozen=True, tasks=(Task.FORWARD,)),
        Variant("ours bf16, torch.compile", True, compiled=True, tasks=PATCHES),
    ),
    "cuda": (
        Variant(NAIVE_BF16, False),
        Variant("naive bf16, torch.compile", False, compiled=True),
        Variant(OURS, True),
        Variant("ours bf16, frozen", True, frozen=True, tasks=(Task.FORWARD,)),
        Variant("ours bf16, CUDA graph", True, frozen=True, graph=True, tasks=(Task.FORWARD,)),
        Variant("ours bf16, torch.compile", True, compiled=True),
    ),
}


@dataclass(frozen=True)
class Prepared:
    """A network ready to be timed.

    Args:
        run: Does the job once.
        witness: Output or gradient of `run` that is checked.
    """

    run: Callable[[], object]
    witness: Callable[[], Tensor]


def prepare(variant: Variant, job: Job, batch: int) -> Prepared:
    network = job.network.make(variant.ours).to(job.device)
    if variant.ours:
        network.to(memory_format=torch.channels_last_3d)
    called = cast(nn.Module, torch.compile(network, dynamic=False)) if variant.compiled else network
    if job.task is Task.STEP:
        return _training(network, called, variant, job, batch)
    called.eval()
    if job.task is Task.VOLUME:
        volume = job.phases(1)[0].cpu()
        return _inference(lambda: tiled_forward(called, volume, job.tiling, variant.dtype))
    phases = job.phases(batch)
    frozen: Callable[[Tensor], Tensor] = frozen_copy(network, variant.dtype) if variant.frozen else called
    run = GraphedNetwork(cast(nn.Module, frozen), warm_ups=GRAPH_RUNS - 1) if variant.graph else frozen
    keeps = variant.frozen and job.device == "cpu"

    def forward() -> Tensor:
        keep = freed_memory_reused() if keeps else nullcontext()
        with torch.no_grad(), autocast(job.device, variant.dtype), keep:
            return run(phases)

    return _inference(forward)


def autocast(device: str, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device, torch.bfloat16, enabled=dtype is not torch.float32)


def _inference(run: Callable[[], Tensor]) -> Prepared:
    kept: list[Tensor] = []

    def once() -> None:
        kept[:] = [run()]

    return Prepared(once, lambda: kept[0][:1])


def _training(
    network: nn.Module, called: Callable[[Tensor], Tensor], variant: Variant, job: Job, batch: int
) -> Prepared:
    phases = job.phases(batch)
    target = phases[:, -1:].flip(2)
    loss = L1SobelLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    first = network.get_parameter("first.weight")

    def step() -> None:
        optimizer.zero_grad()
        with autocast(job.device, variant.dtype):
            enhanced = called(phases)
        loss(enhanced, target).backward()
        optimizer.step()

    def gradient() -> Tensor:
        assert first.grad is not None
        return first.grad.clone()

    return Prepared(step, gradient)


@dataclass(frozen=True)
class Trial:
    """What the first run showed.

    Args:
        status: "ok", or why the variant is not to be timed.
        error: Against the naive port in float32.
        peak: Bytes above the network and the input; in training with gradients and the optimiser's state.
        seconds: Time of that run.
        batch: The largest that fits, at most what was asked for.
        prepared: Trial to time.
    """

    status: str
    error: float = math.nan
    peak: int = 0
    seconds: float = math.nan
    batch: int = 0
    prepared: Prepared | None = None


OK = "ok"


def trial(variant: Variant, job: Job, batches: Sequence[int], expected: Tensor | None) -> Trial:
    """Runs a variant once with the first batch size that fits, and checks what comes out.

    Args:
        variant: Variant of the network.
        job: Job of the trial.
        batches: Sizes to try, the largest first.
        expected: The reference's witness; None: not checked, as this is the reference.
    """
    if not variant.ours and job.device == "cpu" and _matrices(job) > available() / 2:
        return Trial(f"skipped: {_matrices(job) / 1e9:.1f} GB of matrices")
    failure = ""
    for batch in batches:
        made, failure = attempt(partial(_first_run, variant, job, batch))
        if made is None and failure == "out of memory":
            continue
        if made is None:
            break
        prepared, peak, seconds = made
        error = 0.0
        if expected is not None:
            error = float((prepared.witness().float() - expected).norm() / expected.norm())
        limit = LIMITS[job.task][variant.dtype]
        status = OK if error <= limit else f"wrong: differs by {error:.1e}, allowed {limit:.0e}"
        return Trial(status, error, peak, seconds, batch, prepared)
    return Trial(failure)


def _first_run(variant: Variant, job: Job, batch: int) -> tuple[Prepared, int, float]:
    prepared = prepare(variant, job, batch)
    if variant.compiled:
        prepared.run()  # the compiler's own memory does not count
    seconds: list[float] = []
    runs = GRAPH_RUNS if variant.graph else 1

    def first() -> None:
        seconds.append(sample(prepared.run, job.device, runs))

    peak = peak_above(first, job.device)
    return prepared, peak, seconds[0]


def _matrices(job: Job) -> int:
    """Bytes that the naive port's non-local block needs at least; none in RCAN3D."""
    if job.network.phases == 1:
        return 0
    sides = [min(side, job.tiling.tile) for side in job.sides] if job.task is Task.VOLUME else job.sides
    return 2 * 4 * (math.prod(sides) // 8) ** 2


def expected_of(job: Job) -> Tensor:
    """The witness of the naive port in float32, one patch."""
    made, failure = attempt(partial(_first_run, REFERENCE, job, 1))
    if made is None:
        raise RuntimeError(f"no reference for {job.network.name}, {job.task}: {failure}")
    return made[0].witness().float()


def halved(batch: int) -> Iterator[int]:
    while batch:
        yield batch
        batch //= 2
