"""The non-local operator: attention over all positions of a volume, without a scale.

Softmax form (modes `gaussian` and `embedded_gaussian` of Wang et al., "Non-local neural networks",
CVPR 2018, eq. 2 to 4):

    y_i = sum_j softmax_j(q_i . k_j) v_j

Dot-product form (eq. 5):

    y_i = 1/N sum_j (q_i . k_j) v_j

Neither form stores the N x N matrix: memory is O(N).
"""

from __future__ import annotations

from torch.nn import functional

from mpfnl.phases import Positions

__all__ = ["dot_product_attention", "nonlocal_attention"]


def nonlocal_attention(query: Positions, key: Positions, value: Positions) -> Positions:
    """Softmax attention over all positions: one head, no scale, no mask.

    Args:
        query: `(batch, N, C)`.
        key: `(batch, N, C)`; may be the same tensor as `query` (mode `gaussian`).
        value: `(batch, N, C_v)`.

    Returns:
        `(batch, N, C_v)`. Softmax and sums are accumulated in float32 at least.
    """
    # Contiguous: with any other layout PyTorch falls back to a form that stores the N x N matrix.
    q, k, v = (tensor.contiguous().unsqueeze(1) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)


def dot_product_attention(query: Positions, key: Positions, value: Positions) -> Positions:
    """Dot-product attention, normalised by the number of positions.

    The product is associative, so the C x C_v matrix `key^T value` is formed instead of the N x N one:
    time and memory are linear in N.

    Args:
        query: `(batch, N, C)`.
        key: `(batch, N, C)`.
        value: `(batch, N, C_v)`.

    Returns:
        `(batch, N, C_v)`.
    """
    return query @ (key.transpose(1, 2) @ value / key.shape[1])
