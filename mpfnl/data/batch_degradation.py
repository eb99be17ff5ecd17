"""Degradation, rotation and window of a batch of raw patches, on the model's device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor

from mpfnl.data.degradation import SampleSettings, block_mean
from mpfnl.data.patches import PatchSampling
from mpfnl.networks.coverage import normalize_covered
from mpfnl.samples import StudyBatch
from mpfnl.transforms.degradation import apply_batch
from mpfnl.transforms.rotation import rotate90
from mpfnl.window import COVERED_FROM_HU, UNCOVERED_HU


class RawBatch(TypedDict):
    """A batch of `RawSample`."""

    raw: Tensor
    degradation: list[str]
    rotation: list[str]
    study_id: list[str]


@dataclass(frozen=True)
class BatchDegradation:
    """Turns a raw batch into the batch that the workers would have made, all volumes at once.

    Args:
        settings: Degradation and window.
        sampling: Size and margin of the patches.
    """

    settings: SampleSettings
    sampling: PatchSampling

    def __call__(self, batch: RawBatch) -> StudyBatch:
        """The batch in [0, 1]: `(batch, P, x, y, z)` and `(batch, 1, x, y, z)`, float32, where `raw` is."""
        clean = batch["raw"].float()
        count, phases = len(clean), clean.shape[1] - 1
        samples = [json.loads(sample) for sample in batch["degradation"]]
        records = [record for sample in samples for record in sample["records"]]
        spacings = [sample["spacing_mm"] for sample in samples for _ in range(phases)]
        place = self.settings.phases.index(self.settings.target)
        uncovered = clean[:, :-1] < COVERED_FROM_HU
        uncovered[:, place] = False
        filled = torch.where(uncovered, clean[:, -1:], clean[:, :-1])
        degraded = apply_batch(filled.flatten(0, 1), spacings, records).unflatten(0, (count, phases))
        hu = torch.cat([degraded.masked_fill(uncovered, UNCOVERED_HU), clean[:, -1:]], dim=1)
        rotated = [
            _rotated(volumes, json.loads(turns))
            for volumes, turns in zip(self.sampling.trim(hu), batch["rotation"], strict=True)
        ]
        stacked, window = torch.stack(rotated), self.settings.window
        coarse = block_mean(stacked[:, :-1], self.settings.scale).transpose(0, 1)
        return {
            "phases": normalize_covered(coarse, window, place).transpose(0, 1),
            "target": window.normalize(stacked[:, -1:]),
            "study_id": batch["study_id"],
        }


def _rotated(volumes: Tensor, turns: list[tuple[int, int]]) -> Tensor:
    for axis, times in turns:
        volumes = rotate90(volumes, axis, times)
    return volumes
