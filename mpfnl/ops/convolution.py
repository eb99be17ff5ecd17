"""A convolution and the activation after it, in one pass where the processor offers that. Torch only."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpfnl.shapes import Features, Reshaped

HALVES = (torch.bfloat16, torch.float16)


def computing_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype in which a convolution of this tensor computes: autocast's, or the tensor's own."""
    device = tensor.device.type
    if tensor.dtype is torch.float64 or not torch.is_autocast_enabled(device):  # autocast leaves float64
        return tensor.dtype
    return torch.get_autocast_dtype(device)


def convolve_leaky_relu(convolution: nn.Conv3d, features: Features, slope: float = 0.0) -> Reshaped:
    """A convolution of stride 1, then a leaky ReLU.

    Without gradients, in bfloat16 or float16 on a CPU, oneDNN applies the activation to its registers before
    it writes the output, which saves a pass over the features and a rounding. Hooks on the convolution are
    not called then. In all other cases the activation works in place.

    Args:
        convolution: Convolution without dilation, in one group, with zero padding.
        features: `(batch, in_channels, x, y, z)`.
        slope: Slope of the activation below zero; 0 is the plain ReLU.

    Returns:
        `(batch, out_channels, x, y, z)`.
    """
    dtype = computing_dtype(features)
    if dtype in HALVES and _may_fuse(features) and _fusion_works(dtype):
        bias = None if convolution.bias is None else convolution.bias.to(dtype)
        padding = convolution.padding
        assert not isinstance(padding, str)
        return _fused(features.to(dtype), convolution.weight.to(dtype), bias, list(padding), slope)
    # In place: a convolution does not keep its output for the backward pass.
    return functional.leaky_relu(convolution(features), slope, inplace=True)


def _may_fuse(features: Tensor) -> bool:
    plain = torch.compiler.is_compiling() or torch.is_grad_enabled()  # a compiler fuses by itself
    return features.device.type == "cpu" and not plain and torch.backends.mkldnn.is_available()


def _fused(features: Tensor, weight: Tensor, bias: Tensor | None, padding: list[int], slope: float) -> Tensor:
    ones = [1, 1, 1]  # strides and dilations
    return torch.ops.mkldnn._convolution_pointwise(
        features, weight, bias, padding, ones, ones, 1, "leaky_relu", [slope], ""
    )


@cache
def _fusion_works(dtype: torch.dtype) -> bool:
    """Whether PyTorch's private operator exists, takes this dtype and agrees with the plain path."""
    generator = torch.Generator().manual_seed(0)
    features, weight = (
        torch.randn(1, 16, 4, 4, 4, generator=generator),
        torch.randn(16, 16, 3, 3, 3, generator=generator),
    )
    try:
        fused = _fused(features.to(dtype), weight.to(dtype), None, [1, 1, 1], 0.2).float()
    except (RuntimeError, AttributeError, TypeError, ValueError):
        return False
    plain = functional.leaky_relu(functional.conv3d(features, weight, padding=1), 0.2)
    return bool((fused - plain).norm() < 2e-2 * plain.norm())
