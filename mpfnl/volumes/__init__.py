"""Scans on disk and in memory: reading with checks, comparing grids, writing whole files."""

from mpfnl.volumes.grid import check_affine, check_same_grid
from mpfnl.volumes.reading import read_mask, read_volume
from mpfnl.volumes.volume import Affine, Volume, Voxels, describe, phase_name
from mpfnl.volumes.writing import check_output, write_volume

__all__ = [
    "Affine",
    "Volume",
    "Voxels",
    "check_affine",
    "check_output",
    "check_same_grid",
    "describe",
    "phase_name",
    "read_mask",
    "read_volume",
    "write_volume",
]
