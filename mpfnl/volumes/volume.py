"""A scan in memory: voxels in HU on their grid."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mpfnl.phases import Phase
from mpfnl.volumes.fileio import scan_name
from mpfnl.volumes.grid import SCANNER_SPACE, Affine, Box, Grid
from mpfnl.volumes.intensity import Voxels


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan in memory.

    Args:
        data: Voxels (x, y, z) in HU.
        grid: Shape and place.
        path: File that the scan comes from, or will be written to.
        phase: Contrast phase, where there is one.
        storage: Number type in which the scan is written again; that of `data` by default.

    Raises:
        ValueError: The voxels have another shape than the grid.

    >>> volume = Volume.from_array(np.zeros((4, 4, 3), np.int16), np.diag([0.8, 0.8, 5, 1]), "scan.nii")
    >>> volume.shape, volume.spacing, volume.storage
    ((4, 4, 3), (0.8, 0.8, 5.0), dtype('int16'))
    """

    data: Voxels
    grid: Grid
    path: Path
    phase: Phase | None = None
    storage: np.dtype[Any] = field(default=np.dtype(np.void))
    in_memory: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.data.shape != self.grid.shape:
            raise ValueError(
                f"the voxels have the shape {self.data.shape}, their grid the shape {self.grid.shape}"
            )
        if self.storage == np.void:
            object.__setattr__(self, "storage", self.data.dtype)

    @classmethod
    def from_array(
        cls,
        data: Voxels,
        affine: Affine,
        path: str | Path = "volume",
        phase: Phase | None = None,
        space: int = SCANNER_SPACE,
    ) -> Volume:
        """A volume of voxels and their affine.

        Args:
            data: Voxels (x, y, z) in HU.
            affine: Voxel indices to world positions in mm (RAS+), (4, 4).
            path: File that the scan comes from or will be written to, or a name of it.
            phase: Contrast phase, where there is one.
            space: NIfTI code of the world's coordinates (1 is the scanner's).

        Raises:
            ValueError: The voxels have not three axes, or the affine is not (4, 4).
        """
        if data.ndim != 3:
            raise ValueError(f"a volume has three axes; these voxels have the shape {data.shape}")
        x, y, z = data.shape
        return cls(data, Grid((x, y, z), affine, space), Path(path), phase)

    @property
    def name(self) -> str:
        """File and phase, as in messages."""
        return scan_name(self.path, self.phase)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y and z."""
        return self.grid.shape

    @property
    def affine(self) -> Affine:
        """Voxel indices to world positions in mm (RAS+), (4, 4)."""
        return self.grid.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along x, y and z, in mm."""
        return self.grid.spacing

    @property
    def dtype(self) -> np.dtype[Any]:
        """Number type of the voxels."""
        dtype: np.dtype[Any] = self.data.dtype
        return dtype

    def read(self, box: Box) -> Voxels:
        """HU in a box, not copied."""
        return self.data[box]

    def close(self) -> None:
        """Does nothing: no file is open."""

    def crop(self, box: Box) -> Volume:
        """The part of the scan in a box; its voxels are not copied."""
        return self._on(self.data[box], self.grid.crop(box))

    def canonical(self) -> Volume:
        """The same scan with its axes nearest to right, anterior and superior: turned, never interpolated.

        Its grid remembers the stored order of axes, to which `write_volume` turns it back. Voxels that were
        turned are a copy.

        >>> scan = Volume.from_array(np.arange(24).reshape(2, 3, 4), np.diag([-1.0, -1.0, 1.0, 1.0]))
        >>> turned = scan.canonical()
        >>> turned.affine.diagonal(), np.array_equal(turned.stored().data, scan.data)
        (array([1., 1., 1., 1.]), True)
        """
        grid = self.grid.canonical()
        if grid is self.grid:
            return self
        return self._on(np.array(self.grid.to_canonical(self.data), order="C"), grid)

    def stored(self) -> Volume:
        """The same scan in the order of axes of its file; undoes `canonical`."""
        return self._on(self.grid.to_stored(self.data), self.grid.stored or self.grid)

    def turned_like(self, other: Grid) -> Volume:
        """The same scan with its axes in the order and directions of another grid's."""
        return self._on(self.grid.turn(self.data, other.axes), self.grid.turned(other.axes))

    def detached(self) -> Volume:
        """The same scan, written in its present order of axes from now on."""
        return self._on(self.data, self.grid.detached())

    def _on(self, data: Voxels, grid: Grid) -> Volume:
        return Volume(data, grid, self.path, self.phase, self.storage)
