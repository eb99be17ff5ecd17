"""Torchmetrics classes: the mean of a metric over volumes, across batches and processes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from mpfnl.metrics.image import psnr, ssim
from mpfnl.metrics.overlap import Mask, dice
from mpfnl.metrics.surface import normalized_surface_distance
from mpfnl.shapes import Features


class MeanOverVolumes(Metric):
    """Mean of one value per volume; every volume has the same weight. Abstract.

    Attributes:
        total: Sum of the values that enter the mean.
        counted: Number of those values.
        excluded: Number of volumes that the rule of the subclass leaves out.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False

    total: Tensor
    counted: Tensor
    excluded: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("counted", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("excluded", torch.tensor(0), dist_reduce_fx="sum")

    def _add(self, values: Tensor, exclude: Tensor) -> None:
        """Adds `(batch,)` values, without those for which `exclude` is true."""
        values = values.detach().where(~exclude, 0.0)
        self.total = self.total + values.sum().to(self.total)
        self.counted = self.counted + (~exclude).sum().to(self.counted)
        self.excluded = self.excluded + exclude.sum().to(self.excluded)

    def _mean(self) -> Tensor:
        return self.total / self.counted


class PeakSignalNoiseRatio3D(MeanOverVolumes):
    """Mean PSNR in dB over volumes (see `mpfnl.metrics.image.psnr`).

    A volume that equals its target has an infinite PSNR, which would hide all others: it is left out of the
    mean and counted in `excluded`. If all volumes equal their targets, the mean is `inf`. A NaN is not left
    out: it makes the mean NaN.

    Args:
        data_range: Span of the intensities: 1 for volumes windowed to [0, 1].

    >>> metric, target = PeakSignalNoiseRatio3D(), torch.zeros(2, 1, 4, 4, 4)
    >>> error = torch.tensor([0.1, 0.01])[:, None, None, None, None]  # 20 dB and 40 dB
    >>> metric(target + error, target)
    tensor(30.)
    """

    def __init__(self, data_range: float = 1.0) -> None:
        super().__init__()
        self.data_range = data_range

    def update(self, prediction: Features, target: Features) -> None:
        """Adds a batch, `(batch, channel, x, y, z)`."""
        with torch.no_grad():
            values = psnr(prediction, target, self.data_range)
        self._add(values, exclude=values.isposinf())

    def compute(self) -> Tensor:
        """The mean PSNR in dB, a scalar; NaN before the first volume."""
        perfect = (self.counted == 0) & (self.excluded > 0)
        return self._mean().where(~perfect, math.inf)


class StructuralSimilarity3D(MeanOverVolumes):
    """Mean SSIM over volumes (see `mpfnl.metrics.image.ssim`). No volume is left out.

    Args:
        data_range: Span of the intensities: 1 for volumes windowed to [0, 1].
        sigma: Standard deviation of the window in voxels.
        window_size: Side of the window in voxels, odd.

    >>> metric, volume = StructuralSimilarity3D(), torch.ones(2, 1, 11, 11, 11)
    >>> metric(volume, volume)
    tensor(1.)
    """

    def __init__(self, data_range: float = 1.0, sigma: float = 1.5, window_size: int = 11) -> None:
        super().__init__()
        self.data_range = data_range
        self.sigma = sigma
        self.window_size = window_size

    def update(self, prediction: Features, target: Features) -> None:
        """Adds a batch, `(batch, channel, x, y, z)`."""
        with torch.no_grad():
            values = ssim(prediction, target, self.data_range, self.sigma, self.window_size)
        self._add(values, exclude=torch.zeros_like(values, dtype=torch.bool))

    def compute(self) -> Tensor:
        """The mean SSIM, a scalar; NaN before the first volume."""
        return self._mean()


class DiceCoefficient(MeanOverVolumes):
    """Mean Dice similarity coefficient over volumes (see `mpfnl.metrics.overlap.dice`).

    A volume whose two masks are both empty has no coefficient: it is left out and counted.

    >>> metric = DiceCoefficient()
    >>> half, empty = torch.tensor([True, False]).expand(2, 2, 2), torch.zeros(2, 2, 2, dtype=torch.bool)
    >>> metric.update([half, half, empty], [half, ~half, empty])
    >>> metric.compute()
    {'dice': tensor(0.5000), 'dice_undefined': tensor(1)}
    """

    def update(self, prediction: Iterable[Mask], reference: Iterable[Mask]) -> None:
        """Adds a batch.

        Args:
            prediction: Boolean masks `(batch, x, y, z)`, or a list of masks of different grids.
            reference: The same number of masks.
        """
        values = torch.tensor([dice(a, b) for a, b in zip(prediction, reference, strict=True)])
        self._add(values, exclude=values.isnan())

    def compute(self) -> dict[str, Tensor]:
        """`dice`, the mean over volumes with a coefficient (NaN without any); `dice_undefined`, a count."""
        return {"dice": self._mean(), "dice_undefined": self.excluded.clone()}


class NormalizedSurfaceDistance(MeanOverVolumes):
    """Mean NSD over volumes (see `mpfnl.metrics.surface.normalized_surface_distance`).

    A volume whose two masks are both empty has no NSD: it is left out and counted.

    Args:
        tolerance: Distance in mm that still counts as agreement, 0 or more.

    >>> metric = NormalizedSurfaceDistance(tolerance=1.0)
    >>> cube = torch.ones(1, 3, 3, 3, dtype=torch.bool)
    >>> metric.update(cube, cube, spacing=[(1.0, 1.0, 1.0)])
    >>> metric.compute()
    {'nsd': tensor(1.), 'nsd_undefined': tensor(0)}
    """

    def __init__(self, tolerance: float) -> None:
        super().__init__()
        self.tolerance = tolerance

    def update(
        self,
        prediction: Iterable[Mask],
        reference: Iterable[Mask],
        spacing: Sequence[Sequence[float]],
    ) -> None:
        """Adds a batch.

        Args:
            prediction: Boolean masks `(batch, x, y, z)`, or a list of masks of different grids.
            reference: The same number of masks.
            spacing: Voxel spacing of each volume along x, y and z in mm.
        """
        cases = zip(prediction, reference, spacing, strict=True)
        values = torch.tensor(
            [normalized_surface_distance(a, b, step, self.tolerance) for a, b, step in cases]
        )
        self._add(values, exclude=values.isnan())

    def compute(self) -> dict[str, Tensor]:
        """`nsd`, the mean over volumes with an NSD (NaN without any); `nsd_undefined`, a count."""
        return {"nsd": self._mean(), "nsd_undefined": self.excluded.clone()}


class MeanLoss(MeanOverVolumes):
    """Mean of a loss over patches, each with the same weight, also over several processes.

    Lightning's mean over processes (`sync_dist`) is off where their batches differ in size; this is exact.
    """

    higher_is_better = False

    def update(self, loss: Tensor, patches: int) -> None:
        """Adds the mean loss of a batch.

        Args:
            loss: Mean loss, a scalar.
            patches: Number of patches in the batch.
        """
        losses = loss.detach().expand(patches)
        self._add(losses, torch.zeros_like(losses, dtype=torch.bool))

    def compute(self) -> Tensor:
        """The mean."""
        return self._mean()
