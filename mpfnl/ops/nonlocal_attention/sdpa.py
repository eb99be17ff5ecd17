"""The non-local operator by PyTorch's own scaled dot-product attention: every device, every dtype."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def attention_sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention without a scale; shapes as for `nonlocal_attention`.

    PyTorch falls back to a form that stores the N x N matrix unless the operands are contiguous, query and
    value have as many channels and, on CUDA, rows are multiples of 16 bytes: so they are made to. Columns of
    zeros change nothing.
    """
    channels = value.shape[2]
    width = max(query.shape[2], channels)
    if query.device.type == "cuda":
        width = -(-width // 8) * 8
    q, k, v = (_widened(tensor, width).contiguous().unsqueeze(1) for tensor in (query, key, value))
    return functional.scaled_dot_product_attention(q, k, v, scale=1.0).squeeze(1)[..., :channels]


def _widened(tensor: Tensor, width: int) -> Tensor:
    # Not padded by nothing: of what that returns a compiler with dynamic shapes believes other strides.
    missing = width - tensor.shape[2]
    return functional.pad(tensor, (0, missing)) if missing else tensor
