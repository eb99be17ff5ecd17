"""One study on its way through a network: read, enhanced, mapped back to HU and written, slab by slab."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mpfnl.errors import InputError
from mpfnl.inference.plan import Plan
from mpfnl.inference.present import UsedPhases
from mpfnl.inference.restore import REACH, Restorer
from mpfnl.inference.runner import TileRunner
from mpfnl.inference.sweep import Box, sweep
from mpfnl.progress import track
from mpfnl.shapes import PhaseVolume
from mpfnl.volumes import FinerGrid, Placed, SlabScan, Volume, Voxels, volume_writer
from mpfnl.window import Window


@dataclass(frozen=True, eq=False)
class ScanTiles:
    """Tiles of scans that are read slab by slab, windowed.

    Args:
        scans: The phases in stacking order, on one grid.
        target: The one of them whose slices are kept a little longer: it is what HU are taken from.
        window: The HU window of the network.
    """

    scans: Sequence[SlabScan]
    target: SlabScan
    window: Window

    @property
    def sides(self) -> tuple[int, int, int]:
        """The number of voxels along x, y and z."""
        return self.target.shape

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def tile(self, box: Box) -> PhaseVolume:
        """The phases in a box, `(P, x, y, z)` in [0, 1]."""
        along_x, along_y, along_z = box
        stop = min(along_z.stop, self.sides[2])
        slabs = (scan.read(along_z.start, stop) for scan in self.scans)
        hu = (np.array(slab[along_x, along_y], dtype=np.float32, order="C") for slab in slabs)
        return torch.stack([self.window.normalize(torch.from_numpy(each)) for each in hu])

    def drop(self, before: int) -> None:
        """Slices before this one will not be asked for again."""
        for scan in self.scans:
            scan.drop(before - REACH if scan is self.target else before)


@dataclass(frozen=True, eq=False)
class StudyJob:
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
    used: UsedPhases
    plan: Plan
    progress: bool = False

    @property
    def target(self) -> SlabScan:
        """The scan that is enhanced."""
        return self.tiles.target

    @property
    def result(self) -> Placed:
        """Where the enhanced scan lies: on the target's grid, or on one that is finer."""
        scale = self.runner.scale
        return self.target if scale == 1 else FinerGrid(self.target, scale)

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
        with volume_writer(output, like=self.result) as writer:
            for _, slab in self.slabs():
                writer.write(slab)

    def volume(self, output: str | Path | None = None) -> Volume:
        """The enhanced scan in HU, in memory: the grid of `result`, the target's number type.

        Args:
            output: A file to write it into, too.

        Raises:
            InputError: As for `write`.
        """
        scan = self.result
        data = np.empty(scan.shape, self.target.dtype, order="F")
        with nullcontext() if output is None else volume_writer(output, like=scan) as writer:
            for start, slab in self.slabs():
                data[:, :, start : start + slab.shape[2]] = slab
                if writer is not None:
                    writer.write(slab)
        return Volume(data, scan.affine, scan.path, scan.phase, scan.storage, scan.space)

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
            yield from self.restorer.slabs(self.target.read, first, unit.numpy())


def _progress(corners: Iterable[tuple[int, ...]], total: int) -> Iterable[tuple[int, ...]]:
    return track(corners, total, "enhancing")
