"""Phase dropout: the phases, and the parts of their fields of view, that a training step leaves out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ALONG_Z = 0.7
"""Probability that a field of view ends along z, where those of patients' phases differ most."""


def drawn_phases(count: int, target: int, probability: float, step: int) -> list[int]:
    """The phases of a training step, as indices: the target, and those that phase dropout leaves.

    Args:
        count: Number of phases.
        target: Place of the target, which is never left out.
        probability: Probability with which each other phase is left out.
        step: Step of the training; all processes of a training draw alike.

    >>> drawn_phases(3, target=2, probability=0.0, step=0)
    [0, 1, 2]
    """
    if not probability:
        return list(range(count))
    drawn = _generator(step).random(count) >= probability
    drawn[target] = True
    return [place for place in range(count) if drawn[place]]


def uncover(phases: Tensor, target: int, probability: float, step: int) -> Tensor:
    """Phases of which some end within the patches, as those of patients do; NaN beyond the end.

    All samples of a step end alike, so that the split of a batch over processes changes nothing.

    Args:
        phases: Phases `(batch, P, x, y, z)`.
        target: Place of the target, which covers the patch.
        probability: Probability with which a phase ends within the patches.
        step: Step of the training.

    Returns:
        The same tensor where nothing was drawn, else a copy.

    >>> uncovered = uncover(torch.zeros(4, 2, 8, 8, 8), target=1, probability=0.9, step=3)
    >>> bool(uncovered[:, 0].isnan().any()), bool(uncovered[:, 1].isnan().any())
    (True, False)
    """
    rng = _generator(step, 1)
    ends = rng.random(phases.shape[1]) < probability
    ends[target] = False
    if not ends.any():
        return phases
    phases = phases.clone()
    for phase in np.flatnonzero(ends):
        axis = 2 if rng.random() < ALONG_Z else int(rng.integers(2))
        cut = int(rng.integers(1, phases.shape[2 + axis]))
        start, length = (0, cut) if rng.random() < 0.5 else (cut, phases.shape[2 + axis] - cut)
        phases[:, phase].narrow(1 + axis, start, length).fill_(torch.nan)
    return phases


def _generator(step: int, *more: int) -> np.random.Generator:
    return np.random.default_rng([torch.initial_seed(), step, *more])
