"""Finishes batches of raw patches on the device that the model is on: degradation, rotation, window."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from mpfnl.data.patches import PatchSampling
from mpfnl.data.recipe import Recipe, coarser
from mpfnl.samples import StudyBatch
from mpfnl.transforms import apply_batch
from mpfnl.transforms.rotation import rotate90


class RawBatch(TypedDict):
    """A batch of `RawSample`."""

    raw: Tensor
    degradation: list[str]
    rotation: list[str]
    study_id: list[str]


@dataclass(frozen=True)
class DeviceDegradation:
    """Makes of a raw batch what the workers would have made of it; the GPU degrades all volumes at once.

    Args:
        recipe: How patches are degraded and windowed.
        sampling: Their size and margin.
    """

    recipe: Recipe
    sampling: PatchSampling

    def __call__(self, batch: RawBatch) -> StudyBatch:
        """The batch in [0, 1]: `(batch, P, x, y, z)` and `(batch, 1, x, y, z)`, float32, where `raw` is."""
        clean = batch["raw"].float()
        count, phases = len(clean), clean.shape[1] - 1
        samples = [json.loads(sample) for sample in batch["degradation"]]
        records = [record for sample in samples for record in sample["records"]]
        spacings = [sample["spacing_mm"] for sample in samples for _ in range(phases)]
        degraded = apply_batch(clean[:, :-1].flatten(0, 1), spacings, records)
        hu = torch.cat([degraded.unflatten(0, (count, phases)), clean[:, -1:]], dim=1)
        turned = [
            _turned(volumes, json.loads(turns))
            for volumes, turns in zip(self.sampling.trim(hu), batch["rotation"], strict=True)
        ]
        done, window = torch.stack(turned), self.recipe.window
        return {
            "phases": window.normalize(coarser(done[:, :-1], self.recipe.scale)),
            "target": window.normalize(done[:, -1:]),
            "study_id": batch["study_id"],
        }


def _turned(volumes: Tensor, turns: list[tuple[int, int]]) -> Tensor:
    for axis, times in turns:
        volumes = rotate90(volumes, axis, times)
    return volumes
