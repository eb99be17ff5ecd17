"""Training losses: L1 plus the L1 of the 3D Sobel edges, and the same with smoothed errors."""

from __future__ import annotations

from torch import nn
from torch.nn import functional

from mpfnl.ops.sobel import sobel_gradient
from mpfnl.shapes import Scalar, TargetBatch

__all__ = ["ContrastLoss", "L1SobelLoss"]


class L1SobelLoss(nn.Module):
    """L1(y, y') + weight * L1(S(y), S(y')), S the 3D Sobel operator (arXiv 2501.14013, eq. 1).

    S is linear, so S(y) - S(y') is computed as S(y - y'): one pass instead of two. The mean runs over
    the three gradient components and the voxels that have all their neighbours. The loss is computed
    in float32, also under autocast.

    Args:
        edge_weight: Weight of the edges, lambda in the paper.

    >>> import torch
    >>> target = torch.zeros(1, 1, 4, 4, 4)
    >>> round(float(L1SobelLoss()(target + 0.5, target)), 3)  # a constant error has no edges
    0.5
    """

    def __init__(self, edge_weight: float = 0.7) -> None:
        super().__init__()
        self.edge_weight = edge_weight

    def forward(self, prediction: TargetBatch, target: TargetBatch) -> Scalar:
        """The loss of a batch.

        Args:
            prediction: Enhanced phase `(batch, 1, x, y, z)` in [0, 1].
            target: Clean phase of the same shape.

        Returns:
            A scalar.

        Raises:
            ValueError: If the shapes differ.
        """
        if prediction.shape != target.shape:
            raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ")
        error = prediction.float() - target.float()
        return error.abs().mean() + self.edge_weight * sobel_gradient(error).abs().mean()


class ContrastLoss(nn.Module):
    """L1SobelLoss plus the L1 of the error's means over cubes, which low-contrast structures depend on.

    Where the reference is noisy, the error of a voxel is mostly noise, and the contrast of a small lesion
    is a small part of it. Means over cubes of 2 and 4 voxels have less noise, and keep the lesion:
    L1Sobel(y, y') + weight * mean over edges n of L1(P_n(y - y')), P_n the mean over cubes of n voxels.

    Args:
        edge_weight: Weight of the edges, as in `L1SobelLoss`.
        smooth_weight: Weight of the smoothed errors.
        cubes: Edges of the cubes in voxels.

    >>> import torch
    >>> target = torch.zeros(1, 1, 8, 8, 8)
    >>> round(float(ContrastLoss(smooth_weight=2.0)(target + 0.5, target)), 3)
    1.5
    """

    def __init__(
        self, edge_weight: float = 0.7, smooth_weight: float = 2.0, cubes: tuple[int, ...] = (2, 4)
    ) -> None:
        super().__init__()
        self.sobel = L1SobelLoss(edge_weight)
        self.smooth_weight = smooth_weight
        self.cubes = cubes

    def forward(self, prediction: TargetBatch, target: TargetBatch) -> Scalar:
        """The loss of a batch; see `L1SobelLoss.forward`."""
        loss = self.sobel(prediction, target)
        error = prediction.float() - target.float()
        smooth = sum(functional.avg_pool3d(error, edge, 1).abs().mean() for edge in self.cubes)
        return loss + self.smooth_weight / len(self.cubes) * smooth
