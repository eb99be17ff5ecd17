"""Enhancement of one study: scans in HU in, the enhanced scan in HU out, in memory or slab by slab."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import torch
from torch import nn

from mpfnl.errors import DamagedError, OptionError
from mpfnl.inference.coverage import WHOLE, CoverageMeter
from mpfnl.inference.hounsfield import REACH, NoiseMeter, Restorer
from mpfnl.inference.memory import allowed, highest, resident
from mpfnl.inference.plan import Plan, TileCost, Workload, make_plan, tile_cost
from mpfnl.inference.runner import RunOptions, TileRunner
from mpfnl.inference.selection import LOGGER, PhaseModel, PhaseSelection, select_phases, warn_once
from mpfnl.inference.strength import noise_strength
from mpfnl.inference.sweep import Box, sweep
from mpfnl.inference.tiling import Tiling, network_tiling, sees_whole_tile, smaller_tilings
from mpfnl.networks.coverage import normalize_covered
from mpfnl.phases import Phase
from mpfnl.progress import track
from mpfnl.samples import ReferenceNoise
from mpfnl.shapes import PhaseVolume
from mpfnl.volumes import Grid, Scan, Volume, open_scan
from mpfnl.volumes.grid import check_same_grid
from mpfnl.volumes.intensity import Voxels
from mpfnl.volumes.scan import MovingSlab
from mpfnl.volumes.writing import check_output, volume_writer, write_volume
from mpfnl.window import UNCOVERED_HU, Window

ScanSource: TypeAlias = str | Path | Volume
"""Scan of one phase: a file or folder that `read_volume` takes, or a volume in memory."""


class Enhancer(PhaseModel, Protocol):
    """Attributes of a model that enhances studies."""

    @property
    def network(self) -> nn.Module:
        """Network from `(1, P, x, y, z)` in [0, 1] to `(1, 1, x, y, z)`.

        An attribute `scale` is the factor by which the result's grid is finer. A model with optional phases
        has a network that also takes `present=`, the indices of the available phases.
        """

    @property
    def target(self) -> Phase:
        """Phase that the model restores; never optional."""

    @property
    def window(self) -> Window:
        """HU window of the network's input."""

    @property
    def patch_size(self) -> int | None:
        """Edge of the training patches in voxels; None if unknown."""

    @property
    def reference_noise(self) -> ReferenceNoise | None:
        """Noise of the training's references, which stay as they are; None: each scan is enhanced in full."""


@dataclass(frozen=True)
class EnhanceOptions:
    """Options of an enhancement.

    Args:
        tiling: Tile, overlap and halo in voxels; if None those that suit the model (see `network_tiling`), or
            smaller ones if memory is short.
        precision: Number type of the convolutions; the device's preferred one if None.
        progress: Display of a progress bar.
        self_ensemble: Mean over eight orientations of each tile; eight times the work.
        max_memory: Bytes that this process may use; its present memory and 0.8 of the free memory if None.
        strength: Share of the enhanced scan in the result, 0 to 1; the rest is the input. None: 1, or less
            where the scan's noise is near that of the training's references, see `noise_strength`.

    Raises:
        OptionError: If the strength lies outside of 0 to 1.
    """

    tiling: Tiling | None = None
    precision: torch.dtype | None = None
    progress: bool = False
    self_ensemble: bool = False
    max_memory: int | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.strength is not None and not 0 <= self.strength <= 1:
            raise OptionError(f"the strength is {self.strength:g}; give a number from 0 to 1")


def enhance_study(
    model: Enhancer,
    sources: Mapping[Phase, ScanSource],
    output: str | Path | None = None,
    options: EnhanceOptions | None = None,
) -> Volume:
    """Enhances the target phase of one study and returns it in memory.

    For a long scan that is only to be written, `open_study(...)` and `write` take less memory.

    Args:
        model: Model of this package, or an object with its attributes.
        sources: Scan of each phase that the model takes; optional phases may be missing, other phases are not
            read.
        output: File for the result (`.nii` or `.nii.gz`); not written if None.
        options: Tiles, precision and memory.

    Returns:
        Enhanced scan in HU: the target phase's number type, on its grid or, for a network with a `scale`, on
        the finer one.

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
    sources: Mapping[Phase, ScanSource],
    options: EnhanceOptions | None = None,
    *,
    keeps_result: bool = True,
) -> Iterator[StudyEnhancement]:
    """Checks a study and plans its enhancement; `write` or `volume` of the yielded object runs it.

    The network sees the scans with axes to the right, anterior and superior, as in training; the result has
    the order of axes of the target's file.

    Every file is read once. The log, and `lines` of the yielded object, name the phases used and the
    predicted memory.

    Args:
        model: Model, as for `enhance_study`.
        sources: Scan of each phase, as for `enhance_study`.
        options: Tiles, precision and memory.
        keeps_result: Whether the prediction includes memory for the whole result, as `volume` needs it.

    Raises:
        InputError: As for `enhance_study`.
    """
    options = options or EnhanceOptions()
    network = model.network
    selection = select_phases(model, sources.keys())
    with ExitStack() as stack:
        meter = NoiseMeter(model.window)
        scans, coverage = {}, {}
        for phase in selection.phases:
            if phase is not model.target:
                coverage[phase] = CoverageMeter()
            scans[phase] = open_scan(sources[phase], phase, coverage.get(phase, meter), canonical=True)
            stack.callback(scans[phase].close)
        target = scans[model.target]
        check_same_grid(target, [scan for scan in scans.values() if scan is not target])
        stack.callback(network.train, network.training)
        network.eval()
        place = selection.phases.index(model.target)
        run = RunOptions(options.precision, selection.present, options.self_ensemble, place)
        runner = TileRunner(network, run)
        plan = _plan(model, runner, list(scans.values()), target, options, keeps_result)
        _warn_of_other_tile(model, plan.tiling)
        strength, reason = _strength(model, meter.sd, target.grid.spacing, options)
        restorer = Restorer(target.grid.shape, meter.sd, model.window, plan.slices, runner.scale, strength)
        slabs = {phase: MovingSlab(scan) for phase, scan in scans.items()}
        slices = [coverage[phase].slices if phase in coverage else None for phase in scans]
        tiles = ScanTiles(list(slabs.values()), slabs[model.target], model.window, slices)
        lacking = [
            f"{phase.label} phase: {each.line}" for phase, each in coverage.items() if each.share < WHOLE
        ]
        lacking += reason
        study = StudyEnhancement(
            model.name, tiles, runner, restorer, selection, plan, lacking, options.progress
        )
        for line in study.lines:
            LOGGER.info(line)
        yield study


def _strength(
    model: Enhancer, noise: float, spacing: Sequence[float], options: EnhanceOptions
) -> tuple[float, list[str]]:
    """The strength, and the reason for one that was not asked for."""
    reference = model.reference_noise
    if options.strength is not None or reference is None:
        return 1.0 if options.strength is None else options.strength, []
    strength = noise_strength(noise, spacing, reference)
    if strength == 1:
        return strength, []
    expected = reference.at(math.prod(spacing))
    return strength, [
        f"strength {strength:.2f}: the scan has noise of {noise:.0f} HU, the references of this {model.name}"
        f" have {expected:.0f} HU at its voxels; --strength 1 enhances it in full"
    ]


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
    workload = Workload(
        sides=target.grid.shape,
        streamed=[scan.dtype.itemsize for scan in scans if not scan.in_memory],
        result=target.dtype.itemsize if keeps_result or not target.grid.keeps_slices else 0,
        scale=runner.scale,
        tile=cost if runner.device.type == "cpu" else TileCost(),
        held=resident(),
        highest=highest(),
    )
    tilings = chain([tiling], smaller_tilings(model.network, tiling))
    return make_plan(workload, tilings, allowed(options.max_memory), fixed=options.tiling is not None)


def _warn_of_other_tile(model: Enhancer, tiling: Tiling) -> None:
    """Warns once if a network that depends on the whole tile gets tiles of another size than in training."""
    if not sees_whole_tile(model.network) or model.patch_size in (None, tiling.tile):
        return
    warn_once(
        f"tiles of {tiling.tile} voxels: the result of this {model.name} depends on the tile size,"
        f" and it was trained on patches of {model.patch_size}; use --tile {model.patch_size}"
    )


@dataclass(frozen=True, eq=False)
class ScanTiles:
    """Tiles of scans on disk or in memory, under the window; a `TileSource`.

    Args:
        slabs: Phases in stacking order, on one grid.
        target: Phase that is enhanced; a few more of its slices stay in memory for the conversion to HU.
        window: HU window of the network.
        slices: Slices of each phase that are not blank; None for all.
    """

    slabs: Sequence[MovingSlab]
    target: MovingSlab
    window: Window
    slices: Sequence[slice | None]

    @property
    def sides(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        return self.target.scan.grid.shape

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def tile(self, box: Box) -> PhaseVolume:
        """The phases in a box, `(P, x, y, z)` in [0, 1]; NaN where a phase has no voxel."""
        along_x, along_y, along_z = box
        start, stop = along_z.start, min(along_z.stop, self.sides[2])
        slabs = (slab.read(start, stop) for slab in self.slabs)
        hu = [
            torch.from_numpy(np.array(slab[along_x, along_y], dtype=np.float32, order="C")) for slab in slabs
        ]
        for each, slices in zip(hu, self.slices, strict=True):
            if slices is not None:
                each[:, :, : max(0, slices.start - start)] = UNCOVERED_HU
                each[:, :, max(0, slices.stop - start) :] = UNCOVERED_HU
        return normalize_covered(torch.stack(hu), self.window, self.slabs.index(self.target))

    def drop(self, before: int) -> None:
        """Frees the slices before this one."""
        for slab in self.slabs:
            slab.drop(before - REACH if slab is self.target else before)


@dataclass(frozen=True, eq=False)
class StudyEnhancement:
    """The checked and planned enhancement of one study; see `open_study`.

    Args:
        model: Name of the model.
        tiles: Tiles of the study's phases.
        runner: Runner of the network on one tile.
        restorer: Conversion of slabs to HU.
        selection: Phases used.
        plan: Tiles, steps and predicted memory.
        lacking: Coverage of the phases that do not cover the whole target, one line each.
        progress: Display of a progress bar.
    """

    model: str
    tiles: ScanTiles
    runner: TileRunner
    restorer: Restorer
    selection: PhaseSelection
    plan: Plan
    lacking: Sequence[str] = ()
    progress: bool = False

    @property
    def target(self) -> Scan:
        """Scan that is enhanced."""
        return self.tiles.target.scan

    @property
    def grid(self) -> Grid:
        """Grid of the slabs of the enhanced scan: the target's in canonical order, or a finer one."""
        return self.target.grid.finer(self.runner.scale)

    @property
    def lines(self) -> list[str]:
        """Phases used, coverage where it is not whole, a strength below 1, predicted memory: a line each."""
        return [self.selection.line, *self.lacking, self.plan.line]

    def write(self, output: str | Path) -> None:
        """Writes the enhanced scan slab by slab; the whole is never in memory.

        Args:
            output: The `.nii.gz` or `.nii` file; it appears whole at the end, or not at all.

        Raises:
            InputError: If the network gives NaN or the file cannot be written.
        """
        with volume_writer(output, self.grid, self.target.storage) as writer:
            for _, slab in self.slabs():
                writer.write(slab)

    def volume(self, output: str | Path | None = None) -> Volume:
        """The enhanced scan in HU, in memory: the target's number type, in the order of axes of its file.

        Args:
            output: File for the result; not written if None.

        Raises:
            InputError: As for `write`.
        """
        scan, grid = self.target, self.grid
        data = np.empty(grid.shape, scan.dtype, order="F")
        for start, slab in self.slabs():
            data[:, :, start : start + slab.shape[2]] = slab
        volume = Volume(data, grid, scan.path, scan.phase, scan.storage)
        if output is not None:
            write_volume(output, data, like=volume)
        return volume.stored()

    def slabs(self) -> Iterator[tuple[int, Voxels]]:
        """Enhances the study; to be called once.

        Yields:
            First slice of each slab and the slab `(x, y, n)` in HU, in order.

        Raises:
            DamagedError: If the network gives NaN.
        """
        progress = _progress if self.progress else None
        for first, unit in sweep(self.runner, self.tiles, self.plan.tiling, progress, self.plan.room):
            if torch.isnan(unit).any():
                raise DamagedError(
                    f"this {self.model} gives NaN: its weights are damaged or its training diverged"
                )
            yield from self.restorer.slabs(self.tiles.target.read, first, unit.numpy())


def _progress(corners: Iterable[tuple[int, ...]], total: int) -> Iterable[tuple[int, ...]]:
    return track(corners, total, "enhancing")
