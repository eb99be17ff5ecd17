"""The mean loss of the validation patches, also over several processes."""

from __future__ import annotations

import torch
from torch import Tensor

from mpfnl.metrics.aggregation import MeanOverVolumes


class MeanLoss(MeanOverVolumes):
    """Mean of a loss over patches, each weighing the same.

    Lightning's mean over processes (`sync_dist`) is off where their batches differ in size; this is exact.
    """

    higher_is_better = False

    def update(self, loss: Tensor, patches: int) -> None:
        """Takes in the mean loss of a batch.

        Args:
            loss: A scalar.
            patches: How many the batch holds.
        """
        losses = loss.detach().expand(patches)
        self._add(losses, torch.zeros_like(losses, dtype=torch.bool))

    def compute(self) -> Tensor:
        """The mean."""
        return self._mean()
