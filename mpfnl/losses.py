"""The training loss: L1 plus the L1 of the 3D Sobel edges."""

from __future__ import annotations

from torch import nn

from mpfnl.ops.sobel import sobel_gradient
from mpfnl.shapes import Scalar, TargetBatch

__all__ = ["L1SobelLoss"]


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
