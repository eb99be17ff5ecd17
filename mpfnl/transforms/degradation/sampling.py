"""Sample a degradation, then apply it: the record in between is plain JSON and replays exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.operations import Clip, Json
from mpfnl.transforms.degradation.presets import Preset
from mpfnl.transforms.degradation.records import operations_of
from mpfnl.transforms.seeds import Draws

LEAST_SPACING_MM, MOST_SPACING_MM = 0.01, 1000.0


def sample_parameters(preset: Preset, generator: Draws | np.random.Generator | int) -> Json:
    """Draws one degradation.

    Args:
        preset: The ranges to draw from.
        generator: What `phase_draws` gives for a phase; or a NumPy generator, which moves on, or a seed.

    Returns:
        Plain JSON: `preset`, `version` and `operations`, a list in the order in which they apply;
        each has its `stage` (from 1; 0 for the clip before them), its `kind`, its numbers in mm and HU,
        and noise its seed.
    """
    draws = generator if isinstance(generator, Draws) else Draws.one(generator)
    operations: list[Json] = [
        {"stage": number} | operation.to_json()
        for number, stage in enumerate(preset.stages, start=1)
        for operation in stage.sample(draws)
    ]
    if operations and preset.clip_to is not None:
        clip = Clip(preset.clip_to.lower, preset.clip_to.upper)
        operations.insert(0, {"stage": 0} | clip.to_json())
    return {"preset": preset.name, "version": preset.version, "operations": operations}


def apply_parameters(
    hu: SpatialVolume, spacing: Sequence[float], parameters: Mapping[str, Any]
) -> SpatialVolume:
    """Degrades a volume as recorded.

    The same volume and record give the same result bit by bit, on any number of threads. It works
    on patches too: beyond the border the nearest voxel continues.

    Args:
        hu: Volume or patch `(x, y, z)` in HU, of any float type, on any device; it is not changed.
        spacing: Voxel spacing in mm along x, y, z.
        parameters: What `sample_parameters` returned, or the same read back from JSON.

    Returns:
        A new volume of the same shape on the same device, float32; a copy where nothing is recorded.

    Raises:
        InputError: The record is not one of a degradation.
        ValueError: `hu` is not a volume, is empty or holds NaN or infinite values, or `spacing` is not three
            numbers in mm.
    """
    if hu.ndim != 3:
        raise ValueError(f"expected a float volume (x, y, z), got {tuple(hu.shape)} of {hu.dtype}")
    hu = checked_volumes(hu)
    check_spacing(spacing)
    with torch.no_grad():
        degraded = hu
        for operation in operations_of(parameters):
            degraded = operation.apply(degraded, spacing)
        shared = degraded.data_ptr() == hu.data_ptr()  # nothing was done, or a view was returned
        return degraded.clone() if shared else degraded.contiguous()


def checked_volumes(hu: Tensor) -> Tensor:
    """Volumes as float32, without a graph.

    Raises:
        ValueError: They are whole numbers, empty, or not finite: one NaN would spread over a slice.
    """
    if not hu.is_floating_point():
        raise ValueError(f"expected a float volume, got {hu.dtype}; convert it with .float()")
    if hu.numel() == 0:
        raise ValueError(f"the volume is empty: {tuple(hu.shape)}")
    hu = hu.detach().float()
    if not bool(hu.sum().isfinite()):
        raise ValueError("the volume holds NaN or infinite values; replace them, by -1024 HU for instance")
    return hu


def check_spacing(spacing: Sequence[float]) -> None:
    """Raises ValueError unless the spacing is three numbers that can be mm."""
    if len(spacing) != 3 or not all(LEAST_SPACING_MM <= step <= MOST_SPACING_MM for step in spacing):
        raise ValueError(
            f"the spacing must be three numbers from {LEAST_SPACING_MM} to {MOST_SPACING_MM:g} mm, "
            f"got {tuple(spacing)}"
        )
