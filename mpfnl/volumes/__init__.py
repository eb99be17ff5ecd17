"""Scans on disk and in memory: reading with checks, comparing grids, writing whole files."""

from mpfnl.volumes.grid import FinerGrid, check_affine, check_same_grid
from mpfnl.volumes.reading import read_label_volume, read_mask, read_volume
from mpfnl.volumes.slabs import SlabScan, open_scan
from mpfnl.volumes.sources import content_files, scan_exists
from mpfnl.volumes.volume import Affine, Placed, Volume, Voxels, describe, phase_name
from mpfnl.volumes.writing import VolumeWriter, check_output, volume_writer, write_volume

__all__ = [
    "Affine",
    "FinerGrid",
    "Placed",
    "SlabScan",
    "Volume",
    "VolumeWriter",
    "Voxels",
    "check_affine",
    "check_output",
    "check_same_grid",
    "content_files",
    "describe",
    "open_scan",
    "phase_name",
    "read_label_volume",
    "read_mask",
    "read_volume",
    "scan_exists",
    "volume_writer",
    "write_volume",
]
