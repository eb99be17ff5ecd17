"""Sample a degradation, then apply it: the record in between is plain JSON and replays exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mpfnl.errors import InputError
from mpfnl.phases import SpatialVolume
from mpfnl.transforms.degradation.filters import Interpolation
from mpfnl.transforms.degradation.operations import (
    Blur,
    Clip,
    GaussianNoise,
    Json,
    Operation,
    PoissonNoise,
    Resize,
    Triple,
    operation_from_json,
)
from mpfnl.transforms.degradation.presets import Preset, Range, Stage

_DECIMALS = 4  # of the recorded numbers: finer than anything that shows in a scan
_DOWN = tuple(Interpolation)
_UP = (Interpolation.LINEAR, Interpolation.CUBIC)


def sample_parameters(preset: Preset, generator: np.random.Generator | int) -> Json:
    """Draws one degradation.

    Two stages of blur, resizing and noise, each taken by chance (arXiv 2501.14013, section II.C;
    the order within a stage is that of Wang et al., Real-ESRGAN, 2021, section 3).

    Args:
        preset: The ranges to draw from.
        generator: A NumPy generator, which moves on, or a seed.

    Returns:
        Plain JSON: `preset`, `version` and `operations`, a list in the order in which they apply;
        each has its `stage` (from 1; 0 for the clip before them), its `kind`, its numbers in mm and HU,
        and noise its seed.
    """
    rng = np.random.default_rng(generator)
    operations: list[Json] = [
        {"stage": number} | operation.to_json()
        for number, stage in enumerate(preset.stages, start=1)
        for operation in _sample_stage(stage, rng)
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
        hu: Volume or patch `(x, y, z)` in HU, float32, on any device; it is not changed.
        spacing: Voxel spacing in mm along x, y, z.
        parameters: What `sample_parameters` returned, or the same read back from JSON.

    Returns:
        A new volume of the same shape on the same device; a copy where nothing is recorded.

    Raises:
        InputError: The record is not one of a degradation.
        ValueError: `hu` is not a volume or `spacing` is not three positive numbers.
    """
    if hu.ndim != 3 or not hu.is_floating_point():
        raise ValueError(f"expected a float volume (x, y, z), got {tuple(hu.shape)} of {hu.dtype}")
    if len(spacing) != 3 or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(f"the spacing must be three positive numbers in mm, got {tuple(spacing)}")
    with torch.no_grad():
        degraded = hu
        for operation in operations_of(parameters):
            degraded = operation.apply(degraded, spacing)
        return degraded.clone() if degraded is hu else degraded.contiguous()


def operations_of(parameters: Mapping[str, Any]) -> list[Operation]:
    """The operations of a record, in the order in which they apply.

    Raises:
        InputError: The record has no list of operations, or one of them cannot be read.
    """
    records = parameters.get("operations")
    if not isinstance(records, list) or not all(isinstance(record, Mapping) for record in records):
        raise InputError("the degradation's record has no list 'operations' of blur, ...: record it again")
    return [
        operation_from_json({name: value for name, value in record.items() if name != "stage"})
        for record in records
    ]


def _sample_stage(stage: Stage, rng: np.random.Generator) -> list[Operation]:
    operations: list[Operation] = []
    if rng.random() < stage.blur_probability:
        operations.append(_sample_blur(stage, rng))
    if rng.random() < stage.resize_probability:
        operations.append(_sample_resize(stage, rng))
    if rng.random() < stage.noise_probability:
        operations.append(_sample_noise(stage, rng))
    return operations


def _sample_blur(stage: Stage, rng: np.random.Generator) -> Blur:
    if rng.random() < stage.anisotropic_probability:
        x, y, z = (_uniform(stage.blur_fwhm_mm, rng) for _ in range(3))
        return Blur((x, y, z))
    width = _uniform(stage.blur_fwhm_mm, rng)
    return Blur((width, width, width))


def _sample_resize(stage: Stage, rng: np.random.Generator) -> Resize:
    inplane = _uniform(stage.inplane_voxel_mm, rng)
    voxel: Triple = (inplane, inplane, _uniform(stage.slice_voxel_mm, rng))
    down, up = _DOWN[rng.integers(len(_DOWN))], _UP[rng.integers(len(_UP))]
    return Resize(voxel, down, up, stage.max_factor)


def _sample_noise(stage: Stage, rng: np.random.Generator) -> GaussianNoise | PoissonNoise:
    kind = PoissonNoise if rng.random() < stage.poisson_probability else GaussianNoise
    sd, correlation = _uniform(stage.noise_sd_hu, rng), _uniform(stage.noise_correlation_mm, rng)
    return kind(sd, correlation, int(rng.integers(2**31)))


def _uniform(bounds: Range, rng: np.random.Generator) -> float:
    return round(float(rng.uniform(*bounds)), _DECIMALS)
