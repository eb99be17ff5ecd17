"""One study through a model: scans in HU in, the enhanced scan in HU out, in memory or slab by slab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import nn

from mpfnl.errors import InputError
from mpfnl.inference.hounsfield import REACH, NoiseMeter, Restorer
from mpfnl.inference.memory import allowed, highest, resident
from mpfnl.inference.plan import Load, Plan, TileCost, make_plan, tile_cost
from mpfnl.inference.runner import RunOptions, TileRunner
from mpfnl.inference.selection import LOGGER, PhaseSelection, select_phases, warn_once
from mpfnl.inference.sweep import Box, sweep
from mpfnl.inference.tiling import Tiling, network_tiling, sees_whole_tile, smaller_tilings
from mpfnl.phases import Phase
from mpfnl.progress import track
from mpfnl.shapes import PhaseVolume
from mpfnl.volumes import Grid, Scan, Volume, open_scan
from mpfnl.volumes.grid import check_same_grid
from mpfnl.volumes.intensity import Voxels
from mpfnl.volumes.slabs import MovingSlab
from mpfnl.volumes.writing import check_output, volume_writer
from mpfnl.window import Window

Source: TypeAlias = str | Path | Volume
"""A phase's scan: a file or folder that `read_volume` takes, or a volume in memory."""


class Enhancer(Protocol):
    """What a model must say of itself to enhance a study."""

    @property
    def network(self) -> nn.Module:
        """Takes `(1, P, x, y, z)` in [0, 1], returns `(1, 1, x, y, z)`.

        Where the result's grid is finer, an attribute `scale` says how many times.
        Where there are optional phases it also takes `present=`, the indices of those that are there.
        """

    @property
    def phases(self) -> Sequence[Phase]:
        """The phases that the network takes, in stacking order."""

    @property
    def target(self) -> Phase:
        """The phase that it restores."""

    @property
    def window(self) -> Window:
        """The HU window of its input."""

    @property
    def optional_phases(self) -> tuple[Phase, ...]:
        """The phases that it can do without; never the target."""

    @property
    def trained_without_phases(self) -> bool:
        """Whether phases were left out in its training."""

    @property
    def patch_size(self) -> int | None:
        """The edge of its training patches in voxels; None if unknown."""


@dataclass(frozen=True)
class EnhanceOptions:
    """How a study is enhanced.

    Args:
        tiling: Tile, overlap and halo in voxels; if None those that suit the model (see `network_tiling`), or
            smaller ones where memory does not suffice.
        precision: Of the convolutions; chosen by the device if None.
        progress: Show a progress bar.
        self_ensemble: Take the mean over eight orientations of each tile: eight times the work.
        max_memory: Bytes that this process may hold; what it holds and 0.8 of what is free if None.
    """

    tiling: Tiling | None = None
    precision: torch.dtype | None = None
    progress: bool = False
    self_ensemble: bool = False
    max_memory: int | None = None


def enhance_study(
    model: Enhancer,
    sources: Mapping[Phase, Source],
    output: str | Path | None = None,
    options: EnhanceOptions | None = None,
) -> Volume:
    """Enhances the target phase of one study, and returns it in memory.

    A long scan that is only to be written takes less memory by `open_study(...)` and `write`.

    Args:
        model: A model of this package, or anything that has its attributes.
        sources: A scan for each phase that the model takes, but those that it can do without; others are not
            read.
        output: Where to write the result (`.nii` or `.nii.gz`); not written if None.
        options: How.

    Returns:
        The enhanced scan in HU: the target phase's number type, on its grid, or on one that is finer if the
        network's is.

    Raises:
        InputError: If a phase is missing that the model needs, a file cannot be used, the phases lie on
            different grids, the output is one of the inputs, or memory does not suffice.
    """
    if output is not None:
        check_output(output, [each.path if isinstance(each, Volume) else each for each in sources.values()])
    with open_study(model, sources, options) as study:
        return study.volume(output)


@contextmanager
def open_study(
    model: Enhancer,
    sources: Mapping[Phase, Source],
    options: EnhanceOptions | None = None,
    *,
    keeps_result: bool = True,
) -> Iterator[StudyEnhancement]:
    """Checks a study, and plans how it is enhanced; `write` or `volume` of what is yielded does it.

    Every file is gone through once. The memory is predicted; `lines` tells it, and which phases are used.

    Args:
        model: As for `enhance_study`, and so the others.
        sources: A scan for each phase.
        options: How.
        keeps_result: Whether memory for the whole result is to be reckoned with, as `volume` takes it.

    Raises:
        InputError: As for `enhance_study`.
    """
    options = options or EnhanceOptions()
    network = model.network
    used = select_phases(model, sources.keys())
    with ExitStack() as stack:
        meter = NoiseMeter(model.window)
        scans = {}
        for phase in used.used:
            scans[phase] = open_scan(sources[phase], phase, meter if phase is model.target else None)
            stack.callback(scans[phase].close)
        target = scans[model.target]
        check_same_grid(target, [scan for scan in scans.values() if scan is not target])
        stack.callback(network.train, network.training)
        network.eval()
        runner = TileRunner(network, RunOptions(options.precision, used.present, options.self_ensemble))
        plan = _plan(model, runner, list(scans.values()), target, options, keeps_result)
        _warn_of_other_tile(model, plan.tiling)
        restorer = Restorer(target.grid.shape, meter.sd, model.window, plan.slices, runner.scale)
        slabs = {phase: MovingSlab(scan) for phase, scan in scans.items()}
        tiles = ScanTiles(list(slabs.values()), slabs[model.target], model.window)
        job = StudyEnhancement(type(model).__name__, tiles, runner, restorer, used, plan, options.progress)
        for line in job.lines:
            LOGGER.info(line)
        yield job


def _plan(
    model: Enhancer,
    runner: TileRunner,
    scans: Sequence[Scan],
    target: Scan,
    options: EnhanceOptions,
    keeps_result: bool,
) -> Plan:
    tiling = options.tiling or network_tiling(model.network, model.patch_size)
    cost = tile_cost(runner, len(scans))
    load = Load(
        sides=target.grid.shape,
        streamed=[scan.dtype.itemsize for scan in scans if not scan.in_memory],
        result=target.dtype.itemsize if keeps_result else 0,
        scale=runner.scale,
        tile=cost if runner.device.type == "cpu" else TileCost(),
        held=resident(),
        highest=highest(),
    )
    tilings = chain([tiling], smaller_tilings(model.network, tiling))
    return make_plan(load, tilings, allowed(options.max_memory), fixed=options.tiling is not None)


def _warn_of_other_tile(model: Enhancer, tiling: Tiling) -> None:
    """Says so where a network that looks at the whole tile is shown other tiles than in its training."""
    if not sees_whole_tile(model.network) or model.patch_size in (None, tiling.tile):
        return
    warn_once(
        f"tiles of {tiling.tile} voxels: this {type(model).__name__} looks at whole tiles and was trained on"
        f" patches of {model.patch_size}, so its result may differ; --tile {model.patch_size} is as trained"
    )


@dataclass(frozen=True, eq=False)
class ScanTiles:
    """Tiles of scans that are read slab by slab, windowed.

    Args:
        slabs: The phases in stacking order, on one grid.
        target: The one of them whose slices are kept a little longer, since HU are taken from it.
        window: HU window of the network.
    """

    slabs: Sequence[MovingSlab]
    target: MovingSlab
    window: Window

    @property
    def sides(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""
        return self.target.scan.grid.shape

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def tile(self, box: Box) -> PhaseVolume:
        """The phases in a box, `(P, x, y, z)` in [0, 1]."""
        along_x, along_y, along_z = box
        stop = min(along_z.stop, self.sides[2])
        slabs = (slab.read(along_z.start, stop) for slab in self.slabs)
        hu = (np.array(slab[along_x, along_y], dtype=np.float32, order="C") for slab in slabs)
        return torch.stack([self.window.normalize(torch.from_numpy(each)) for each in hu])

    def drop(self, before: int) -> None:
        """Slices before this one will not be asked for again."""
        for slab in self.slabs:
            slab.drop(before - REACH if slab is self.target else before)


@dataclass(frozen=True, eq=False)
class StudyEnhancement:
    """A study that was checked and is ready to be enhanced; see `open_study`.

    Args:
        model: The model's name.
        tiles: The study's phases.
        runner: Runs the network on a tile.
        restorer: Maps slabs back to HU.
        used: Which phases are used.
        plan: How the work is cut, and the memory that it takes.
        progress: Show a progress bar.
    """

    model: str
    tiles: ScanTiles
    runner: TileRunner
    restorer: Restorer
    used: PhaseSelection
    plan: Plan
    progress: bool = False

    @property
    def target(self) -> Scan:
        """The scan that is enhanced."""
        return self.tiles.target.scan

    @property
    def grid(self) -> Grid:
        """The grid of the enhanced scan: the target's, or one that is finer."""
        return self.target.grid.finer(self.runner.scale)

    @property
    def lines(self) -> list[str]:
        """What to tell before the start: which phases are used, and the memory that it takes."""
        return [self.used.line, self.plan.line]

    def write(self, output: str | Path) -> None:
        """Writes the enhanced scan slab by slab; it is never in memory whole.

        Args:
            output: The `.nii.gz` or `.nii` file; it appears whole at the end, or not at all.

        Raises:
            InputError: The network gives NaN, or the file cannot be written.
        """
        with volume_writer(output, self.grid, self.target.storage) as writer:
            for _, slab in self.slabs():
                writer.write(slab)

    def volume(self, output: str | Path | None = None) -> Volume:
        """The enhanced scan in HU, in memory: on `grid`, the target's number type.

        Args:
            output: A file to write it into, too.

        Raises:
            InputError: As for `write`.
        """
        scan, grid = self.target, self.grid
        data = np.empty(grid.shape, scan.dtype, order="F")
        with nullcontext() if output is None else volume_writer(output, grid, scan.storage) as writer:
            for start, slab in self.slabs():
                data[:, :, start : start + slab.shape[2]] = slab
                if writer is not None:
                    writer.write(slab)
        return Volume(data, grid, scan.path, scan.phase, scan.storage)

    def slabs(self) -> Iterator[tuple[int, Voxels]]:
        """Enhances the study, once.

        Yields:
            The first slice of a slab, and the slab `(x, y, n)` in HU; in their order.

        Raises:
            InputError: The network gives NaN.
        """
        progress = _progress if self.progress else None
        for first, unit in sweep(self.runner, self.tiles, self.plan.tiling, progress, self.plan.room):
            if torch.isnan(unit).any():
                raise InputError(
                    f"this {self.model} gives NaN: its weights are damaged or its training diverged"
                )
            yield from self.restorer.slabs(self.tiles.target.read, first, unit.numpy())


def _progress(corners: Iterable[tuple[int, ...]], total: int) -> Iterable[tuple[int, ...]]:
    return track(corners, total, "enhancing")
