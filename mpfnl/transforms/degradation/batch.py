"""Many degradations at once: what a GPU needs to be busy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mpfnl.transforms.degradation.operations import Operation, Triple
from mpfnl.transforms.degradation.records import operations_of
from mpfnl.transforms.degradation.sampling import check_spacing, checked_volumes


def apply_batch(
    hu: Tensor, spacings: Sequence[Sequence[float]], parameters: Sequence[Mapping[str, Any]]
) -> Tensor:
    """Degrades each volume of a batch as recorded; operations of one kind run together.

    It does to each volume what `apply_parameters` does to it alone: on the CPU bit by bit, on a GPU to
    rounding.

    Args:
        hu: Volumes or patches `(batch, x, y, z)` in HU, of any float type, on any device; not changed.
        spacings: Voxel spacing of each volume in mm along x, y, z.
        parameters: For each volume what `sample_parameters` returned.

    Returns:
        A new tensor of the same shape on the same device, float32.

    Raises:
        InputError: A record is not one of a degradation.
        ValueError: `hu` is not a batch of volumes, is empty or not finite, or there is not a spacing and a
            record for each.
    """
    if hu.ndim != 4:
        raise ValueError(f"expected float volumes (batch, x, y, z), got {tuple(hu.shape)} of {hu.dtype}")
    volumes = checked_volumes(hu)
    if not len(hu) == len(spacings) == len(parameters):
        raise ValueError(f"{len(hu)} volumes, {len(spacings)} spacings and {len(parameters)} records")
    for spacing in spacings:
        check_spacing(spacing)
    waiting = [operations_of(record) for record in parameters]
    steps = [(float(x), float(y), float(z)) for x, y, z in spacings]
    result = volumes.clone()
    with torch.no_grad():
        while any(waiting):
            _apply_commonest(waiting, result, steps)
    return result


def _apply_commonest(waiting: list[list[Operation]], hu: Tensor, spacings: Sequence[Triple]) -> None:
    """Does the next operation of all volumes whose next one is of the kind that most are at."""
    kinds = Counter(operations[0].kind for operations in waiting if operations)
    (kind, _), *_ = kinds.most_common(1)
    chosen = [place for place, operations in enumerate(waiting) if operations and operations[0].kind == kind]
    now = [waiting[place].pop(0) for place in chosen]
    index = torch.tensor(chosen, device=hu.device)
    hu[index] = type(now[0]).apply_each(now, hu[index], [spacings[place] for place in chosen])
