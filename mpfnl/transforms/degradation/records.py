"""Records: what was drawn for a scan. A record is applied to volumes, and is plain JSON at rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from mpfnl.errors import FormatError
from mpfnl.shapes import SpatialVolume
from mpfnl.transforms.degradation.base import Degradation, Json, Triple

LEAST_SPACING_MM, MOST_SPACING_MM = 0.01, 1000.0


class Step(NamedTuple):
    """One degradation of a record and the number of its stage in the preset; None without a preset."""

    degradation: Degradation
    stage: int | None = None


@dataclass(frozen=True)
class Record:
    """The degradations of one scan, in the order in which they apply.

    Args:
        steps: Degradations with the numbers of their stages, from 1; 0 is the clip before them.
        preset: Name of the preset that they were drawn from.
        version: Version of the preset.
    """

    steps: tuple[Step, ...] = ()
    preset: str | None = None
    version: int | None = None

    @property
    def degradations(self) -> tuple[Degradation, ...]:
        """The degradations in the order in which they apply."""
        return tuple(step.degradation for step in self.steps)

    def apply(self, hu: SpatialVolume, spacing: Sequence[float]) -> SpatialVolume:
        """Degrades a volume; see `apply_parameters`."""
        if hu.ndim != 3:
            raise ValueError(f"expected a float volume (x, y, z), got {tuple(hu.shape)} of {hu.dtype}")
        hu = _checked_volumes(hu)
        _check_spacing(spacing)
        with torch.no_grad():
            degraded = hu
            for degradation in self.degradations:
                degraded = degradation.apply(degraded, spacing)
            shared = degraded.data_ptr() == hu.data_ptr()  # nothing was done, or a view was returned
            return degraded.clone() if shared else degraded.contiguous()

    def describe(self) -> str:
        """The degradations for people, such as "blur 1.4 mm, noise 25 HU"."""
        return ", ".join(each.describe() for each in self.degradations) or "nothing was drawn"

    def to_json(self) -> Json:
        """The record as plain JSON; `from_json` is the inverse."""
        preset = {"preset": self.preset, "version": self.version}
        return {name: value for name, value in preset.items() if value is not None} | {
            "operations": [
                ({} if stage is None else {"stage": stage}) | degradation.to_json()
                for degradation, stage in self.steps
            ]
        }

    @classmethod
    def from_json(cls, parameters: Mapping[str, Any]) -> Record:
        """Reads a record.

        Args:
            parameters: Plain JSON with a list `operations`; other keys are ignored.

        Raises:
            FormatError: The list is missing, or one of its degradations cannot be read.
        """
        listed = parameters.get("operations")
        if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
            raise FormatError("the degradation's record has no list 'operations': record it again")
        steps = [
            Step(
                Degradation.from_json({name: value for name, value in each.items() if name != "stage"}),
                each.get("stage"),
            )
            for each in listed
        ]
        preset, version = parameters.get("preset"), parameters.get("version")
        return cls(
            tuple(steps),
            preset if isinstance(preset, str) else None,
            version if isinstance(version, int) else None,
        )


Parameters: TypeAlias = Record | Mapping[str, Any]
"""A record, or its JSON."""


def as_record(parameters: Parameters) -> Record:
    """A record, read from its JSON where it is not one already."""
    return parameters if isinstance(parameters, Record) else Record.from_json(parameters)


def apply_parameters(hu: SpatialVolume, spacing: Sequence[float], parameters: Parameters) -> SpatialVolume:
    """Degrades a volume as recorded.

    The same volume and record give the same result bit by bit, on any number of threads. It works on patches
    too: beyond the border the nearest voxel continues.

    Args:
        hu: Volume or patch `(x, y, z)` in HU, of any float type, on any device; not changed.
        spacing: Voxel spacing in mm along x, y, z.
        parameters: Record, as drawn by `sample_parameters` or read back from JSON.

    Returns:
        A new volume of the same shape on the same device, float32; a copy where nothing is recorded.

    Raises:
        FormatError: The record cannot be read.
        ValueError: `hu` is not a volume, is empty or holds NaN or infinite values, or `spacing` is not three
            numbers in mm.

    >>> import torch
    >>> blur = {"operations": [{"kind": "blur", "fwhm_mm": [2.0, 2.0, 0.0]}]}
    >>> degraded = apply_parameters(torch.zeros(8, 8, 4), (0.8, 0.8, 2.5), blur)
    >>> degraded.shape, float(degraded.abs().max())
    (torch.Size([8, 8, 4]), 0.0)
    """
    return as_record(parameters).apply(hu, spacing)


def apply_batch(hu: Tensor, spacings: Sequence[Sequence[float]], parameters: Sequence[Parameters]) -> Tensor:
    """Degrades each volume of a batch as recorded; degradations of one kind run together on a GPU.

    The result is that of `apply_parameters` for each volume: on the CPU bit by bit, on a GPU to rounding.

    Args:
        hu: Volumes or patches `(batch, x, y, z)` in HU, of any float type, on any device; not changed.
        spacings: Voxel spacing of each volume in mm along x, y, z.
        parameters: Record of each volume.

    Returns:
        A new tensor of the same shape on the same device, float32.

    Raises:
        FormatError: A record cannot be read.
        ValueError: `hu` is not a batch of volumes, is empty or not finite, or the numbers of volumes,
            spacings and records differ.

    >>> import torch
    >>> clip = {"operations": [{"kind": "clip", "lower_hu": -175, "upper_hu": 275}]}
    >>> apply_batch(torch.full((2, 1, 1, 1), 900.0), [(1, 1, 1)] * 2, [clip, {"operations": []}]).flatten()
    tensor([275., 900.])
    """
    if hu.ndim != 4:
        raise ValueError(f"expected float volumes (batch, x, y, z), got {tuple(hu.shape)} of {hu.dtype}")
    volumes = _checked_volumes(hu)
    if not len(hu) == len(spacings) == len(parameters):
        raise ValueError(f"{len(hu)} volumes, {len(spacings)} spacings and {len(parameters)} records")
    for spacing in spacings:
        _check_spacing(spacing)
    waiting = [list(as_record(each).degradations) for each in parameters]
    steps = [(float(x), float(y), float(z)) for x, y, z in spacings]
    result = volumes.clone()
    with torch.no_grad():
        while any(waiting):
            _apply_commonest(waiting, result, steps)
    return result


def _apply_commonest(waiting: list[list[Degradation]], hu: Tensor, spacings: Sequence[Triple]) -> None:
    """Applies the next degradation of all volumes whose next one is of the commonest kind."""
    kinds = Counter(degradations[0].kind for degradations in waiting if degradations)
    (kind, _), *_ = kinds.most_common(1)
    chosen = [place for place, next_ones in enumerate(waiting) if next_ones and next_ones[0].kind == kind]
    now = [waiting[place].pop(0) for place in chosen]
    index = torch.tensor(chosen, device=hu.device)
    hu[index] = type(now[0]).apply_each(now, hu[index], [spacings[place] for place in chosen])


def _checked_volumes(hu: Tensor) -> Tensor:
    """Volumes as float32, without a graph.

    Raises:
        ValueError: The volumes are whole numbers, empty, or not finite: one NaN would spread over a slice.
    """
    if not hu.is_floating_point():
        raise ValueError(f"expected a float volume, got {hu.dtype}; convert it with .float()")
    if hu.numel() == 0:
        raise ValueError(f"the volume is empty: {tuple(hu.shape)}")
    hu = hu.detach().float()
    if not bool(hu.sum().isfinite()):
        raise ValueError("the volume holds NaN or infinite values; replace them, by -1024 HU for instance")
    return hu


def _check_spacing(spacing: Sequence[float]) -> None:
    if len(spacing) != 3 or not all(LEAST_SPACING_MM <= step <= MOST_SPACING_MM for step in spacing):
        raise ValueError(
            f"the spacing must be three numbers from {LEAST_SPACING_MM} to {MOST_SPACING_MM:g} mm, "
            f"got {tuple(spacing)}"
        )
